"""Ridge regression with many targets, fitted on rows that arrive in blocks.

What scikit-learn's `RidgeCV` computes with its default, leave-one-out, choice of one penalty for all targets
(Golub, Heath and Wahba 1979), without holding the targets of all samples in memory.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import linalg

ALPHAS = tuple(10.0**power for power in range(-4, 5))
EQUAL = 1e-9
"""Leave-one-out errors that differ by less, as a share, are equal: one-hot vectors say nothing about each other."""

Blocks = Callable[[], Iterable[tuple[np.ndarray, np.ndarray]]]
"""Yields pairs of samples `[n, D]` and targets `[n, G]`, the same ones at each call."""


@dataclass(frozen=True)
class RidgeModel:
    """A fitted regression: `y = (x - centre) @ weights + intercept`.

    Attributes
    ----------
    centre, weights, intercept
        `[D]`, `[D, G]` and `[G]`.
    alpha
        The largest penalty with the smallest leave-one-out error.
    """

    centre: np.ndarray
    weights: np.ndarray
    intercept: np.ndarray
    alpha: float

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Return the targets `[..., G]` of samples `[..., D]`."""
        return (x - self.centre) @ self.weights + self.intercept


def fit_ridge(blocks: Blocks, alphas: Sequence[float] = ALPHAS) -> RidgeModel:
    r"""Fit the regression and choose its penalty, in three passes over the data.

    With centred samples `X = Z V'` (Z's columns orthogonal, with squared norms `l`), the prediction for sample i is
    `Z_i diag(1 / (l + alpha)) Z'Y`, its leverage `h_i = 1/n + sum_k Z_ik^2 / (l_k + alpha)`, and its leave-one-out
    residual `(y_i - prediction_i) / (1 - h_i)`. Memory is two matrices `[D, G]`, some `[D, D]`, and a block.

    Parameters
    ----------
    blocks
        The data.
    alphas
        Penalties to choose from; of errors that are equal but for rounding (`EQUAL`) the largest penalty wins.

    Returns
    -------
    RidgeModel
        The regression.
    """
    n, x_sum, y_sum = 0, 0.0, 0.0
    for x, y in blocks():
        n, x_sum, y_sum = n + len(x), x_sum + x.sum(axis=0), y_sum + y.sum(axis=0)
    if not n:
        raise ValueError("no samples to fit a regression on")
    x_mean, y_mean = np.asarray(x_sum) / n, np.asarray(y_sum) / n
    basis, squares = _basis(blocks, n, x_mean)
    cross = np.zeros((len(squares), len(y_mean)))
    for x, y in blocks():
        cross += ((x - x_mean) @ basis).T @ (y - y_mean)
    errors = np.zeros(len(alphas))
    for x, y in blocks():
        z, wanted = (x - x_mean) @ basis, y - y_mean
        for number, alpha in enumerate(alphas):
            shrunk = z / (squares + alpha)
            leverage = 1 / n + (z * shrunk).sum(axis=1)
            residual = wanted - shrunk @ cross
            errors[number] += np.sum(np.square(residual).sum(axis=1) / np.square(1 - leverage))
    least = errors.min()
    alpha = float(max(alpha for alpha, error in zip(alphas, errors, strict=True) if not error > least * (1 + EQUAL)))
    return RidgeModel(x_mean, basis @ (cross / (squares + alpha)[:, None]), y_mean, alpha)


def _basis(blocks: Blocks, n: int, mean: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return `V` `[D, r]` and `l` `[r]`, by the smaller of the two Gram matrices."""
    width = len(mean)
    if n <= width:
        x = np.concatenate([part for part, _ in blocks()]) - mean
        squares, left = linalg.eigh(x @ x.T)
        kept = squares > squares.max(initial=0) * 1e-13
        return x.T @ (left[:, kept] / np.sqrt(squares[kept])), squares[kept]
    gram = np.zeros((width, width))
    for x, _ in blocks():
        gram += (x - mean).T @ (x - mean)
    squares, vectors = linalg.eigh(gram, overwrite_a=True)
    kept = squares > squares.max(initial=0) * 1e-13
    return vectors[:, kept], squares[kept]
