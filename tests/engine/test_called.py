"""Called genes beside predictions, in explanations and from Python."""

from dataclasses import replace

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import state_rag as sr
from state_rag.cells.question import Names, Wanted
from state_rag.cli import main
from state_rag.datasets.simulation.simulate import simulate_screen
from state_rag.datasets.splitting.splits import write_split
from state_rag.effects.changes import changes_in
from state_rag.engine import called
from state_rag.engine.ask import ask
from state_rag.engine.called import (
    CALLS,
    FREQUENCY,
    LAYER,
    caller_words,
    calls_file,
    calls_table,
    read_calls,
    write_calls,
)
from state_rag.engine.called_genes import called_genes
from state_rag.engine.effects import predicted_effects
from state_rag.engine.fitting import fit
from state_rag.engine.folder import read_run
from state_rag.engine.predict import predict
from state_rag.errors import StateRagError
from state_rag.evidence.estimator import Evidence
from state_rag.evidence.responses import UNTOLD
from state_rag.upstream.predict import _write_calls
from tests.engine.runs import QUICK, SIZES

LARGER = {**SIZES, "n_perturbations": 24, "n_genes": 60, "n_hvgs": 40, "cells_per_condition": 20, "effect_scale": 1.5}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("called")
    screen = simulate_screen(folder, seed=3, **LARGER)
    split = write_split(screen.h5ad, "hepg2", output=folder / "split.toml").path
    fit(split, folder / "run", embeddings=screen.embeddings, settings=QUICK, progress=False)
    predict(read_run(folder / "run"), split, folder / "run" / "eval_last.ckpt", progress=False)
    return folder


@pytest.fixture(scope="module")
def run(made):
    return read_run(made / "run")


@pytest.fixture(scope="module")
def predicted(made):
    return ad.read_h5ad(made / "run" / "eval_last.ckpt" / "adata_pred.h5ad")


def names_in(predicted):
    return sorted(set(predicted.obs["gene"]) - {"non-targeting"})


def test_cells_carry_the_probability_of_their_condition_and_controls_none(run, predicted):
    names = names_in(predicted)
    calls = run.engine.predict("hepg2", names).calls
    for number, name in enumerate(names):
        own = predicted.layers[LAYER][(predicted.obs["gene"] == name).to_numpy()]
        np.testing.assert_allclose(own, np.tile(calls.probability[number], (len(own), 1)), rtol=1e-6)
    assert (predicted.layers[LAYER][(predicted.obs["gene"] == "non-targeting").to_numpy()] == 0).all()


def test_the_table_has_the_genes_of_the_list_with_what_is_predicted(made, run, predicted):
    names = names_in(predicted)
    found = run.engine.predict("hepg2", names)
    table = read_calls(calls_file(made / "run" / "eval_last.ckpt"))
    query, gene = np.nonzero(found.calls.called(0.1))
    expected = {(names[q], found.genes[g]) for q, g in zip(query, gene, strict=True)}
    assert set(zip(table["perturbation"], table["gene"], strict=True)) == expected
    assert len(expected) > 5
    for row in table.sample(5, random_state=0).itertuples():
        q, g = names.index(row.perturbation), found.genes.index(row.gene)
        assert row.effect == pytest.approx(found.mean[q, g], rel=1e-3)
        assert row.probability == pytest.approx(found.calls.probability[q, g], rel=1e-3)
        assert row.direction == ("up" if found.mean[q, g] > 0 else "down")
    for _, of_one in table.groupby("perturbation"):
        assert of_one["probability"].is_monotonic_decreasing


def test_how_often_genes_change_is_that_of_the_training_conditions_of_the_line(run, predicted):
    responses = run.engine.responses
    rows = [row for row, (line, _) in enumerate(responses.conditions) if line == "hepg2"]
    told = responses.changes[rows]
    assert not (told == UNTOLD).any()
    np.testing.assert_allclose(predicted.varm[FREQUENCY]["hepg2"], (told != 0).mean(axis=0))


def test_what_changed_is_welchs_test_on_the_training_cells(made, run):
    cells = ad.read_h5ad(made / "screen.h5ad")
    table = sr.effects.from_anndata(cells, matrix="obsm/X_hvg")
    expected = dict(
        zip(zip(table.obs["context"], table.obs["perturbation"], strict=True), changes_in(table), strict=True)
    )
    for row, condition in enumerate(run.engine.responses.conditions):
        np.testing.assert_array_equal(run.engine.responses.changes[row], expected[condition])


def test_cells_in_memory_get_the_layer_too(made, run, predicted):
    cells = ad.read_h5ad(made / "screen.h5ad")
    cells = cells[cells.obs["cell_line"] == "hepg2"]
    names = Names("gene", "cell_line", "non-targeting", "gem_group")
    name = names_in(predicted)[0]
    found = ask(run, cells, names, Wanted([name], None, 4))
    calls = run.engine.predict("hepg2", [name]).calls
    own = found.layers[LAYER][(found.obs["gene"] == name).to_numpy()]
    np.testing.assert_allclose(own, np.tile(calls.probability[0], (4, 1)), rtol=1e-6)


def test_the_python_api_lists_genes_at_any_rate(made, run, predicted):
    names = names_in(predicted)
    predictor = sr.load(made / "run")
    strict, lax = (predictor.genes(names, "hepg2", fdr=fdr) for fdr in (0.05, 0.3))
    assert len(strict) < len(lax)
    assert (lax["fdr"] <= 0.3).all()
    pd.testing.assert_frame_equal(
        predictor.genes(names[0], "hepg2"), calls_table(run.engine.predict("hepg2", names[:1]))
    )
    with pytest.raises(StateRagError, match="between 0 and 1"):
        predictor.genes(names, "hepg2", fdr=2)
    with pytest.raises(StateRagError, match="hepg3.*hepg2"):
        predictor.genes(names, "hepg3")
    with pytest.raises(StateRagError, match=f"nothing is known of {names[0].lower()}: .*-> {names[0]}"):
        predictor.genes([names[0].lower()], "hepg2")


def test_an_explanation_names_the_called_genes(made, run, predicted, tmp_path, capsys):
    name = read_calls(calls_file(made / "run" / "eval_last.ckpt"))["perturbation"].iloc[0]
    main(["explain", str(made / "run"), "--perturbation", name, "--context", "hepg2", "-o", str(tmp_path)])
    assert "Called to change, at a false discovery rate of 0.1: " in " ".join(capsys.readouterr().out.split())
    table = pd.read_csv(tmp_path / f"hepg2_{name}_genes.csv", index_col=0)
    calls = run.engine.predict("hepg2", [name]).calls
    probability = dict(zip(run.engine.responses.genes, calls.probability[0], strict=True))
    np.testing.assert_allclose(table[LAYER], [probability[gene] for gene in table.index], rtol=1e-6)


def test_many_rows_are_compressed_and_one_form_takes_the_place_of_the_other(run, predicted, tmp_path, monkeypatch):
    table = calls_table(run.engine.predict("hepg2", names_in(predicted)))
    plain = read_calls(write_calls([table], tmp_path))
    monkeypatch.setattr(called, "PLAIN_ROWS", 3)
    path = write_calls([table, table.iloc[:0]], tmp_path)
    assert path == calls_file(tmp_path) == tmp_path / f"{CALLS}.gz"
    assert not (tmp_path / CALLS).exists()
    pd.testing.assert_frame_equal(read_calls(path), plain)


def test_a_table_without_deviations_of_cells_gives_no_calls_and_says_why(made, tmp_path):
    cells = ad.read_h5ad(made / "screen.h5ad")
    table = sr.effects.from_anndata(cells, matrix="obsm/X_hvg")
    del table.layers["std"]
    sr.effects.write(table, tmp_path / "effects.h5ad")
    plain = replace(QUICK, episodes=0, calibrating=0)
    fit(tmp_path / "effects.h5ad", tmp_path / "run", settings=plain, progress=False)
    with pytest.raises(StateRagError, match="fitted without the deviations of cells"):
        sr.load(tmp_path / "run").genes("RIBOSM1", "hepg2")


def test_what_was_learned_is_told_in_words(run):
    said = caller_words(run.engine.callers["few-shot"])
    assert said.startswith("called genes: learned from ")
    assert "by log size" in said or "by size" in said


def test_too_few_conditions_say_why(made, run):
    engine = Evidence.from_state(run.engine.to_state())
    engine.callers = {}
    with pytest.raises(StateRagError, match="takes 30 measured conditions"):
        called_genes(replace(run, engine=engine), ["P"], "hepg2")


def test_effects_without_cells_carry_it_too(run):
    names = list(run.engine.responses.perturbation_names[:2])
    found = predicted_effects(run, ["hepg2"], names)
    np.testing.assert_array_equal(found.layers[LAYER], run.engine.predict("hepg2", names).calls.probability)


def test_an_anchored_network_gets_the_table_of_its_means(run, predicted, tmp_path):
    names = names_in(predicted)
    path = _write_calls([run.engine.predict("hepg2", names)], tmp_path)
    assert len(read_calls(path)) == len(calls_table(run.engine.predict("hepg2", names)))
    engine = Evidence.from_state(run.engine.to_state())
    engine.callers = {}
    assert _write_calls([engine.predict("hepg2", names)], tmp_path) is None
    assert calls_file(tmp_path) is None
