"""Every method and preset trains and predicts; incomplete embeddings; plain STATE is left as it is."""

import csv
import json
import re
import shutil
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from state_rag.datasets.preparing.prepare import prepare
from state_rag.datasets.splitting.splits import write_split
from tests.end_to_end.commands import OURS, Project, run

pytestmark = pytest.mark.slow


def train_and_predict(project, folder, name, *overrides, model="rag"):
    run(project.train_rag(name, "training.max_steps=4", "training.val_freq=2", *overrides, model=model), folder)
    run(["tx", "predict", "--output-dir", f"runs/{name}", "--predict-only"], folder)
    results = folder / "runs" / name / "eval_last.ckpt"
    pred = anndata.read_h5ad(results / "adata_pred.h5ad")
    assert np.isfinite(pred.X).all()
    return folder / "runs" / name, pred


@pytest.mark.parametrize("preset", ["vanilla", "hidden"])
def test_attention_retrieves_when_it_predicts_too(preset, project, tmp_path):
    folder, pred = train_and_predict(project, tmp_path, preset, f"rag={preset}")
    table = pd.read_csv(folder / "eval_last.ckpt" / "retrieval_info.csv", keep_default_na=False)
    assert len(table) == pred.n_obs
    cells = table[table["pert_name"] != "non-targeting"]
    assert (cells["n_retrieved"] == 8).all()
    weights = cells["retrieved_perturbations"].str.findall(r"w=(\d\.\d\d)")
    totals = weights.map(lambda found: sum(map(float, found)))
    assert np.allclose(totals, 1, atol=0.05), "attention weights sum to one"


def test_genept_without_retrieval_writes_no_retrieval_file(project, tmp_path):
    folder, _ = train_and_predict(project, tmp_path, "genept", "rag=genept", "training.topk_rag=999")
    assert not (folder / "eval_last.ckpt" / "retrieval_info.csv").exists()
    checkpoint = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["state_dict"]["pert_encoder.0.weight"].shape[1] == 24


def test_the_published_sizes_start_and_predict_under_this_version_of_transformers(project, tmp_path):
    published = [
        "model.kwargs.cell_set_len=64",
        "model.kwargs.hidden_dim=128",
        "model.kwargs.transformer_backbone_kwargs.intermediate_size=2784",
        "model.kwargs.transformer_backbone_kwargs.num_hidden_layers=8",
        "model.kwargs.transformer_backbone_kwargs.num_attention_heads=12",
        "model.kwargs.transformer_backbone_kwargs.num_key_value_heads=12",
        "model.kwargs.transformer_backbone_kwargs.head_dim=58",
    ]
    folder, _ = train_and_predict(
        project, tmp_path, "paper", "rag=ptrag_paper", "training.batch_size=2", *published, model="rag_paper"
    )
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["training"]["rag_score_scale"] == "batch"
    weights = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    (query,) = (value for key, value in weights.items() if key.endswith("layers.7.self_attn.q_proj.weight"))
    assert query.shape == (12 * 58, 128)
    table = pd.read_csv(folder / "eval_last.ckpt" / "retrieval_info.csv", keep_default_na=False)
    listed = "|".join(table["retrieved_perturbations"])
    assert set(re.findall(r"w=(\d\.\d\d)", listed)) == {"0.00", "1.00"}, "sampled inference draws"


@pytest.mark.parametrize(
    ("preset", "embed_key", "output_space", "genes"),
    [
        ("ptrag", "X_hvg", "all", 60),
        ("none", "X_hvg", "all", 60),
        ("ptrag", "null", "all", 60),
        ("ptrag", "X_hvg", "embedding", 40),
    ],
)
def test_every_output_space_is_predicted_and_evaluated(preset, embed_key, output_space, genes, project, tmp_path):
    space = [f"data.kwargs.embed_key={embed_key}", f"data.kwargs.output_space={output_space}"]
    run(project.train_rag("space", "training.max_steps=4", "training.val_freq=2", f"rag={preset}", *space), tmp_path)
    genept = ["--genept-path", str(project.embeddings)]
    run(["tx", "predict", "--output-dir", "runs/space", "--eval-genept-pert", "--predict-only", *genept], tmp_path)
    results = tmp_path / "runs" / "space" / "eval_last.ckpt"
    assert anndata.read_h5ad(results / "adata_pred.h5ad").n_vars == genes
    table = pd.read_csv(results / "gge" / "results.csv")
    assert len(table) > 5
    if preset != "none":
        run(["retrieval", "runs/space", "--ablate", "--ablate-at-most", "2"], tmp_path, via=OURS)


def test_perturbations_without_embeddings_are_left_out_and_named(gappy_project, tmp_path):
    missing = json.loads((gappy_project.folder / "screen" / "truth.json").read_text())["missing_embedding"]
    finished = run(gappy_project.train_rag("gappy", "training.max_steps=4"), tmp_path)
    assert "3 of 24 perturbations have no embedding" in finished.stderr
    folder = tmp_path / "runs" / "gappy"
    assert (folder / "perturbations_without_embedding.txt").read_text().split() == sorted(missing)
    saved = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_rag"]["knowledge"]["names"]
    assert len(saved) == 21
    assert not set(missing) & set(saved)
    finished = run(["tx", "predict", "--output-dir", "runs", "--profile", "minimal"], tmp_path)
    tested = gappy_project.split.read_text().split("test = [")[1].split('"')[1::2]
    left_out = sorted(set(missing) & set(tested))
    results = folder / "eval_last.ckpt"
    predicted = set(anndata.read_h5ad(results / "adata_pred.h5ad").obs["gene"])
    assert predicted == (set(tested) - set(missing)) | {"non-targeting"}
    if left_out:
        assert f"{len(left_out)} of {len(tested)} perturbations have no embedding" in finished.stderr
        assert (results / "perturbations_without_embedding.txt").read_text().split() == left_out


WALL_CLOCK = ("time", "speed", "per_second", "sec", "mfu", "flops_util")


def test_without_retrieval_every_logged_number_equals_plain_upstreams(plain_pair):
    tables = []
    for folder in plain_pair.values():
        (path,) = folder.rglob("metrics.csv")
        with open(path) as stream:
            tables.append(list(csv.DictReader(stream)))
    ours, theirs = tables
    assert len(ours) == len(theirs) > 5
    assert ours[0].keys() == theirs[0].keys()
    columns = [name for name in ours[0] if not any(part in name.lower() for part in WALL_CLOCK)]
    assert {"train_loss", "val_loss"} <= set(columns)
    assert [[row[name] for name in columns] for row in ours] == [[row[name] for name in columns] for row in theirs]


def tensors(value, path=""):
    if isinstance(value, torch.Tensor):
        yield path, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from tensors(item, f"{path}/{key}")
    elif isinstance(value, list | tuple):
        for place, item in enumerate(value):
            yield from tensors(item, f"{path}/{place}")


def test_without_retrieval_every_tensor_of_the_checkpoint_equals_plain_upstreams(plain_pair):
    ours, theirs = (
        torch.load(folder / "checkpoints" / "last.ckpt", weights_only=False) for folder in plain_pair.values()
    )
    assert ours.keys() == theirs.keys()
    assert ours["hyper_parameters"] == theirs["hyper_parameters"]
    mine, yours = (
        {name.replace(f"{folder}/", ""): tensor for name, tensor in tensors(checkpoint)}
        for folder, checkpoint in zip(plain_pair.values(), (ours, theirs), strict=True)
    )
    assert mine.keys() == yours.keys()
    assert len(mine) > 50
    assert all(torch.equal(mine[name], yours[name]) for name in mine)


def test_without_retrieval_the_run_folder_equals_plain_upstreams_but_for_what_was_trained_on(plain_pair):
    ours, theirs = (
        {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
        for folder in plain_pair.values()
    )
    assert ours == {*theirs, "data_contract.json", "split.toml"}
    assert (plain_pair["with"] / "config.yaml").read_text() == (plain_pair["without"] / "config.yaml").read_text()


def test_the_test_set_of_a_plain_run_can_be_limited_to_embedded_perturbations(plain_pair, project, tmp_path):
    folder = shutil.copytree(plain_pair["with"], tmp_path / "plain")
    tested = project.split.read_text().split("test = [")[1].split('"')[1::2]
    known = tested[:4]
    (tmp_path / "some.csv").write_text("gene,a,b\n" + "".join(f"{name},1,{row}\n" for row, name in enumerate(known)))
    run(
        ["tx", "predict", "--output-dir", str(folder), "--eval-genept-pert", "--genept-path", "some.csv",
         "--profile", "minimal"],
        tmp_path,
    )  # fmt: skip
    results = folder / "eval_last.ckpt"
    assert set(anndata.read_h5ad(results / "adata_pred.h5ad").obs["gene"]) == {*known, "non-targeting"}
    assert set(pd.read_csv(results / "hepg2_results.csv")["perturbation"]) == set(known)


def test_real_data_train_with_text_embeddings_after_preparation(tmp_path):
    shared = Path(__file__).resolve().parents[3] / "shared" / "data"
    if not (shared / "perturbench_devel.h5ad").is_file():
        pytest.skip(f"{shared} is absent: real data were not tried")
    ready = prepare(shared / "perturbench_devel.h5ad", tmp_path / "ready.h5ad", replogle_names=True)
    write_split(ready.path, "A172", output=tmp_path / "split.toml", few_shot=0.3)
    finished = run(
        Project(tmp_path).train_rag(
            "real",
            "training.topk_rag=8",
            f"training.genept_path={shared / 'gene_summaries.json'}",
            "training.max_steps=10",
        ),
        tmp_path,
    )
    assert "have no embedding" in finished.stderr
    words = ["tx", "predict", "--output-dir", "runs", "--eval-genept-pert", "--no-evidence", "--profile", "minimal"]
    run(words, tmp_path)
    results = tmp_path / "runs" / "real" / "eval_last.ckpt"
    table = pd.read_csv(results / "retrieval_info.csv", keep_default_na=False)
    assert set(table["cell_type"]) == {"A172"}
    assert set(table["n_retrieved"]) == {0, 8}
