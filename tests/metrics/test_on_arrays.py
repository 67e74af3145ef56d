import anndata as ad
import numpy as np
import pandas as pd
import pytest

import state_rag as sr
from state_rag.errors import StateRagError
from state_rag.metrics.pca import fit_pca
from state_rag.metrics.registry import METRICS


@pytest.fixture(scope="module")
def screen():
    return sr.datasets.screen(n_perturbations=5, n_genes=60, cells_per_condition=20, lines=("k562",))


@pytest.fixture(scope="module")
def predicted(screen):
    rng = np.random.default_rng(0)
    changed = screen.copy()
    changed.X = np.clip(screen.X.toarray() + rng.normal(0, 0.3, screen.shape), 0, None).astype(np.float32)
    return changed


def cells_of(adata):
    names = sorted(set(adata.obs["gene"].astype(str)) - {"non-targeting"})
    X = adata.X.toarray() if hasattr(adata.X, "toarray") else adata.X
    labels = adata.obs["gene"].astype(str).to_numpy()
    return [X[labels == name] for name in names], X[labels == "non-targeting"]


@pytest.mark.parametrize("metric", [metric.name for metric in METRICS])
def test_every_metric_of_arrays_equals_the_evaluation_of_the_cells(metric, screen, predicted):
    table = sr.metrics.evaluate(predicted, screen, metrics=[metric], components=20)
    expected = table[table["predictor"] == "model"][metric].to_numpy()
    (real, control), (guess, own) = cells_of(screen), cells_of(predicted)
    space = None
    if "pca50" in metric:
        space = fit_pca([control, *real], 20)
    found = getattr(sr.metrics, metric)(real, guess, control, predicted_control=own, space=space)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("metric", [metric.name for metric in METRICS])
def test_not_a_number_in_one_condition_leaves_the_others_as_if_it_were_not_there(metric, screen, predicted):
    (real, control), (guess, _) = cells_of(screen), cells_of(predicted)
    broken = [cells.copy() for cells in real]
    broken[2][0, 0] = np.nan
    left = [0, 1, 3, 4]
    found = sr.metrics.compute(metric, broken, guess, control)
    without = sr.metrics.compute(metric, [real[number] for number in left], [guess[number] for number in left], control)
    assert np.isnan(found[2])
    others = found[left]
    if "pca" not in metric:
        np.testing.assert_allclose(others, without)
        return
    # the other cells of the broken condition have a part in the space
    space = fit_pca([control, *(broken[2][1:] if number == 2 else cells for number, cells in enumerate(real))])
    np.testing.assert_allclose(others, sr.metrics.compute(metric, real, guess, control, space=space)[left], rtol=1e-6)


def test_predicting_the_controls_is_no_effect_in_whatever_order_they_come_and_however_they_round(screen):
    real, control = cells_of(screen)
    rng = np.random.default_rng(0)
    shuffled = [rng.permutation(control) for _ in real]
    cells = np.concatenate([*shuffled, control])
    labels = np.repeat([*(f"P{number}" for number in range(len(real))), "non-targeting"], len(control))
    sides = []
    for values, genes in ((cells, labels), (np.concatenate([*real, control]), None)):
        names = np.repeat([*dict.fromkeys(labels)], [*map(len, real), len(control)]) if genes is None else genes
        obs = pd.DataFrame({"gene": names, "cell_line": "x"}, index=[str(number) for number in range(len(names))])
        sides.append(ad.AnnData(values, obs=obs, var=screen.var))
    chance = {"pearson_delta": 0, "spearman_delta": 0, "pearson_delta_deg_own": 0, "direction_deg": 0.5}
    table = sr.metrics.evaluate(*sides, metrics=list(chance))
    for metric, expected in chance.items():
        assert (table.loc[table["predictor"] == "model", metric] == expected).all()
        in_double = [side.astype(np.float64) / 3 for side in shuffled], control.astype(np.float64) / 3
        assert (sr.metrics.compute(metric, [each / 3 for each in real], *in_double) == expected).all()


def test_one_condition_gives_one_number():
    rng = np.random.default_rng(0)
    value = sr.metrics.energy_pca50(rng.normal(size=(30, 8)), rng.normal(1, 1, (25, 8)))
    assert np.ndim(value) == 0
    assert value > 0


def test_metrics_of_effects_need_controls_and_say_so():
    with pytest.raises(StateRagError, match="pearson_delta.*give `control`"):
        sr.metrics.pearson_delta(np.ones((3, 4)), np.ones((3, 4)))


def test_arrays_that_do_not_fit_are_refused():
    with pytest.raises(StateRagError, match="3 and 4 genes"):
        sr.metrics.mse(np.ones((3, 4)), np.ones((3, 3)))
    with pytest.raises(StateRagError, match="1 real conditions and 2 predicted"):
        sr.metrics.mse([np.ones((3, 4))], [np.ones((3, 4))] * 2)
    with pytest.raises(StateRagError, match="list of such arrays"):
        sr.metrics.mse([np.ones(4)], [np.ones(4)])


def test_a_name_that_is_no_metric_is_no_attribute():
    with pytest.raises(AttributeError, match="no attribute 'pearsn'"):
        _ = sr.metrics.pearsn
    with pytest.raises(StateRagError, match="pearson"):
        sr.metrics.compute("pearsn_deg", np.ones((3, 4)), np.ones((3, 4)))


def test_the_table_of_metrics_holds_the_registry():
    table = sr.metrics.table()
    assert table.index.tolist() == [metric.name for metric in METRICS]
    assert table.loc["mse", "label"] == "MSE"


@pytest.mark.parametrize("metric", ["pearson_delta", "spearman_delta", "direction_deg"])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_infinity_in_a_prediction_has_no_score_and_leaves_the_others_theirs(metric):
    rng = np.random.default_rng(0)
    real = [rng.normal(size=(20, 8)) + 1 for _ in range(3)]
    predicted = [cells + rng.normal(size=8) / 9 for cells in real]
    given = {"control": rng.normal(size=(20, 8)), "degs": np.ones((3, 8), dtype=bool)}
    whole = sr.metrics.compute(metric, real, predicted, **given)
    predicted[1] = predicted[1].copy()
    predicted[1][3, 2] = np.inf
    found = sr.metrics.compute(metric, real, predicted, **given)
    assert np.isnan(found[1])
    np.testing.assert_array_equal(found[[0, 2]], whole[[0, 2]])
