"""A network on a screen whose labels tell doses, with the real commands: doses that it never saw are predicted."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch

import state_rag as sr
from state_rag.evidence.estimator import Evidence
from tests.end_to_end.commands import OURS, run, the_error

pytestmark = pytest.mark.slow

CONTROL = "non-targeting"


@pytest.fixture(scope="module")
def trained(project, tmp_path_factory):
    """A folder with a screen of two doses and its PT-RAG run, trained for a few steps."""
    folder = tmp_path_factory.mktemp("treated")
    cells = ad.read_h5ad(project.h5ad)
    names = cells.obs["gene"].astype(str)
    dose = np.random.default_rng(0).choice(["0.1", "10"], size=len(names))
    labels = np.where(names == CONTROL, CONTROL, names + ":drug:dose=" + dose)
    cells.obs["gene"] = pd.Categorical(labels)
    cells.write_h5ad(folder / "screen.h5ad")
    words = ["data", "split", "screen.h5ad", "--held-out", "hepg2", "-o", "split.toml"]
    run(words, folder, via=OURS)
    finished = run(project.train_rag("dosed", "data.kwargs.toml_config_path=split.toml"), folder)
    return folder, cells, finished.stderr


def test_a_dose_between_those_of_training_is_predicted_and_its_place_travels_with_the_run(trained):
    folder, cells, told = trained
    assert "beside the embedding of their name they have: log dose" in told
    assert run(["tx", "predict", "--output-dir", "runs/dosed", "--predict-only"], folder).returncode == 0
    some = cells[cells.obs["gene"] == CONTROL].copy()
    some.write_h5ad(folder / "controls.h5ad")
    name = str(next(label for label in cells.obs["gene"].cat.categories if label != CONTROL)).partition(":")[0]
    asked = [f"{name}:drug:dose={dose}" for dose in ("0.1", "1", "10")]
    words = ["tx", "infer", "--model-dir", "runs/dosed", "--adata", "controls.h5ad", "--pert-col", "gene"]
    run([*words, "--perturbations", ",".join(asked), "--output", "out.h5ad"], folder)
    found = ad.read_h5ad(folder / "out.h5ad")
    assert set(found.obs["gene"]) == {*asked, CONTROL}
    again = sr.load(folder / "runs" / "dosed").predict(some, perturbations=asked)
    assert np.allclose(np.asarray(again.X), np.asarray(found.X), atol=1e-6)
    saved = torch.load(folder / "runs" / "dosed" / "checkpoints" / "last.ckpt", weights_only=True)["state_rag"]
    assert saved["knowledge"]["scaling"]["modes"] == ["drug"]
    least, _, deviation = saved["knowledge"]["scaling"]["dose"]
    assert (least, deviation) == (0.1, 1.0)
    assert saved["knowledge"]["coordinates"].shape[1] == 1
    effects = {label: np.asarray(found[found.obs["gene"] == label].X).mean(0) for label in asked}
    assert all((effects[one] != effects[other]).any() for one, other in zip(asked, asked[1:], strict=False))


def test_an_anchored_run_brings_cells_to_what_the_evidence_says_of_a_dose(trained, project):
    folder, cells, _ = trained
    words = project.train_rag("anchored", "data.kwargs.toml_config_path=split.toml", "rag=evidence")
    run(words, folder)
    run(["tx", "predict", "--output-dir", "runs/anchored", "--predict-only"], folder)
    predicted = ad.read_h5ad(folder / "runs" / "anchored" / "eval_last.ckpt" / "adata_pred.h5ad")
    assert predicted.obs["expected_pearson"].shape[0] == predicted.n_obs
    told = run(["evaluate", "runs/anchored"], folder, via=OURS)
    names = {label.partition(":")[0] for label in cells.obs["gene"].cat.categories if label != CONTROL}
    assert f"embeddings of {len(names)} of {len(names)} perturbations" in told.stdout + told.stderr
    assert "fallbacks of embedding ridge" not in told.stdout + told.stderr
    cells[cells.obs["gene"] == CONTROL].copy().write_h5ad(folder / "controls.h5ad")
    name = str(next(label for label in cells.obs["gene"].cat.categories if label != CONTROL)).partition(":")[0]
    asked = [f"{name}:drug:dose={dose}" for dose in ("0.1", "1", "10")]
    words = ["tx", "infer", "--model-dir", "runs/anchored", "--adata", "controls.h5ad", "--pert-col", "gene"]
    run([*words, "--perturbations", ",".join(asked), "--output", "anchored.h5ad"], folder)
    found = ad.read_h5ad(folder / "anchored.h5ad")
    saved = torch.load(folder / "runs" / "anchored" / "checkpoints" / "last.ckpt", weights_only=True)["state_rag"]
    engine = Evidence.from_state(saved["evidence"]["engine"])
    assert engine.bank.treatments is not None
    effects = engine.predict("k562", asked, trust=False).mean
    assert (effects[0] != effects[1]).any()
    assert (effects[1] != effects[2]).any()
    for label, effect in zip(asked, effects, strict=True):
        mean = np.maximum(engine.responses.controls["k562"] + effect, 0)
        own = found[(found.obs["gene"] == label) & (found.obs["cell_line"] == "k562")].obsm["X_hvg"]
        np.testing.assert_allclose(np.asarray(own).mean(0), mean, atol=1e-4)


@pytest.mark.parametrize("method", ["ptrag", "genept"])
def test_several_sources_know_doses_by_the_name_of_the_treatment(trained, project, method):
    folder, cells, _ = trained
    names = sorted({label.partition(":")[0] for label in cells.obs["gene"].cat.categories if label != CONTROL})
    table = sr.embeddings.read(project.embeddings, names=names)
    known, other = names[:-1], names[-1]  # which gene sets alone know
    pd.DataFrame(table.subset(known).vectors, index=known).to_csv(folder / "table.csv", index_label="gene")
    sets = [names[start : start + 4] for start in range(0, len(names), 2)] + [[other, *names[:3]], ["NEW", *names[:3]]]
    (folder / "sets.gmt").write_text(
        "".join(f"s{number}\t\t" + "\t".join(one) + "\n" for number, one in enumerate(sets))
    )
    sources = "training.rag_sources=[table=table.csv,sets=sets.gmt]"
    words = project.train(method, f"rag={method}", sources, "data.kwargs.toml_config_path=split.toml")
    told = run([*words, *(["training.topk_rag=6"] if method == "ptrag" else [])], folder).stderr
    assert "beside the embedding of their name they have: log dose" in told
    assert "perturbations have no embedding" not in told
    run(["tx", "predict", "--output-dir", f"runs/{method}", "--predict-only"], folder)
    cells[cells.obs["gene"] == CONTROL].copy().write_h5ad(folder / "controls.h5ad")
    asked = [f"{name}:drug:dose={dose}" for name in (known[0], other, "NEW") for dose in ("0.1", "1", "10")]
    words = ["tx", "infer", "--model-dir", f"runs/{method}", "--adata", "controls.h5ad", "--pert-col", "gene"]
    run([*words, "--perturbations", ",".join(asked), "--output", f"{method}.h5ad"], folder)
    found = ad.read_h5ad(folder / f"{method}.h5ad")
    assert {*asked} <= set(found.obs["gene"])
    effects = {label: np.asarray(found[found.obs["gene"] == label].X).mean(0) for label in asked}
    assert all((effects[one] != effects[other]).any() for one, other in zip(asked, asked[1:], strict=False))
    saved = torch.load(folder / "runs" / method / "checkpoints" / "last.ckpt", weights_only=True)["state_rag"]
    blocks = saved["knowledge"]["blocks"]
    of_other = [row for row, label in enumerate(saved["knowledge"]["names"]) if label.startswith(f"{other}:")]
    assert not blocks["table"][of_other].any()
    assert blocks["sets"][of_other].any(1).all()
    refused = run([*words, "--perturbations", "nobody:drug:dose=1", "--output", "no.h5ad"], folder, check=False)
    assert "nobody:drug:dose=1" in the_error(refused.stderr)
