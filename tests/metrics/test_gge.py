import gge as theirs
import numpy as np
import pytest
from gge import MetricRegistry

from state_rag.effects.conditions import Columns, open_pair
from state_rag.errors import StateRagError
from state_rag.evaluation.evaluate import Settings, evaluate_pair
from state_rag.metrics import gge as hooks
from state_rag.metrics.registry import BY_NAME, METRICS
from tests.evaluation.test_evaluate import screen as cells

OURS = list(hooks.METRIC_CLASSES)


@pytest.fixture
def pair():
    real, predicted = cells(0.6)
    yield real, predicted
    hooks.forget()


def test_every_metric_is_registered_under_its_name():
    assert {f"rag_{metric.name}" for metric in METRICS} <= set(MetricRegistry.list_all())
    for name in OURS:
        assert MetricRegistry.get(name)().name == name
        assert issubclass(MetricRegistry.get(name), theirs.BaseMetric)


def test_without_preparation_metrics_of_one_condition_work_and_the_others_are_nan(pair):
    real, predicted = pair
    result = theirs.evaluate(
        real,
        predicted,
        condition_columns=["gene", "cell_line"],
        metrics=OURS,
        verbose=False,
        control_key="non-targeting",
    )
    table = result.to_dataframe()
    table = table[table["gene"] != "non-targeting"]
    needs_more = {"rag_discrimination"} | {name for name in OURS if "own" in name or "centred" in name}
    for name in OURS:
        assert table[name].isna().all() == (name in needs_more), name
    condition = result.get_all_conditions()[0]
    assert "this condition" in condition.metrics["rag_energy_pca50"].metadata["space_fitted_on"]


def one_condition(seed=0):
    rng = np.random.default_rng(seed)
    return rng.gamma(2, 1, (30, 12)), rng.gamma(2, 1.1, (25, 12)), rng.gamma(2, 0.9, (60, 12))


@pytest.mark.parametrize(
    ("ours", "gges", "options"),
    [
        ("mse", "MSEDistance", {}),
        ("r2", "RSquared", {}),
        ("pearson_deg", "MeanPearsonCorrelation", {"space": "deg", "deg_lfc": 0.05, "deg_pval": 0.1}),
        ("spearman_deg", "MeanSpearmanCorrelation", {"space": "deg", "deg_lfc": 0.05, "deg_pval": 0.1}),
        ("w2_pca50", "MultivariateWasserstein", {"space": "pca", "n_components": 8}),
        ("mmd_pca50", "MultivariateMMD", {"space": "pca", "n_components": 8}),
    ],
)
def test_definitions_that_coincide_on_a_single_condition_give_gges_value(ours, gges, options):
    real, generated, control = one_condition()
    # GGE's fold change differs from ours, so a gap is left around the threshold.
    real[:, :6] *= 2
    metric = MetricRegistry.get(f"rag_{ours}")(n_components=options.get("n_components", 50))
    mine = metric.compute(real, generated, control_data=control if "deg" in ours else None)
    other = getattr(theirs.metrics, gges)(**options)
    expected = other.compute(real, generated, control_data=control)
    assert mine.aggregate_value == pytest.approx(expected.aggregate_value, rel=1e-4)


def test_effect_correlation_equals_gges_perturbation_effect_correlation():
    real, generated, control = one_condition(3)
    for method in ("pearson", "spearman"):
        mine = MetricRegistry.get(f"rag_{method}_delta")().compute(real, generated, control_data=control)
        expected = theirs.compute_perturbation_effect_correlation(real, generated, control.mean(axis=0), method)
        assert mine.aggregate_value == pytest.approx(expected, rel=1e-5)


def test_correlation_does_not_pair_unrelated_cells():
    rng = np.random.default_rng(0)
    base = rng.uniform(0, 5, 50)
    first, second = (base + 0.3 * rng.normal(size=(40, 50)) for _ in range(2))
    control = base - rng.normal(size=50) + 0.3 * rng.normal(size=(40, 50))
    mine = MetricRegistry.get("rag_pearson_deg")().compute(first, second, control_data=control)
    paired = theirs.PearsonCorrelation().compute(first, second)
    assert mine.aggregate_value > 0.99
    assert abs(paired.aggregate_value) < 0.1


@pytest.mark.parametrize("space", ["raw", "deg", "pca"])
def test_gges_metrics_run_in_our_evaluation_with_spaces_of_the_condition_and_line(pair, space):
    real, predicted = pair
    metric = hooks.from_gge("multivariate_wasserstein", space, components=20)
    chosen = (BY_NAME["w2_pca50"], metric)
    table = evaluate_pair(
        open_pair(predicted, real, Columns()), metrics=chosen, settings=Settings(components=20), progress=False
    ).model()
    assert table[metric.name].notna().all()
    if space == "pca":
        np.testing.assert_allclose(table[metric.name], table["w2_pca50"], rtol=1e-3)


def test_an_unknown_gge_metric_is_refused_with_the_known_ones_listed():
    with pytest.raises(StateRagError, match="--gge-metrics: GGE has no metric 'foo'.*wasserstein_1"):
        hooks.from_gge("foo")
