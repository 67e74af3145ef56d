"""From what is known of a gene beforehand to the probability that it changes, and to the errors of a list of genes.

A logistic regression whose slopes cannot fall below 0, since in every feature more speaks for a change. Which features
it looks at, isotonic regression (Zadrozny and Elkan 2002), which turns scores into probabilities, and the share of
errors above a score are judged on half of the conditions by slopes from the other half, either way round.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from scipy.optimize import minimize

FEATURES = ("log size", "size", "expected accuracy", "chance")
"""Columns of the features: the size of a gene's predicted effect, in units of the bank; the accuracy that the
prediction is expected to have; the chance of a change that similar conditions tell (`answering.chance_of_change`)."""

CHOICES = ((0, 1), (0, 1, 2), (0, 1, 2, 3))
"""Sets of features, from the fewest on; the first ranks the genes of a condition by the size of the effect alone."""

FEWEST_CHANGES = 50
"""Changed genes that either half must have."""

POINTS = 400
"""Thresholds that are kept of all that were tried."""

RIDGE = 1e-4
"""Penalty on slopes of features of unit deviation, as a share of the genes."""

STRICT = 1e-3
"""Share of the plain logistic curve in a probability, so that no two scores have the same."""


@dataclass(frozen=True)
class GeneCaller:
    """What was learned for one use.

    Attributes
    ----------
    centre, spread, slopes
        float64 [len(FEATURES)]: features are centred and divided by their spread; slopes are 0 where not looked at.
    offset
        float64 [1].
    scores, probabilities
        float64 [K]: at a score, the probability.
    levels, rates
        float64 [L]: from a score on (ascending), the share of errors.
    precision
        float64 [len(CHOICES), 2]: average precision of each choice on conditions held back: mean over conditions, and
        over all genes of all conditions together.
    counts
        float64 [2]: conditions, and changed genes among them.
    """

    centre: np.ndarray
    spread: np.ndarray
    slopes: np.ndarray
    offset: np.ndarray
    scores: np.ndarray
    probabilities: np.ndarray
    levels: np.ndarray
    rates: np.ndarray
    precision: np.ndarray
    counts: np.ndarray

    def score(self, features: np.ndarray) -> np.ndarray:
        """Return the score [...] of features [..., len(FEATURES)]: the higher, the more probable."""
        score: np.ndarray = ((features - self.centre) / self.spread) @ self.slopes + self.offset
        return score

    def probability(self, scores: np.ndarray) -> np.ndarray:
        """Return the probability that genes of such scores change."""
        found: np.ndarray = np.interp(scores, self.scores, self.probabilities)
        return (1 - STRICT) * found + STRICT * _logistic(scores)

    def fdr(self, scores: np.ndarray) -> np.ndarray:
        """Return the share of errors in the shortest list that has such scores in it; 1 where none was that long."""
        place = np.searchsorted(self.levels, scores, side="right") - 1
        found: np.ndarray = np.where(place >= 0, self.rates[place], 1.0)
        return found

    @property
    def looked_at(self) -> tuple[str, ...]:
        """Names of the features that count."""
        return tuple(name for name, slope in zip(FEATURES, self.slopes, strict=True) if slope)

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """All of it, by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def of(cls, arrays: dict[str, Any]) -> GeneCaller:
        """Return the caller of such arrays."""
        return cls(**{field.name: np.asarray(arrays[field.name], dtype=np.float64) for field in fields(cls)})


def learn_caller(features: np.ndarray, changed: np.ndarray, half: np.ndarray) -> GeneCaller | None:
    """Return what conditions teach; None where too little changes in one of their halves.

    Parameters
    ----------
    features
        float64 [M, G, len(FEATURES)], made without a condition's own response.
    changed
        Bool [M, G].
    half
        Bool [M]: which half a condition is in.
    """
    if min(int(changed[half == side].sum()) for side in (False, True)) < FEWEST_CHANGES:
        return None
    centre, spread = features.mean((0, 1)), features.std((0, 1))
    spread = np.where(spread > 1e-9, spread, 1.0)
    scaled = (features - centre) / spread
    judged = [_held_back(scaled, changed, half, list(choice)) for choice in CHOICES]
    precision = np.array([[_within(scores, changed), precision_of(scores, changed)] for scores in judged])
    best = int(precision.sum(1).argmax())
    held_back, choice = judged[best], list(CHOICES[best])
    slopes = np.zeros(len(FEATURES))
    slopes[choice], offset = _slopes(scaled[..., choice].reshape(-1, len(choice)), changed.ravel())
    return GeneCaller(
        centre,
        spread,
        slopes,
        np.array([offset]),
        *_isotonic(held_back.ravel(), changed.ravel()),
        *error_rates(held_back.ravel(), changed.ravel()),
        precision,
        np.array([len(changed), changed.sum()], dtype=np.float64),
    )


def _held_back(scaled: np.ndarray, changed: np.ndarray, half: np.ndarray, choice: list[int]) -> np.ndarray:
    """Return the scores [M, G] of conditions by slopes from the other half."""
    scores = np.empty(changed.shape)
    for side in (False, True):
        own = scaled[half == side][..., choice].reshape(-1, len(choice))
        slopes, offset = _slopes(own, changed[half == side].ravel())
        scores[half != side] = scaled[half != side][..., choice] @ slopes + offset
    return scores


def _slopes(z: np.ndarray, changed: np.ndarray) -> tuple[np.ndarray, float]:
    """Return slopes, none below 0, and offset of a logistic regression."""
    share = np.clip(changed.mean(), 1e-6, 1 - 1e-6)

    def loss(beta: np.ndarray) -> tuple[float, np.ndarray]:
        logit = z @ beta[:-1] + beta[-1]
        error = (_logistic(logit) - changed) / len(z)
        value = float((np.logaddexp(0, logit) - changed * logit).mean() + RIDGE / 2 * beta[:-1] @ beta[:-1])
        return value, np.append(error @ z + RIDGE * beta[:-1], error.sum())

    start = np.append(np.zeros(z.shape[1]), np.log(share / (1 - share)))
    bounds = [*[(0, None)] * z.shape[1], (None, None)]
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds).x
    return found[:-1], float(found[-1])


def _logistic(values: np.ndarray) -> np.ndarray:
    found: np.ndarray = 1 / (1 + np.exp(-np.clip(values, -40, 40)))
    return found


def _isotonic(scores: np.ndarray, changed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.isotonic import IsotonicRegression  # brings pandas with it

    found = IsotonicRegression(y_min=0, y_max=1).fit(scores, changed)
    return np.asarray(found.X_thresholds_, dtype=np.float64), np.asarray(found.y_thresholds_, dtype=np.float64)


def error_rates(scores: np.ndarray, changed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return scores, ascending, and the share of errors of the best list from one of at most that score on.

    Errors among those that reach a score are counted with one more than were seen; where a longer list has a smaller
    share, that one is taken, so that rates never rise with the score.

    Parameters
    ----------
    scores, changed
        [n].
    """
    order = np.argsort(-scores, kind="stable")
    number = np.arange(1, len(order) + 1)
    rates = ((~changed[order]).cumsum() + 1) / number
    kept = np.unique(np.geomspace(1, len(order), POINTS).astype(np.int64)) - 1
    levels, rates = scores[order][kept][::-1].copy(), np.minimum(rates[kept][::-1], 1.0)
    return levels, np.minimum.accumulate(rates)


def precision_of(scores: np.ndarray, changed: np.ndarray) -> float:
    """Return the average precision over all genes of all conditions [M, G]; NaN where none changes."""
    order = np.argsort(-scores.ravel(), kind="stable")
    return _average(changed.ravel()[order][None])


def _within(scores: np.ndarray, changed: np.ndarray) -> float:
    """Return the average precision over genes, mean over those conditions in which some change."""
    some = changed.any(1)
    order = np.argsort(-scores[some], axis=1, kind="stable")
    return _average(np.take_along_axis(changed[some], order, 1))


def _average(ranked: np.ndarray) -> float:
    precision = ranked.cumsum(1) / np.arange(1, ranked.shape[1] + 1)
    return float(((precision * ranked).sum(1) / ranked.sum(1)).mean())
