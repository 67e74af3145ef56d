"""The main road: train, resume, predict and infer with PT-RAG through STATE's own commands."""

import csv
import json
import re
import shutil

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from state_rag.embeddings.readers import read_embeddings
from state_rag.files import sha256
from tests.end_to_end import commands
from tests.end_to_end.commands import files_below, run

pytestmark = pytest.mark.slow

K = 8


@pytest.fixture(scope="session")
def predicted(build_once, ptrag):
    """A copy of the PT-RAG run, predicted through its parent folder, with the log and the hashes before."""

    def make(folder):
        shutil.copytree(ptrag, folder / "runs")
        before = {name: sha256(folder / "runs" / name) for name in files_below(folder / "runs")}
        finished = run(["tx", "predict", "--output-dir", "runs", "--eval-genept-pert", "--profile", "minimal"], folder)
        (folder / "stderr.txt").write_text(finished.stderr)
        (folder / "hashes.json").write_text(json.dumps(before))

    return build_once("predicted", make)


def results_of(folder):
    return folder / "runs" / "ptrag" / "eval_last.ckpt"


def test_training_logs_the_method_and_every_resolved_flag(ptrag):
    log = (ptrag.parent / "stderr.txt").read_text()
    assert "Method: differentiable." in log
    for flag in ("rag=True", "gumbel_sparsity_loss=True", "topk_rag=8", "rag_inference=expected", "rag_fusion=replace"):
        assert flag in log


def test_training_logs_sparsity_and_activity_of_the_selector(ptrag):
    (path,) = ptrag.rglob("metrics.csv")
    with open(path) as stream:
        rows = list(csv.DictReader(stream))
    for column in ("train/gumbel_sparsity", "train/gumbel_active_ratio"):
        values = [float(row[column]) for row in rows if row.get(column)]
        assert len(values) >= 5
        assert all(0 <= value <= 1 for value in values)


def test_a_checkpoint_carries_names_embeddings_and_flags_as_plain_types(ptrag, project):
    checkpoint = torch.load(ptrag / "ptrag" / "checkpoints" / "last.ckpt", weights_only=True)
    saved = checkpoint["state_rag"]
    table = read_embeddings(project.embeddings, progress=False)
    names = list(saved["knowledge"]["names"])
    assert len(names) == 24
    assert names == sorted(names)
    assert "non-targeting" not in names
    rows = saved["knowledge"]["blocks"]["text"]
    assert np.array_equal(rows.numpy(), table.subset(names).vectors)
    assert saved["settings"]["topk_rag"] == K
    assert not any(tensor.shape == rows.shape for tensor in checkpoint["state_dict"].values())


def test_the_written_configuration_holds_resolved_flags_and_stays_readable(ptrag):
    config = yaml.safe_load((ptrag / "ptrag" / "config.yaml").read_text())
    assert config["model"]["name"] == "state"
    assert config["training"]["differentiable_rag"] is True
    assert config["training"]["topk_rag"] == K


def test_training_resumes_with_everything_it_had(project, tmp_path):
    arguments = ["training.max_steps=12", "output_dir=runs"]
    run(project.train_rag("again", *arguments), tmp_path)
    last = tmp_path / "runs" / "again" / "checkpoints" / "last.ckpt"
    before = torch.load(last, weights_only=True)
    # No embeddings are offered: a resumed run has those that it was trained with.
    arguments = ["training.max_steps=18", "output_dir=runs", "training.genept_path=null"]
    finished = run(project.train_rag("again", *arguments), tmp_path)
    after = torch.load(last, weights_only=True)
    assert re.search(r"with checkpoint_path=.*last\.ckpt", finished.stdout)
    assert (before["global_step"], after["global_step"]) == (12, 18)
    steps = {int(state["step"]) for state in after["optimizer_states"][0]["state"].values()}
    assert steps == {18}
    batches = [checkpoint["state_dict"]["selector.score_batches"].item() for checkpoint in (before, after)]
    assert 0 < batches[0] < batches[1] <= 18 + 2
    assert before["state_rag"]["knowledge"]["names"] == after["state_rag"]["knowledge"]["names"]
    assert torch.equal(
        before["state_rag"]["knowledge"]["blocks"]["text"], after["state_rag"]["knowledge"]["blocks"]["text"]
    )


def test_predict_accepts_the_parent_folder_and_says_which_run_it_took(predicted):
    assert "Took the run runs/ptrag, the only one in runs." in (predicted / "stderr.txt").read_text()


def test_predict_leaves_the_files_of_the_run_as_they_are(predicted):
    before = json.loads((predicted / "hashes.json").read_text())
    assert {name: sha256(predicted / "runs" / name) for name in before} == before
    new = files_below(predicted / "runs") - set(before)
    assert all(name.startswith("ptrag/eval_last.ckpt/") for name in new)


def test_predict_writes_predictions_and_evaluates_them(predicted):
    results = results_of(predicted)
    pred, real = (anndata.read_h5ad(results / f"adata_{kind}.h5ad") for kind in ("pred", "real"))
    assert pred.shape == real.shape
    assert pred.n_vars == 40
    assert np.isfinite(pred.X).all()
    assert (pred.obs["gene"] == real.obs["gene"]).all()
    assert set(pred.obs["cell_line"]) == {"hepg2"}
    metrics = pd.read_csv(results / "hepg2_results.csv")
    assert set(metrics["perturbation"]) == set(pred.obs["gene"]) - {"non-targeting"}
    assert (results / "hepg2_agg_results.csv").exists()


def test_the_retrieval_file_has_the_published_columns_and_a_row_for_each_predicted_cell(predicted):
    table = pd.read_csv(results_of(predicted) / "retrieval_info.csv", keep_default_na=False)
    obs = anndata.read_h5ad(results_of(predicted) / "adata_pred.h5ad", backed="r").obs
    assert list(table.columns) == [
        "cell_type", "pert_name", "retrieved_perturbations", "selected_perturbations", "n_selected", "n_retrieved",
        "degs", "n_degs",
    ]  # fmt: skip
    assert table["cell_type"].tolist() == obs["cell_line"].astype(str).tolist()
    assert table["pert_name"].tolist() == obs["gene"].astype(str).tolist()


def test_each_cell_has_k_candidates_with_their_inclusion(predicted):
    table = pd.read_csv(results_of(predicted) / "retrieval_info.csv", keep_default_na=False)
    cells = table[table["pert_name"] != "non-targeting"]
    assert (cells["n_retrieved"] == K).all()
    fractions = set()
    for row in cells.itertuples():
        found = re.findall(r"([^|(]+)\(w=(\d\.\d\d)\)", row.retrieved_perturbations)
        assert "|".join(f"{name}(w={w})" for name, w in found) == row.retrieved_perturbations
        names = [name for name, _ in found]
        assert len(set(names)) == K
        assert row.pert_name not in names
        assert "non-targeting" not in names
        selected = [] if row.selected_perturbations == "none" else row.selected_perturbations.split("|")
        assert row.n_selected == len(selected)
        surely = {name for name, w in found if float(w) > 0.51}
        perhaps = {name for name, w in found if float(w) >= 0.5}
        assert surely <= set(selected) <= perhaps
        fractions.update(w for _, w in found)
    assert fractions - {"0.00", "1.00"}, "the expected gate is a probability"


def test_nothing_is_retrieved_for_controls(predicted):
    table = pd.read_csv(results_of(predicted) / "retrieval_info.csv", keep_default_na=False)
    controls = table[table["pert_name"] == "non-targeting"]
    assert len(controls) == commands.SCREEN["controls_per_line"]
    assert (controls["n_retrieved"] == 0).all()
    assert (controls["selected_perturbations"] == "none").all()
    assert (controls["retrieved_perturbations"] == "").all()


def test_candidates_are_the_nearest_by_embedding(predicted, project):
    table = pd.read_csv(results_of(predicted) / "retrieval_info.csv", keep_default_na=False)
    checkpoint = torch.load(results_of(predicted).parent / "checkpoints" / "last.ckpt", weights_only=True)
    base = read_embeddings(project.embeddings, progress=False).subset(checkpoint["state_rag"]["knowledge"]["names"])
    unit = base.vectors / np.linalg.norm(base.vectors, axis=1, keepdims=True)
    for name in table["pert_name"].unique():
        if name == "non-targeting":
            continue
        cosine = unit @ unit[base.names.index(name)]
        cosine[base.names.index(name)] = -np.inf
        nearest = {base.names[row] for row in np.argsort(-cosine)[:K]}
        listed = table[table["pert_name"] == name]["retrieved_perturbations"].iloc[0]
        assert set(re.sub(r"\(w=....\)", "", listed).split("|")) == nearest


def test_a_moved_run_with_moved_data_predicts_the_same(predicted, ptrag, project, tmp_path):
    shutil.copytree(ptrag / "ptrag", tmp_path / "elsewhere" / "renamed")
    shutil.copytree(project.folder / "screen", tmp_path / "data")
    toml = tmp_path / "moved.toml"
    toml.write_text(project.split.read_text().replace(str(project.h5ad), str(tmp_path / "data" / "screen.h5ad")))
    folder = tmp_path / "elsewhere" / "renamed"
    # The run's own paths must not be needed: point them at nothing.
    config = folder / "config.yaml"
    config.write_text(config.read_text().replace(str(project.split), "/nonexistent/split.toml"))
    state = torch.load(folder / "data_module.torch", weights_only=False)
    state["toml_config_path"] = "/nonexistent/split.toml"
    torch.save(state, folder / "data_module.torch")
    before = {name: sha256(folder / name) for name in files_below(folder)}
    run(["tx", "predict", "--output-dir", "elsewhere/renamed", "--toml", "moved.toml", "--predict-only"], tmp_path)
    results = folder / "eval_last.ckpt"
    for kind in ("pred", "real"):
        ours, theirs = (anndata.read_h5ad(place / f"adata_{kind}.h5ad") for place in (results, results_of(predicted)))
        assert np.array_equal(ours.X, theirs.X)
        assert ours.obs.equals(theirs.obs)
    names = [place / "retrieval_info.csv" for place in (results, results_of(predicted))]
    assert names[0].read_text() == names[1].read_text()
    assert {name: sha256(folder / name) for name in before} == before


def test_a_few_batches_keep_controls_so_that_the_evaluation_works(run_copy):
    run(["tx", "predict", "--output-dir", str(run_copy), "--max-batches", "3", "--profile", "minimal"], run_copy.parent)
    results = run_copy / "eval_last.ckpt"
    names = anndata.read_h5ad(results / "adata_pred.h5ad").obs["gene"].astype(str)
    assert "non-targeting" in set(names)
    assert 2 <= names.nunique() <= 3
    assert len(pd.read_csv(results / "retrieval_info.csv")) == len(names)
    assert (results / "hepg2_results.csv").exists()


def test_pseudobulks_are_predicted_too(run_copy):
    run(["tx", "predict", "--output-dir", str(run_copy), "--pseudobulk", "--predict-only"], run_copy.parent)
    pred = anndata.read_h5ad(run_copy / "eval_last.ckpt" / "adata_pred.h5ad")
    assert pred.n_obs == pred.obs["gene"].nunique()
    assert (run_copy / "eval_last.ckpt" / "retrieval_info.csv").exists()


def infer(run_folder, project, output, *arguments, cwd):
    run(
        [
            "tx", "infer", "--model-dir", str(run_folder), "--adata", str(project.h5ad), "--embed-key", "X_hvg",
            "--pert-col", "gene", "--output", output, "--max-cells", "6", *arguments,
        ],
        cwd,
    )  # fmt: skip
    return anndata.read_h5ad(cwd / output)


def test_infer_is_deterministic_and_leaves_the_run_alone(run_copy, project):
    before = {name: sha256(run_copy / name) for name in files_below(run_copy)}
    first, second = (
        infer(run_copy, project, name, "--all-perts", cwd=run_copy.parent) for name in ("a.h5ad", "b.h5ad")
    )
    assert np.array_equal(first.obsm["X_hvg"], second.obsm["X_hvg"])
    assert first.obs["gene"].nunique() == 25
    assert np.isfinite(first.obsm["X_hvg"]).all()
    assert {name: sha256(run_copy / name) for name in files_below(run_copy)} == before


def test_a_new_perturbation_is_predicted_with_its_own_embedding(run_copy, project):
    unseen = json.loads((project.folder / "screen" / "truth.json").read_text())["unseen"]
    (run_copy.parent / "more.tsv").write_text("perturbation\tnum_cells\n" + "".join(f"{name}\t6\n" for name in unseen))
    found = infer(
        run_copy, project, "new.h5ad", "--tsv", "more.tsv", "--genept-path", str(project.embeddings),
        cwd=run_copy.parent,
    )  # fmt: skip
    mean = {
        name: found.obsm["X_hvg"][(found.obs["gene"] == name).to_numpy()].mean(0) for name in [*unseen, "non-targeting"]
    }
    assert all(np.isfinite(values).all() for values in mean.values())
    assert all(np.abs(mean[name] - mean["non-targeting"]).max() > 1e-3 for name in unseen)
    assert np.abs(mean[unseen[0]] - mean[unseen[1]]).max() > 1e-4


def test_another_control_label_is_honoured(run_copy, project, tmp_path):
    adata = anndata.read_h5ad(project.h5ad)
    adata.obs["gene"] = adata.obs["gene"].astype(str).replace("non-targeting", "scrambled")
    adata.write_h5ad(tmp_path / "relabelled.h5ad")
    usual = infer(run_copy, project, "usual.h5ad", cwd=tmp_path)
    run(
        [
            "tx", "infer", "--model-dir", str(run_copy), "--adata", "relabelled.h5ad", "--embed-key", "X_hvg",
            "--pert-col", "gene", "--output", "sim.h5ad", "--max-cells", "6", "--control-pert", "scrambled",
        ],
        tmp_path,
    )  # fmt: skip
    sim = anndata.read_h5ad(tmp_path / "sim.h5ad")
    assert (sim.obs["gene"] == "scrambled").sum() == 6
    assert sim.n_obs == usual.n_obs
    assert np.isfinite(sim.obsm["X_hvg"]).all()
