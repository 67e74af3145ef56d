import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from state_rag.metrics.significance import (
    benjamini_hochberg,
    mann_whitney,
    out_of_reach,
    paired_wilcoxon,
    smallest_wilcoxon,
)

DRAWS = 2000


def rejections(test, draw):
    rng = np.random.default_rng(0)
    return np.mean([test(*draw(rng)) < 0.05 for _ in range(DRAWS)])


def paired(rng, n=60):
    shared = rng.normal(size=n)
    return shared + 0.5 * rng.normal(size=n), shared + 0.5 * rng.normal(size=n)


def independent(rng, n=60):
    return rng.normal(size=n), rng.normal(size=n)


def test_the_paired_test_rejects_a_true_null_in_five_percent_of_draws():
    assert 0.035 <= rejections(paired_wilcoxon, paired) <= 0.065


def test_mann_whitney_rejects_a_true_null_in_five_percent_of_independent_draws():
    assert 0.035 <= rejections(mann_whitney, independent) <= 0.065


def test_mann_whitney_is_conservative_on_paired_draws():
    assert rejections(mann_whitney, paired) <= 0.065


def test_the_paired_test_sees_a_small_shift_that_mann_whitney_does_not():
    rng = np.random.default_rng(1)
    easy = rng.normal(scale=3, size=200)
    first, second = easy + 0.1 + 0.05 * rng.normal(size=200), easy
    assert paired_wilcoxon(first, second) < 1e-6
    assert mann_whitney(first, second) > 0.05


def test_p_values_equal_scipys():
    rng = np.random.default_rng(2)
    first, second = independent(rng, 80)
    assert mann_whitney(first, second) == stats.mannwhitneyu(first, second, method="asymptotic").pvalue
    assert paired_wilcoxon(first, second) == pytest.approx(stats.wilcoxon(first, second, method="approx").pvalue)
    assert paired_wilcoxon(first[:9], second[:9]) == stats.wilcoxon(first[:9], second[:9], method="exact").pvalue


def test_nan_are_left_out_and_equal_values_are_no_difference():
    values = np.array([1.0, 2.0, np.nan, 4.0])
    assert paired_wilcoxon(values, values) == 1.0
    assert mann_whitney(np.ones(5), np.ones(5)) == 1.0
    nothing = np.full(3, np.nan)
    assert np.isnan(paired_wilcoxon(nothing, np.ones(3)))
    assert np.isnan(mann_whitney(nothing, np.ones(3)))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_benjamini_hochberg_equals_scipys_and_ignores_nan(p):
    values = np.array(p)
    np.testing.assert_allclose(benjamini_hochberg(values), stats.false_discovery_control(values))
    with_gap = np.insert(values, 0, np.nan)
    np.testing.assert_allclose(benjamini_hochberg(with_gap)[1:], benjamini_hochberg(values))
    assert np.isnan(benjamini_hochberg(with_gap)[0])


@pytest.mark.parametrize("difference", [[1, 1, 1, 1, 1], [1, 1, 2, -1, 3, 4], [-2, 2, 2, 5, 5, -1, 1, 7], [3, -3]])
def test_ties_among_few_pairs_are_tested_exactly(difference):
    values = np.array(difference, dtype=float)
    ranks = stats.rankdata(np.abs(values))
    signs = np.array(np.meshgrid(*[[0, 1]] * len(values))).reshape(len(values), -1)
    sums, observed = ranks @ signs, ranks[values > 0].sum()
    expected = min(1, 2 * min((sums <= observed).mean(), (sums >= observed).mean()))
    assert paired_wilcoxon(values, np.zeros(len(values))) == pytest.approx(expected)


@pytest.mark.parametrize("pairs", range(1, 12))
def test_no_p_value_is_below_the_smallest(pairs):
    assert paired_wilcoxon(np.arange(1.0, pairs + 1), np.zeros(pairs)) == smallest_wilcoxon(pairs)
    assert paired_wilcoxon(np.ones(pairs), np.zeros(pairs)) == smallest_wilcoxon(pairs)


@pytest.mark.parametrize("pairs", range(3, 14))
@pytest.mark.parametrize("level", [0.01, 0.05])
def test_so_many_metrics_must_reach_the_smallest_p_value_for_one_to_be_significant(pairs, level):
    needed = out_of_reach(pairs, 9, level)
    for count in range(1, 10):
        p = np.array([smallest_wilcoxon(pairs)] * count + [1.0] * (9 - count))
        assert (benjamini_hochberg(p).min() < level) == (count >= needed)


@pytest.mark.parametrize("pairs", [12, 60])
@pytest.mark.parametrize("seed", range(4))
def test_shares_are_tied_as_the_counts_they_come_from(pairs, seed):
    rng = np.random.default_rng(seed)
    first, second = rng.integers(0, 36, pairs), rng.integers(0, 36, pairs)
    second[:3] = first[:3]
    shares = first / 35, second / 35
    assert paired_wilcoxon(*shares) == paired_wilcoxon(first.astype(float), second.astype(float))
    assert paired_wilcoxon(1 - shares[0], 1 - shares[1]) == paired_wilcoxon(*shares)


def test_values_that_differ_by_rounding_only_are_equal():
    values = np.random.default_rng(0).normal(size=12)
    assert paired_wilcoxon(values, values * (1 + 1e-15)) == 1.0
