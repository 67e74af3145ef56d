import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from state_rag.metrics import profile

VALUES = st.floats(-5, 5, allow_nan=False, width=32)


def pair(seed=0, conditions=4, genes=30):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(conditions, genes)), rng.normal(size=(conditions, genes))


def test_errors_equal_plain_loops():
    real, predicted = pair()
    for row in range(len(real)):
        squares = [(r - q) ** 2 for r, q in zip(real[row], predicted[row], strict=True)]
        absolutes = [abs(r - q) for r, q in zip(real[row], predicted[row], strict=True)]
        assert profile.mean_squared_error(real, predicted)[row] == pytest.approx(sum(squares) / len(squares))
        assert profile.root_mean_squared_error(real, predicted)[row] == pytest.approx(
            (sum(squares) / len(squares)) ** 0.5
        )
        assert profile.mean_absolute_error(real, predicted)[row] == pytest.approx(sum(absolutes) / len(absolutes))


def test_r_squared_of_the_mean_is_zero_and_of_the_truth_one():
    real, _ = pair()
    flat = np.repeat(real.mean(axis=1, keepdims=True), real.shape[1], axis=1)
    np.testing.assert_allclose(profile.r_squared(real, flat), 0, atol=1e-12)
    np.testing.assert_allclose(profile.r_squared(real, real), 1)
    assert np.isnan(profile.r_squared(flat, real)).all()


def test_correlations_within_a_mask_equal_scipy_on_the_chosen_genes():
    real, predicted = pair(3)
    mask = np.random.default_rng(1).random(real.shape) < 0.4
    for row in range(len(real)):
        a, b = real[row, mask[row]], predicted[row, mask[row]]
        assert profile.pearson(real, predicted, mask)[row] == pytest.approx(stats.pearsonr(a, b)[0])
        assert profile.spearman(real, predicted, mask)[row] == pytest.approx(stats.spearmanr(a, b)[0])


def test_spearman_averages_ties_as_scipy_does():
    rng = np.random.default_rng(5)
    real, predicted = rng.integers(0, 4, (3, 40)).astype(float), rng.integers(0, 4, (3, 40)).astype(float)
    expected = [stats.spearmanr(r, q)[0] for r, q in zip(real, predicted, strict=True)]
    np.testing.assert_allclose(profile.spearman(real, predicted), expected)


@given(arrays(np.float64, (2, 12), elements=VALUES), st.floats(0.1, 10), VALUES)
def test_pearson_ignores_shift_and_positive_scale(values, scale, shift):
    straight = profile.pearson(values[:1], values[1:])
    moved = profile.pearson(values[:1], values[1:] * scale + shift)
    if np.std(values[0]) > 1e-3 and np.std(values[1]) > 1e-3:
        np.testing.assert_allclose(moved, straight, atol=1e-6)


def test_a_constant_prediction_correlates_zero_and_a_constant_truth_is_undefined():
    real, _ = pair(conditions=2)
    constant = np.full_like(real, 3.7)
    for correlation in (profile.pearson, profile.spearman):
        assert correlation(real, constant).tolist() == [0, 0]
        assert np.isnan(correlation(constant, real)).all()


def test_fewer_than_three_genes_have_no_correlation():
    real, predicted = pair(conditions=1)
    mask = np.zeros(real.shape, dtype=bool)
    mask[0, :2] = True
    assert np.isnan(profile.pearson(real, predicted, mask)).all()
    assert np.isnan(profile.spearman(real, predicted, mask)).all()


def test_nan_in_a_profile_stays_nan_in_its_own_row_only():
    real, predicted = pair(conditions=2)
    predicted[1, 3] = np.nan
    for correlation in (profile.pearson, profile.spearman):
        value = correlation(real, predicted)
        assert np.isfinite(value[0])
        assert np.isnan(value[1])
