import numpy as np
import pytest
import torch
from scipy import stats

from state_rag.errors import StateRagError
from state_rag.evidence.estimator import Evidence
from state_rag.evidence.gene_calls import GeneCaller, GeneCalling, _levels, welch_changes
from state_rag.evidence.training import Settings
from tests.evidence.pretend_screen import screen

SHORT = Settings(steps=5, episodes=6, judging=2, fusion_steps=10)


def fitted(drawn, changed_of, hidden=()):
    engine = Evidence(SHORT).fit(drawn.responses(hidden), drawn.embeddings, uses=["few-shot"])
    scale = np.abs(engine.responses.effects)
    return engine, GeneCalling.fit(engine, changed_of(engine.responses.effects, scale))


def large(effects, size):
    return np.sign(effects) * (size > 1.2)


@pytest.fixture(scope="module")
def calling():
    drawn = screen(perturbations=40, genes=30, modules=4)
    hidden = [(0, p) for p in range(0, 40, 3)]
    return (drawn, hidden, *fitted(drawn, large, hidden))


def test_welch_is_that_of_scipy_with_the_correction_of_a_condition():
    rng = np.random.default_rng(0)
    cells, controls = rng.normal(size=(30, 50)), rng.normal(size=(80, 50)) * 1.5
    cells[:, :6] += 2
    p = stats.ttest_ind(cells, controls, equal_var=False).pvalue
    effect = cells.mean(0) - controls.mean(0)
    found = welch_changes(effect[None], cells.var(0, ddof=1)[None], [30], controls.var(0, ddof=1)[None], [80])
    # Benjamini and Hochberg by hand
    order = np.argsort(p)
    passed = np.flatnonzero(p[order] <= 0.05 * np.arange(1, 51) / 50)
    expected = np.zeros(50)
    expected[order[: passed[-1] + 1]] = 1
    np.testing.assert_array_equal(found[0], expected * np.sign(effect))


def test_one_cell_or_no_difference_changes_nothing():
    found = welch_changes([[5.0, 0.0], [5.0, 0.0]], np.ones((2, 2)), [1, 50], np.ones((2, 2)), [50, 50])
    np.testing.assert_array_equal(found, [[0, 0], [1, 0]])


def test_rates_are_the_errors_above_a_level():
    scores, truth = torch.tensor([1.0, 5.0, 3.0, 2.0]), torch.tensor([0.0, 1.0, 1.0, 0.0])
    levels, rates = _levels(scores, truth)
    torch.testing.assert_close(levels, torch.tensor([5.0, 3.0, 2.0, 1.0]))
    torch.testing.assert_close(rates, torch.tensor([1.0, 0.5, 2 / 3, 0.75]))


def test_calls_find_the_genes_that_change(calling):
    drawn, hidden, _, callers = calling
    found = callers.calls("line0", [f"P{p}" for _, p in hidden], fdr=0.2)
    effects = drawn.effects[0, [p for _, p in hidden]]
    changed = np.abs(effects) > 1.2
    assert found.probability[changed].mean() > found.probability[~changed].mean() + 0.3
    assert found.called.any()
    assert (~changed)[found.called].mean() < 0.3
    assert (found.direction[found.called] == np.sign(effects)[found.called]).mean() > 0.9


def test_more_is_called_where_more_errors_are_allowed(calling):
    *_, callers = calling
    names = [f"P{p}" for p in range(0, 40, 3)]
    strict, lax = (callers.calls("line0", names, fdr).called for fdr in (0.1, 0.4))
    assert not (strict & ~lax).any()
    assert lax.sum() > strict.sum()


def test_a_state_says_the_same(calling):
    _, _, engine, callers = calling
    again = GeneCalling.from_state(Evidence.from_state(engine.to_state()), callers.to_state())
    before, after = (one.calls("line0", ["P0", "P1"]) for one in (callers, again))
    np.testing.assert_array_equal(before.probability, after.probability)
    np.testing.assert_array_equal(before.called, after.called)


def test_the_same_seed_gives_the_same(calling):
    _, _, engine, callers = calling
    again = GeneCalling.fit(engine, callers.changed.numpy())
    for name, value in callers.to_state().items():
        torch.testing.assert_close(again.to_state()[name], value, rtol=0, atol=0)


def test_a_condition_is_called_without_its_own_changes(calling):
    _, _, engine, callers = calling
    before = callers.calls("line0", ["P1"])
    other = callers.changed.clone()
    row = engine.bank.row[0, engine.bank.number_of("P1")]
    other[row] = 1 - other[row].abs()
    kept = engine.bank.effects
    try:
        engine.bank.effects = kept.clone()
        engine.bank.effects[row] = 7.0
        after = GeneCalling(engine, other, callers.callers).calls("line0", ["P1"])
    finally:
        engine.bank.effects = kept
    np.testing.assert_array_equal(before.called, after.called)
    np.testing.assert_allclose(before.probability, after.probability, atol=1e-6)


def test_nothing_is_said_where_nothing_is_known(calling):
    *_, callers = calling
    found = callers.calls("line0", ["unheard of"])
    assert np.isnan(found.probability).all()
    assert not found.called.any()


def test_a_threshold_that_no_level_meets_calls_none(calling):
    *_, callers = calling
    arrays = {**callers.callers["few-shot"].arrays, "rates": torch.ones(3), "levels": torch.zeros(3)}
    assert GeneCaller(arrays).threshold(0.1) == float("inf")


def test_bad_input_is_told(calling):
    _, _, engine, callers = calling
    with pytest.raises(StateRagError, match="between 0 and 1"):
        callers.calls("line0", ["P1"], fdr=1.5)
    with pytest.raises(StateRagError, match="a row a measured condition"):
        GeneCalling.fit(engine, np.zeros((3, 3)))
    with pytest.raises(StateRagError, match="too few"):
        GeneCalling.fit(engine, np.zeros(tuple(engine.bank.effects.shape))).calls("line0", ["P1"])
