r"""How near the predicted mean profile lies to the real one.

With `r` and `q` the mean expression profiles of a condition's real and predicted cells over G genes. All functions
take `[C, G]` arrays (C conditions) and return `[C]`.
"""

import numpy as np
from scipy import stats

# Below this share of a row's sum of squares, its variation is rounding.
NOISE = 1e-20


def mean_squared_error(real: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    r"""Return `mean_g (r_g - q_g)^2` (paper, section 4; GGE's `mse`)."""
    return np.square(real - predicted).mean(axis=1)


def root_mean_squared_error(real: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    r"""Return `sqrt(mean_g (r_g - q_g)^2)`, rooted per condition (paper, section 4)."""
    return np.sqrt(mean_squared_error(real, predicted))


def mean_absolute_error(real: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    r"""Return `mean_g |r_g - q_g|` (paper, section 4)."""
    return np.abs(real - predicted).mean(axis=1)


def r_squared(real: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    r"""Return `1 - sum_g (r_g - q_g)^2 / sum_g (r_g - mean(r))^2` (GGE's `r_squared`).

    A real profile that is constant over genes has no variance to explain: NaN.
    """
    residual = np.square(real - predicted).sum(axis=1)
    spread = np.square(real - real.mean(axis=1, keepdims=True)).sum(axis=1)
    varies = spread > NOISE * np.square(real).sum(axis=1)
    return 1 - np.divide(residual, spread, out=np.full(len(real), np.nan), where=varies)


def pearson(real: np.ndarray, predicted: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
    r"""Return Pearson's correlation of each pair of rows, over the genes in `mask` only.

    .. math:: \rho = \frac{\sum_g (r_g - \bar r)(q_g - \bar q)}{\sqrt{\sum_g (r_g - \bar r)^2 \sum_g (q_g - \bar q)^2}}

    Parameters
    ----------
    real, predicted
        `[C, G]`.
    mask
        Boolean `[C, G]`, or None for all genes.

    Returns
    -------
    numpy.ndarray
        `[C]`. NaN with fewer than three genes or a constant real row (nothing to be right about); 0 where only the
        prediction is constant: it explains nothing, and leaving it out would flatter the predictor.
    """
    weight = np.ones_like(real) if mask is None else mask.astype(real.dtype)
    count = weight.sum(axis=1)
    some = np.maximum(count, 1)
    a = (real - ((real * weight).sum(axis=1) / some)[:, None]) * weight
    b = (predicted - ((predicted * weight).sum(axis=1) / some)[:, None]) * weight
    aa, bb, ab = np.square(a).sum(axis=1), np.square(b).sum(axis=1), (a * b).sum(axis=1)
    level = np.square(real * weight).sum(axis=1), np.square(predicted * weight).sum(axis=1)
    flat_real, flat_predicted = aa <= NOISE * level[0], bb <= NOISE * level[1]
    with np.errstate(invalid="ignore", divide="ignore"):
        value = np.clip(ab / np.sqrt(aa * bb), -1, 1)
    value[flat_predicted] = 0.0
    value[flat_real | (count < 3) | ~np.isfinite(aa + bb)] = np.nan
    return value


def spearman(real: np.ndarray, predicted: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
    """Return Spearman's rank correlation of each pair of rows: Pearson's of the ranks, ties averaged.

    Same arguments, shapes and conventions as `pearson`; ranks are taken within `mask`.
    """
    if mask is None:
        result = pearson(stats.rankdata(real, axis=1), stats.rankdata(predicted, axis=1))
    else:
        result = np.full(len(real), np.nan)
        for row, chosen in enumerate(mask):
            if chosen.sum() >= 3:
                ranks = [stats.rankdata(values[row, chosen])[None] for values in (real, predicted)]
                result[row] = pearson(ranks[0], ranks[1])[0]
    result[~np.isfinite(real).all(axis=1) | ~np.isfinite(predicted).all(axis=1)] = np.nan
    return result
