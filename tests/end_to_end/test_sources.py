"""Several sources of knowledge in a network's run, with the real commands."""

import json
import shutil

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import state_rag as sr
from tests.end_to_end.commands import OURS, run, the_error

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def runs(project, tmp_path_factory):
    """A folder with gene sets that know the screen's modules, a random table, and networks that are given both."""
    folder = tmp_path_factory.mktemp("sources")
    truth = json.loads((project.folder / "screen" / "truth.json").read_text())
    modules: dict[str, list[str]] = {}
    for name, module in truth["module"].items():
        modules.setdefault(module, []).append(name)
    sets = ["\t".join([module, "", *names]) for module, names in modules.items()]
    (folder / "sets.gmt").write_text("\n".join(sets) + "\n")
    names = sorted(set(truth["module"]) - set(truth["unseen"]))
    vectors = np.random.default_rng(0).normal(size=(len(names), 12)).round(4)
    pd.DataFrame(vectors, index=names).to_csv(folder / "random.csv", index_label="gene")
    cells = ad.read_h5ad(project.h5ad)
    cells[cells.obs["gene"].astype(str) == "non-targeting"].copy().write_h5ad(folder / "controls.h5ad")
    sources = "training.rag_sources=[random=random.csv,sets=sets.gmt]"
    trained = run(project.train("anchored", "rag=evidence", sources), folder)
    (folder / "stderr.txt").write_text(trained.stderr)
    run(project.train("ptrag", "rag=ptrag", "training.topk_rag=8", sources), folder)
    return folder, truth["unseen"]


@pytest.fixture
def moved(runs, tmp_path):
    """A run in another folder, without the files of its sources."""
    return shutil.copytree(runs[0] / "runs", tmp_path / "runs")


def infer(folder, name, cells, *options, check=True, of="anchored"):
    words = ["tx", "infer", "--model-dir", f"runs/{of}", "--adata", str(cells), "--pert-col", "gene"]
    return run([*words, "--perturbations", name, "--output", "out.h5ad", *options], folder, check=check)


def effect(cells, name, line):
    def mean(label):
        return np.asarray(cells[(cells.obs["gene"] == label) & (cells.obs["cell_line"] == line)].X).mean(axis=0)

    return mean(name) - mean("non-targeting")


def test_training_says_what_each_source_knows_and_how_much_it_counts(runs):
    folder, _ = runs
    told = (folder / "stderr.txt").read_text()
    assert "Source sets: gene sets, 6 sets of 2 to 300 genes; knows 24 of 24 perturbations" in told
    assert "Similar perturbations are told by: sets" in told
    weights = pd.read_csv(folder / "runs" / "anchored" / "sources.csv").set_index("source")["weight"]
    assert weights["random"] < weights["sets"] / 10


def test_a_run_predicts_and_is_explained_without_the_files_of_its_sources(runs, moved, tmp_path):
    run(["tx", "predict", "--output-dir", "runs/anchored", "--predict-only"], tmp_path)
    table = pd.read_csv(tmp_path / "runs" / "anchored" / "eval_last.ckpt" / "trust.csv")
    assert table["expected_pearson"].notna().all()
    name = table["perturbation"].iloc[0]
    words = ["explain", "runs/anchored", "--perturbation", name, "--context", "hepg2", "-o", "explained"]
    said = run(words, tmp_path, via=OURS).stdout
    assert "Similar perturbations are told by: sets" in said
    assert "by_sets" in (tmp_path / "explained" / f"hepg2_{name}.csv").read_text().splitlines()[0]


def test_a_perturbation_of_no_cell_is_predicted_where_one_source_knows_it(runs, moved, tmp_path):
    folder, unseen = runs
    told = infer(tmp_path, unseen[0], folder / "controls.h5ad").stderr
    assert "1 perturbations are new to the run and use their own embedding" in told
    assert f"Known by sets beside the run's own perturbations: {unseen[0]}" in told
    cells = ad.read_h5ad(tmp_path / "out.h5ad")
    predictor = sr.load(tmp_path / "runs" / "anchored")
    expected = predictor.effects(["hepg2"], [unseen[0]])
    assert np.corrcoef(effect(cells, unseen[0], "hepg2"), np.asarray(expected.X)[0])[0, 1] > 0.99
    again = predictor.predict(ad.read_h5ad(folder / "controls.h5ad"), perturbations=[unseen[0]])
    assert np.array_equal(again.X, cells.X)


def test_where_the_files_are_gone_a_new_one_is_refused_and_named_files_are_taken(runs, moved, tmp_path):
    folder, unseen = runs
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in ("sets.gmt", "random.csv"):
        (folder / name).rename(elsewhere / name)
    try:
        refused = infer(tmp_path, unseen[0], folder / "controls.h5ad", check=False)
        assert f"close spellings: {unseen[0]} -> " in the_error(refused.stderr)
        infer(tmp_path, unseen[0], folder / "controls.h5ad", "--source", "sets=elsewhere/sets.gmt")
        assert np.abs(effect(ad.read_h5ad(tmp_path / "out.h5ad"), unseen[0], "hepg2")).max() > 0
        other = infer(tmp_path, unseen[0], folder / "controls.h5ad", "--source", "go=elsewhere/sets.gmt", check=False)
        assert "no such source; it has random, sets" in the_error(other.stderr)
    finally:
        for name in ("sets.gmt", "random.csv"):
            (elsewhere / name).rename(folder / name)


def test_what_each_source_proposed_is_shown_wherever_retrieval_is(runs, moved, tmp_path):
    folder, unseen = runs
    run(["tx", "predict", "--output-dir", "runs/ptrag", "--predict-only"], tmp_path)
    table = pd.read_csv(tmp_path / "runs" / "ptrag" / "eval_last.ckpt" / "retrieval_info.csv")
    table = table[table["pert_name"] != "non-targeting"]
    for retrieved, sources in zip(table["retrieved_perturbations"], table["retrieved_sources"], strict=True):
        assert len(retrieved.split("|")) == len(sources.split("|")) == 8
        assert set(sources.replace("+", "|").split("|")) <= {"random", "sets", "none"}
    name = table["pert_name"].iloc[0]
    shown = run(["retrieval", "runs/ptrag", "--gene", name], tmp_path, via=OURS).stdout
    assert "mean inclusion, proposed by sets:" in shown
    assert any("neighbour" in line and "proposed by" in line for line in shown.splitlines())
    infer(tmp_path, unseen[0], folder / "controls.h5ad", of="ptrag")
    kept = ad.read_h5ad(tmp_path / "out.h5ad").uns["state_rag"]["retrieval"]
    proposed = set(kept["source"][kept["perturbation"] == unseen[0]])
    assert "sets" in proposed
    assert "random" not in proposed  # it does not know this perturbation
    predictor = sr.load(tmp_path / "runs" / "ptrag")
    predictor.predict(ad.read_h5ad(folder / "controls.h5ad"), perturbations=[unseen[0]])
    rows = predictor.retrieved(unseen[0], "hepg2")
    mates = set(rows["neighbour"][rows["source"] == "sets"])
    assert mates
    assert {other.rstrip("0123456789") for other in mates} == {unseen[0].rstrip("0123456789")}


def test_training_on_with_other_sources_is_refused(runs, moved, project, tmp_path):
    shutil.copy(runs[0] / "sets.gmt", tmp_path)
    words = project.train("ptrag", "rag=ptrag", "training.topk_rag=8", "training.rag_sources=[sets=sets.gmt]")
    message = the_error(run(words, tmp_path, check=False).stderr)
    assert "was trained with the sources random, sets, and this command names sets" in message
