import anndata as ad
import numpy as np
import pandas as pd
import pytest

import state_rag as sr
from state_rag.cli import main
from state_rag.errors import StateRagError
from state_rag.evaluation.baselines.naive import EVIDENCE


def read_results(folder):
    return (
        pd.read_csv(folder / "results.csv", float_precision="round_trip")
        .set_index(["cell_line", "perturbation"])
        .sort_index()
    )


@pytest.fixture(scope="module")
def evaluated(runs):
    """The folders that `state-rag evaluate` wrote for two runs."""
    for name in ("best", "poor"):
        assert main(["evaluate", str(runs[name]), "--quiet", "--force"]) == 0
    return {name: next(runs[name].rglob("gge/results.csv")).parent for name in ("best", "poor")}


def by_api(run, **more):
    (predictions,) = (path.parent for path in run.rglob("adata_pred.h5ad"))
    return sr.metrics.evaluate(predictions / "adata_pred.h5ad", predictions / "adata_real.h5ad", **more)


def test_the_table_is_that_of_state_rag_evaluate_to_the_last_digit(runs, evaluated, screen):
    training = sr.effects.read(screen.toml, progress=False)
    found = by_api(runs["best"], training=training, genes=list(training.var_names))
    model = found[found["predictor"] == "model"].set_index(["cell_line", "perturbation"]).sort_index()
    expected = read_results(evaluated["best"])
    for name in sr.metrics.table().index:
        assert np.array_equal(model[name], expected[name], equal_nan=True), name
    baselines = pd.read_csv(evaluated["best"] / "baselines.csv", float_precision="round_trip")
    for predictor in ("no effect", "mean effect", "same pert., other lines"):
        mine, theirs = (table[table["predictor"] == predictor] for table in (found, baselines))
        assert len(mine) == len(theirs) > 0
        for name in sr.metrics.table().index:
            assert np.array_equal(mine[name], theirs[name], equal_nan=True), (predictor, name)
    assert found.attrs["notes"]["evidence_row"] == "fitted on 60 training conditions and no embeddings"
    mine, theirs = (table[table["predictor"] == EVIDENCE] for table in (found, baselines))
    np.testing.assert_allclose(mine["pearson_delta"], theirs["pearson_delta"], atol=5e-3)
    without = by_api(runs["best"], training=training, genes=list(training.var_names), metrics=["mse"], evidence=False)
    assert EVIDENCE not in set(without["predictor"])


def test_a_comparison_is_that_of_state_rag_compare(runs, evaluated, tmp_path):
    folders = [str(runs[name]) for name in ("best", "poor")]
    arguments = ["--names", "best", "poor", "--reference", "poor", "--quiet", "-o", str(tmp_path)]
    assert main(["compare", *folders, *arguments]) == 0
    expected = pd.read_csv(tmp_path / "comparison.csv", float_precision="round_trip").set_index(["predictor", "metric"])
    tables = {name: by_api(runs[name]) for name in ("best", "poor")}
    found = sr.metrics.compare(tables, "poor").set_index(["predictor", "metric"])
    for name in ("best", "poor", "no effect"):
        mine, theirs = found.loc[name], expected.loc[name].loc[found.loc[name].index]
        assert np.array_equal(mine["mean"], theirs["mean"])
        if name == "best":
            assert np.array_equal(mine["p_wilcoxon"], theirs["p_wilcoxon"])


def test_anndata_objects_and_files_give_the_same_table(runs):
    (predictions,) = (path.parent for path in runs["good"].rglob("adata_pred.h5ad"))
    objects = [ad.read_h5ad(predictions / f"adata_{kind}.h5ad") for kind in ("pred", "real")]
    of_objects = sr.metrics.evaluate(*objects, metrics=["mse", "w1_pca50"])
    of_files = by_api(runs["good"], metrics=["mse", "w1_pca50"])
    pd.testing.assert_frame_equal(of_objects, of_files)


def test_the_ridge_baseline_takes_embeddings_as_a_mapping_or_a_table():
    cells = sr.datasets.screen(n_perturbations=12, n_genes=40)
    vectors = cells.uns["embeddings"]
    table = sr.embeddings.Embeddings(tuple(vectors.index), vectors.to_numpy(), "made up")
    training = sr.effects.from_anndata(cells)
    results = [
        sr.metrics.evaluate(cells, cells, metrics=["mse"], training=training, embeddings=given)
        for given in (table, {name: row for name, row in zip(vectors.index, vectors.to_numpy(), strict=True)})
    ]
    assert "embedding ridge" in set(results[0]["predictor"])
    pd.testing.assert_frame_equal(*results)


def test_notes_say_what_a_reader_should_know():
    cells = sr.datasets.screen(n_perturbations=4, n_genes=40)
    notes = sr.metrics.evaluate(cells, cells, metrics=["mse_pca50"]).attrs["notes"]
    assert notes["conditions"] == 16
    assert "pca_of_other_size_than_the_labels_say" in notes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"metrics": ["msee"]}, "metrics: no metric 'msee'.*mse"),
        ({"perturbation": "guide"}, "no column 'guide'"),
        ({"control": "DMSO"}, "no control cells"),
        ({"deg_q": 0.1}, "settings of an evaluation are deg_p"),
    ],
)
def test_a_wrong_argument_is_refused_with_what_fits(arguments, message):
    cells = sr.datasets.screen(n_perturbations=4, n_genes=40)
    with pytest.raises(StateRagError, match=message):
        sr.metrics.evaluate(cells, cells, **arguments)


def test_training_effects_of_other_genes_are_refused():
    cells = sr.datasets.screen(n_perturbations=4, n_genes=40)
    with pytest.raises(StateRagError, match="not those of the cells .* in the same order"):
        sr.metrics.evaluate(cells, cells, training=sr.effects.from_anndata(cells[:, ::-1].copy()))


def test_a_comparison_refuses_what_cannot_stand_in_it():
    table = pd.DataFrame({"cell_line": ["a"], "perturbation": ["P"], "mse": [1.0]})
    with pytest.raises(StateRagError, match="'no effect' is what a baseline is called"):
        sr.metrics.compare({"no effect": table})
    with pytest.raises(StateRagError, match="'b' is none of a"):
        sr.metrics.compare({"a": table}, "b")
    with pytest.raises(StateRagError, match="no column 'cell_line'"):
        sr.metrics.compare({"a": table.drop(columns="cell_line")})
    with pytest.raises(StateRagError, match="no tables"):
        sr.metrics.compare({})
