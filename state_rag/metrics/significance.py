"""Does a predictor differ from the reference by more than chance? Two tests and a correction.

Mann-Whitney U treats the two sets of per-condition values as independent samples: it is what the paper reports, and
it is conservative here, because both predictors are scored on the same conditions and easy conditions are easy for
both. The paired Wilcoxon test uses that pairing and is the one to believe.
"""

import math

import numpy as np
from scipy import stats

EXACT_UP_TO = 50
"""Pairs."""
ROUNDING = 1e-12
"""Differences that are this close to each other, as a share of the largest value, are equal."""


def mann_whitney(first: np.ndarray, second: np.ndarray) -> float:
    """Return the two-sided p-value of the Mann-Whitney U test (normal approximation, corrected for ties).

    NaN are left out on each side. NaN if a side is empty; 1 if all values are equal.
    """
    first, second = first[np.isfinite(first)], second[np.isfinite(second)]
    if len(first) == 0 or len(second) == 0:
        return float("nan")
    if np.ptp(np.concatenate((first, second))) == 0:
        return 1.0
    return float(stats.mannwhitneyu(first, second, alternative="two-sided", method="asymptotic").pvalue)


def paired_wilcoxon(first: np.ndarray, second: np.ndarray) -> float:
    """Return the two-sided p-value of Wilcoxon's signed-rank test on paired values.

    Pairs with a NaN are left out; zero differences are left out (Wilcoxon's own treatment). Exact up to 50 pairs,
    ties included (the ranks' average is taken), a normal approximation beyond. NaN without pairs, 1 if all pairs are
    equal. Values are equal, and differences tied, where rounding may be all that tells them apart (`ROUNDING`): of
    shares `k / 35`, one difference of `1 / 35` is another float than the next.
    """
    both = np.isfinite(first) & np.isfinite(second)
    if not both.any():
        return float("nan")
    difference = _places(first[both], second[both])
    difference = difference[difference != 0]
    if len(difference) == 0:
        return 1.0
    if len(difference) > EXACT_UP_TO:
        return float(stats.wilcoxon(difference, alternative="two-sided", method="approx").pvalue)
    if len(np.unique(np.abs(difference))) < len(difference):
        return _exact_with_ties(difference)
    return float(stats.wilcoxon(difference, alternative="two-sided", method="exact").pvalue)


def _places(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return, for each pair, the place of its difference among the distinct sizes of differences, with its sign.

    Zero for equal values. Signed ranks of these are those of the differences, with ties where they should be.
    """
    difference = np.asarray(first, dtype=np.float64) - second
    step = ROUNDING * max(np.abs(first).max(), np.abs(second).max())
    order = np.argsort(np.abs(difference))
    larger = np.diff(np.abs(difference)[order], prepend=0.0) > step
    places = np.empty(len(difference))
    places[order] = np.cumsum(larger)
    return np.sign(difference) * places


def _exact_with_ties(difference: np.ndarray) -> float:
    """Return the exact two-sided p-value, all signs being equally likely; ranks of ties are averaged."""
    doubled = np.rint(2 * stats.rankdata(np.abs(difference))).astype(int)
    ways = np.zeros(doubled.sum() + 1)
    ways[0] = 1.0
    for rank in doubled:
        ways[rank:] += ways[: len(ways) - rank].copy()
    share = ways / ways.sum()
    observed = doubled[difference > 0].sum()
    return float(min(1.0, 2 * min(share[: observed + 1].sum(), share[observed:].sum())))


def smallest_wilcoxon(pairs: int) -> float:
    """Return the smallest p-value that `paired_wilcoxon` can give for so many pairs.

    All differences have one sign in two of the `2^n` equally likely patterns of signs.

    Examples
    --------
    >>> smallest_wilcoxon(5)
    0.0625
    """
    return min(1.0, 2.0 ** (1 - pairs))


def out_of_reach(pairs: int, metrics: int, level: float) -> int:
    """Return how many of the metrics must have the smallest p-value for any to be below `level` after correction.

    Benjamini and Hochberg's `q` of i such values among m is `p m / i`. More than `metrics` means never.
    """
    return math.floor(smallest_wilcoxon(pairs) * metrics / level) + 1


def benjamini_hochberg(p: np.ndarray) -> np.ndarray:
    """Return false-discovery-rate adjusted p-values (Benjamini and Hochberg 1995).

    `q_(i) = min_{j >= i} p_(j) n / j`, at most 1. NaN stay NaN and do not count.

    Examples
    --------
    >>> benjamini_hochberg(np.array([0.01, 0.04, 0.03])).round(3).tolist()
    [0.03, 0.04, 0.04]
    """
    p = np.asarray(p, dtype=np.float64)
    result = np.full(p.shape, np.nan)
    known = np.flatnonzero(np.isfinite(p))
    if len(known) == 0:
        return result
    order = known[np.argsort(p[known], kind="stable")]
    adjusted = p[order] * len(order) / np.arange(1, len(order) + 1)
    result[order] = np.minimum(np.minimum.accumulate(adjusted[::-1])[::-1], 1.0)
    return result
