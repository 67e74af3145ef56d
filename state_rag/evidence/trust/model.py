"""From signs to an expected accuracy with an interval, and to deviations of genes: a score, monotone curves, conformal.

The score is the mean of what slopes and what trees make of the signs; of a new context what slopes do alone, none of
which falls, since trees know nothing beyond what they have seen.

Everything is judged on conditions that the curve was not made from: by fivefold division of the perturbations, or, for
a new context, by leaving out one context after another. Intervals are those of split conformal prediction with
residuals divided by their local size (Lei et al. 2018, section 5.2), their two ends taken apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from scipy.special import stdtrit

from state_rag.evidence.trust.trees import NONE, grow, tell

RIDGE = 0.1
"""Strength of the ridge, as a share of the conditions."""

SHRINK = 20.0
"""Conditions that an accuracy of all contexts counts for beside those of one."""

COVERAGE = 0.9
"""Of intervals."""

NORMAL = 1.6448536269514722
"""Standard deviations to either side that hold 90 % of a normal distribution."""

TILT = 0.01
"""Rise of the expected accuracy over all scores, added to the curve: that has flat parts, where ranks would be lost."""

FOLDS = 5
KNOTS = 24
SIZES = 5
LEVELS = (0.5, 0.8, 0.9, 0.95, 0.98, 0.995)
"""Quantiles of a gene's predicted size, relative to its deviation, between which errors have a size of their own."""

FEWEST_ERRORS = 200


@dataclass(frozen=True)
class TrustModel:
    """What calibration taught about one use.

    Attributes
    ----------
    centre, spread, slopes
        float64 [F]: of the ridge on signs.
    nodes
        float64 [M, 5]: of trees, see `trees.grow`; none for a new context, where the ridge makes the score alone.
    scores, accuracies, widths
        float64 [K]: at a score, the accuracy, and the size of its error.
    ends
        float64 [2]: lower and upper end of the interval, in widths.
    offsets
        float64 [C]: what a context's accuracy is above that of all.
    stretch
        float64 [C]: what its errors are in those of all.
    prior
        float64 [3]: accuracy of the mean effect of a context, and its interval.
    range
        float64 [2, F]: least and largest signs of the calibration.
    gene_scale
        float64 [C + 1, G]: deviation of errors by gene, the last for a context without; in units of the bank.
    size_edges, gene_edges, factors
        float64 [A], [B], [A + 1, B + 1]: by which it is multiplied, given the sizes of the effect and of the gene's.
    counts
        float64 [2]: conditions and contexts of the calibration.
    """

    centre: np.ndarray
    spread: np.ndarray
    slopes: np.ndarray
    nodes: np.ndarray
    scores: np.ndarray
    accuracies: np.ndarray
    widths: np.ndarray
    ends: np.ndarray
    offsets: np.ndarray
    stretch: np.ndarray
    prior: np.ndarray
    range: np.ndarray
    gene_scale: np.ndarray
    size_edges: np.ndarray
    gene_edges: np.ndarray
    factors: np.ndarray
    counts: np.ndarray

    def score(self, signs: np.ndarray) -> np.ndarray:
        """Return float64 [Q]: the higher, the more accurate."""
        clipped = np.clip(signs, *self.range)
        by_slopes = _apply((self.centre, self.spread, self.slopes), clipped)
        return (by_slopes + tell(self.nodes, clipped)) / 2 if len(self.nodes) else by_slopes

    def expect(self, signs: np.ndarray, context: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return expected accuracy [Q] and both ends of its interval; context -1 for a new one."""
        score = self.score(signs)
        offset = self.offsets[context] if context >= 0 else 0.0
        span = max(float(self.scores[-1] - self.scores[0]), 1e-12)
        tilt = TILT * (score - (self.scores[-1] + self.scores[0]) / 2) / span
        told = np.interp(score, self.scores, self.accuracies) + offset
        width = np.interp(score, self.scores, self.widths) * (self.stretch[context] if context >= 0 else 1.0)
        low, high = told + width * self.ends[0], told + width * self.ends[1]
        return np.clip(told + tilt, -1, 1), np.clip(low, -1, 1), np.clip(high, -1, 1)

    def deviations(self, predicted: np.ndarray, sizes: np.ndarray, context: int) -> np.ndarray:
        """Return the standard deviation [Q, G] of each gene's error.

        Parameters
        ----------
        predicted
            [Q, G], in units of the bank.
        sizes
            [Q]: logarithms of the size of each effect.
        context
            Number, -1 for a new one.
        """
        scale = self.gene_scale[context]
        return scale * _factors_of(self.factors, self.size_edges, self.gene_edges, predicted, sizes, scale)

    def with_contexts(self, n_contexts: int) -> TrustModel:
        """Return the model for more contexts, the further ones numbered last; of these it knows what holds for all."""
        more = n_contexts - len(self.offsets)
        if more <= 0:
            return self
        return replace(
            self,
            offsets=np.append(self.offsets, np.zeros(more)),
            stretch=np.append(self.stretch, np.ones(more)),
            gene_scale=np.concatenate([self.gene_scale, np.repeat(self.gene_scale[-1:], more, axis=0)]),
        )

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """All of it, by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def of(cls, arrays: dict[str, Any]) -> TrustModel:
        """Return the model of such arrays; those of a run that was fitted before there were trees have no nodes."""
        arrays = {"nodes": NONE, **arrays}
        return cls(**{field.name: np.asarray(arrays[field.name], dtype=np.float64) for field in fields(cls)})


@dataclass(frozen=True)
class Calibration:
    """N calibration conditions.

    Attributes
    ----------
    signs
        float64 [N, F], the logarithm of the size first.
    accuracy, of_mean
        float64 [N]: correlation of the truth with the prediction, and with the mean effect of the context.
    predicted, truth
        float32 [N, G].
    context, perturbation, named
        Int [N]: numbers, the last of the perturbation's name, whatever the mode, dose and time.
    chance
        float32 [N, G]: of each gene's change (`answering.chance_of_change`); None where changes are not known.
    """

    signs: np.ndarray
    accuracy: np.ndarray
    of_mean: np.ndarray
    predicted: np.ndarray
    truth: np.ndarray
    context: np.ndarray
    perturbation: np.ndarray
    named: np.ndarray
    chance: np.ndarray | None = None


def learn(seen: Calibration, n_contexts: int, new_context: bool) -> TrustModel:
    """Return the model of calibration conditions.

    Parameters
    ----------
    seen
        The conditions.
    n_contexts
        C.
    new_context
        Whether questions are about contexts that nothing was measured in.
    """
    groups = _groups(seen, new_context)
    target = seen.accuracy - _offsets(seen.accuracy - seen.accuracy.mean(), seen.context, n_contexts)[seen.context]
    score, whole, nodes = _scored(seen.signs, seen.accuracy if new_context else target, groups, new_context)
    expected = np.zeros(len(groups))
    for train, out in _judged(groups):
        rise = rising_curve(score[train], seen.accuracy[train])
        offsets = np.zeros(n_contexts)
        if not new_context:
            error = seen.accuracy[train] - np.interp(score[train], *rise)
            offsets = _offsets(error, seen.context[train], n_contexts)
        expected[out] = np.interp(score[out], *rise) + offsets[seen.context[out]]
    scores, accuracies = rising_curve(score, seen.accuracy)
    error = seen.accuracy - expected
    widths = _widths(score, error, scores)
    relative = error / np.interp(score, scores, widths)
    offsets, stretch = np.zeros(n_contexts), np.ones(n_contexts)
    if new_context:
        ends = _ends_elsewhere(relative, seen.context)
    else:
        if relative.any():  # of effects that are all zero, or alike, there is no error
            stretch = 1 + _offsets(np.abs(relative) / np.abs(relative).mean() - 1, seen.context, n_contexts)
        ends = tolerance_ends(relative / stretch[seen.context])
        offsets = _offsets(seen.accuracy - np.interp(score, scores, accuracies), seen.context, n_contexts)
    low, high = tolerance_ends(seen.of_mean)
    return TrustModel(
        *whole,
        nodes,
        scores,
        accuracies,
        widths,
        ends,
        offsets,
        stretch,
        np.array([seen.of_mean.mean(), low, high]),
        np.stack([seen.signs.min(0), seen.signs.max(0)]),
        *_gene_errors(seen, groups, n_contexts, new_context),
        np.array([len(groups), len(np.unique(seen.context))], dtype=np.float64),
    )


def _scored(
    signs: np.ndarray, target: np.ndarray, groups: np.ndarray, new_context: bool
) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray, np.ndarray], np.ndarray]:
    """Return each condition's score [N] by a model that did not see its group, the ridge of all, and trees, or none."""
    by_slopes, by_trees = np.empty(len(target)), np.empty(len(target))
    for train, out in _judged(groups):
        by_slopes[out] = _apply(_ridge(signs[train], target[train], new_context), signs[out])
        if not new_context:
            by_trees[out] = tell(grow(signs[train], target[train] - target[train].mean()), signs[out])
    whole = _ridge(signs, target, new_context)
    if new_context:
        return by_slopes, whole, NONE
    return (by_slopes + by_trees) / 2, whole, grow(signs, target - target.mean())


def _judged(groups: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield which conditions teach, and which these are judged on; of a single group both."""
    for group in np.unique(groups):
        out = groups == group
        yield (~out if (~out).any() else out), out


def _groups(seen: Calibration, new_context: bool) -> np.ndarray:
    if new_context and len(np.unique(seen.context)) > 1:
        return seen.context
    return np.unique(seen.named, return_inverse=True)[1] % FOLDS


def _ridge(signs: np.ndarray, accuracy: np.ndarray, rising: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    centre, spread = signs.mean(0), signs.std(0)
    spread = np.where(spread > 1e-9, spread, np.inf)
    z = (signs - centre) / spread
    if not rising:
        matrix = z.T @ z / len(z) + RIDGE * np.eye(z.shape[1])
        slopes = np.linalg.solve(matrix, z.T @ (accuracy - accuracy.mean()) / len(z))
        return centre, np.where(np.isfinite(spread), spread, 1.0), slopes
    from scipy.optimize import nnls  # costs every command that reads an engine

    # in every sign more is better: a slope that falls is chance, and misleads where questions are of another kind
    strength = np.sqrt(RIDGE * len(z)) * np.eye(z.shape[1])
    slopes, _ = nnls(np.concatenate([z, strength]), np.concatenate([accuracy - accuracy.mean(), np.zeros(z.shape[1])]))
    return centre, np.where(np.isfinite(spread), spread, 1.0), np.where(np.isfinite(spread), slopes, 0.0)


def _apply(ridge: tuple[np.ndarray, np.ndarray, np.ndarray], signs: np.ndarray) -> np.ndarray:
    centre, spread, slopes = ridge
    score: np.ndarray = ((signs - centre) / spread) @ slopes
    return score


def rising_curve(score: np.ndarray, accuracy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the knots of a curve that never falls: isotonic, then means between quantiles, so that it has no steps."""
    from sklearn.isotonic import IsotonicRegression  # brings pandas with it

    rising = IsotonicRegression(out_of_bounds="clip").fit(score, accuracy).predict(score)
    order = np.argsort(score, kind="stable")
    parts = [part for part in np.array_split(order, min(KNOTS, max(2, len(order) // 8))) if len(part)]
    return np.array([score[part].mean() for part in parts]), np.array([rising[part].mean() for part in parts])


def _widths(score: np.ndarray, error: np.ndarray, knots: np.ndarray) -> np.ndarray:
    """Return the mean size of the error near each knot."""
    rank = np.argsort(np.argsort(score, kind="stable"), kind="stable") / len(score)
    at = np.interp(knots, np.sort(score), np.linspace(0, 1, len(score)))
    near = np.exp(-0.5 * ((rank[None] - at[:, None]) / 0.15) ** 2)
    width: np.ndarray = np.maximum((near @ np.abs(error)) / near.sum(1), 1e-3)
    return width


def tolerance_ends(values: np.ndarray) -> np.ndarray:
    """Return both ends of the interval that holds the next value, its chance being that of `COVERAGE`.

    What an interval holds hangs on which values were seen; each end is a standard deviation of that further out (a
    tolerance limit: five of six such ends hold what they promise).
    """
    n, half = len(values), (1 - COVERAGE) / 2
    ordered = np.sort(values)
    share = max(0.0, half - np.sqrt(half * (1 - half) / n))
    rank = int(np.floor((n + 1) * share))
    return np.array([ordered[max(rank - 1, 0)], ordered[min(n - rank, n - 1)]])


def _ends_elsewhere(values: np.ndarray, context: np.ndarray) -> np.ndarray:
    """Return the ends for a new context: within contexts, and, by Student's t, for how contexts differ as a whole."""
    there, place = np.unique(context, return_inverse=True)
    means = np.array([values[context == c].mean() for c in there])
    if len(there) < 2:
        return np.array([-np.inf, np.inf])
    between = means.std(ddof=1) * np.sqrt(1 + 1 / len(there)) * stdtrit(len(there) - 1, (1 + COVERAGE) / 2)
    ends: np.ndarray = means.mean() + np.array([-1, 1]) * np.hypot(tolerance_ends(values - means[place]), between)
    return ends


def _offsets(error: np.ndarray, context: np.ndarray, n_contexts: int) -> np.ndarray:
    count = np.bincount(context, minlength=n_contexts)
    total = np.bincount(context, weights=error, minlength=n_contexts)
    return total / (count + SHRINK)


def _gene_errors(
    seen: Calibration, groups: np.ndarray, n_contexts: int, new_context: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return `gene_scale`, `size_edges`, `gene_edges` and `factors`; factors are judged on other groups."""
    square = np.square(seen.truth - seen.predicted, dtype=np.float64)
    relative, level = np.empty_like(seen.predicted), np.empty_like(seen.predicted)
    for train, out in _judged(groups):
        scales = _scales(square[train], seen.context[train], n_contexts)
        scale = np.where(new_context, scales[-1], scales[seen.context[out]])
        relative[out] = np.sqrt(square[out]) / scale
        level[out] = np.abs(seen.predicted[out]) / scale
    sizes = seen.signs[:, 0]
    size_edges = np.quantile(sizes, np.linspace(0, 1, SIZES + 1)[1:-1])
    gene_edges = np.quantile(level, LEVELS)
    size, gene = np.searchsorted(size_edges, sizes), np.searchsorted(gene_edges, level)
    factors = np.empty((SIZES, len(LEVELS) + 1))
    for a in range(SIZES):
        rows = size == a
        row = np.quantile(relative[rows], COVERAGE) if rows.any() else np.quantile(relative, COVERAGE)
        for b in range(len(LEVELS) + 1):
            own = relative[rows][gene[rows] == b]
            factors[a, b] = np.quantile(own, COVERAGE) if len(own) >= FEWEST_ERRORS else row
    return _scales(square, seen.context, n_contexts), size_edges, gene_edges, factors / NORMAL


def _scales(square: np.ndarray, context: np.ndarray, n_contexts: int) -> np.ndarray:
    """Return the deviation of errors [C + 1, G], each context's drawn to that of all; the last is that of all."""
    there = np.unique(context)
    means = {c: square[context == c].mean(0) for c in there}
    overall = np.mean(list(means.values()), axis=0) + 1e-12
    found = np.repeat(overall[None], n_contexts + 1, axis=0)
    for c, mean in means.items():
        count = float((context == c).sum())
        ratio = mean.mean() / overall.mean()
        found[c] = (count * mean + SHRINK * ratio * overall) / (count + SHRINK)
    return np.sqrt(found + 1e-4 * overall.mean())


def _factors_of(
    factors: np.ndarray,
    size_edges: np.ndarray,
    gene_edges: np.ndarray,
    predicted: np.ndarray,
    sizes: np.ndarray,
    scale: np.ndarray,
) -> np.ndarray:
    size = np.searchsorted(size_edges, sizes)
    gene = np.searchsorted(gene_edges, np.abs(predicted) / scale)
    found: np.ndarray = factors[size[:, None], gene]
    return found
