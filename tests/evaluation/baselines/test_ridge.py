import numpy as np
import pytest
from sklearn.linear_model import RidgeCV

from state_rag.evaluation.baselines.ridge import ALPHAS, fit_ridge


def samples(n, width, genes=9, noise=0.3, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, width)) / np.sqrt(width) + 0.5
    y = x @ rng.normal(size=(width, genes)) + noise * rng.normal(size=(n, genes)) + 2
    return x, y


def in_blocks(x, y, size):
    return lambda: ((x[start : start + size], y[start : start + size]) for start in range(0, len(x), size))


@pytest.mark.parametrize(("n", "width"), [(80, 6), (12, 40), (30, 30), (31, 30)])
@pytest.mark.parametrize("noise", [0.0, 0.3, 5.0])
def test_penalty_and_predictions_equal_scikit_learns_for_few_and_for_many_samples(n, width, noise):
    x, y = samples(n, width, noise=noise)
    theirs = RidgeCV(alphas=ALPHAS).fit(x, y)
    ours = fit_ridge(in_blocks(x, y, 7))
    assert ours.alpha == theirs.alpha_
    new, _ = samples(5, width, seed=1)
    np.testing.assert_allclose(ours.predict(new), theirs.predict(new), rtol=1e-7, atol=1e-7)


def test_samples_that_are_alike_leave_the_mean():
    x, y = np.ones((12, 4)), samples(12, 4)[1]
    np.testing.assert_allclose(fit_ridge(in_blocks(x, y, 5)).predict(x[0]), y.mean(axis=0))


def test_no_samples_are_an_error():
    with pytest.raises(ValueError, match="no samples"):
        fit_ridge(lambda: iter(()))


@pytest.mark.parametrize("seed", range(5))
def test_of_penalties_that_are_equally_good_the_largest_is_taken(seed):
    y = np.random.default_rng(seed).normal(size=(12, 9))
    fitted = fit_ridge(in_blocks(np.eye(12) * np.sqrt(12), y, 7))
    assert fitted.alpha == max(ALPHAS)
