"""How far a prediction can be trusted: expected accuracy with an interval, a deviation for each gene, and why in words.

Learned while an engine is fitted, on conditions of the user's own screen that are predicted without themselves
(`scenes`), from what can be told beforehand (`signs`), by a small model (`model`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from state_rag.evidence.answering import Answered, answer_scene, blind_answer, chance_of_change
from state_rag.evidence.bank import Bank
from state_rag.evidence.episodes import NEW_CONTEXT
from state_rag.evidence.fusion import correlations
from state_rag.evidence.similarity import Similarity
from state_rag.evidence.training import Progress, Settings, Trained
from state_rag.evidence.trust.model import Calibration, TrustModel, learn
from state_rag.evidence.trust.scenes import calibration_scenes
from state_rag.evidence.trust.signs import SIGNS, TINY, Signs, signs_of

FEWEST = 30
"""Conditions below which nothing is calibrated; doses and times of a perturbation in a context count as one."""

FEWEST_CONTEXTS = 6
"""Contexts below which what is learned is not said to hold for a new one: few do not tell how the next one differs."""

SUPPORTS = 2000
"""Supports of a calibration question, at most: the nearest, of which kriging_scale.py says that more tell no more."""

HIGH, FAIR = 0.6, 0.35
"""Expected correlation from which a grade is `high`, and `fair`."""

GRADES = ("high", "fair", "low", "none")
"""Grades; `none` where nothing can be said: nothing is known, or nothing was calibrated for such a question."""

NO_EFFECT = "no effect by definition"
"""Why nothing is expected of a dose or time of 0."""

BEYOND = 0.25
"""Share of the calibration's range by which a prediction may be outside of it."""


@dataclass(frozen=True)
class Trust:
    """How far each of Q predictions can be trusted.

    Attributes
    ----------
    expected, low, high
        float64 [Q]: Pearson correlation over genes that the prediction is expected to have with the truth, and both
        ends of its 90 % interval; NaN where nothing was calibrated.
    score
        float64 [Q]: the higher, the more accurate; for ranking. Without calibration the logarithm of the size of the
        predicted effect. Comparable among questions of one use.
    std
        float64 [Q, G]: standard deviation of each gene's error against a measured effect, noise of measuring included,
        in the unit of the responses. Scaled so that the mean plus and minus 1.645 of it holds 90 % of the genes;
        without calibration the kriging deviation, the same for all genes, of which that is not known.
    grade
        [Q]: one of `GRADES`.
    reason
        [Q]: why, in words.
    calibrated
        Whether all of it is calibrated; if not, `score` is all there is.
    holds
        Bool [Q]: whether calibration was made for such questions.
    """

    expected: np.ndarray
    low: np.ndarray
    high: np.ndarray
    score: np.ndarray
    std: np.ndarray
    grade: tuple[str, ...]
    reason: tuple[str, ...]
    calibrated: bool
    holds: np.ndarray


@dataclass(frozen=True)
class Calibrated:
    """What calibration found for one use.

    Attributes
    ----------
    conditions
        How many could be asked about; doses and times of a perturbation in a context count as one.
    model
        What they taught; None where they are fewer than `FEWEST`.
    """

    conditions: int
    model: TrustModel | None

    def with_contexts(self, n_contexts: int) -> Calibrated:
        """Return the same for more contexts, as `TrustModel.with_contexts` does."""
        return self if self.model is None else replace(self, model=self.model.with_contexts(n_contexts))


def calibrate(found: Calibration | None, n_contexts: int, use: str) -> Calibrated:
    """Return what calibration conditions tell about predictions of a use.

    Parameters
    ----------
    found
        The conditions, from `calibration`.
    n_contexts
        Contexts of the bank.
    use
        One of `USES`.
    """
    count = 0 if found is None else len(set(zip(found.context.tolist(), found.named.tolist(), strict=True)))
    if found is None or count < FEWEST:
        return Calibrated(count, None)
    return Calibrated(count, learn(found, n_contexts, use in NEW_CONTEXT))


def calibration(
    bank: Bank,
    similarity: Similarity,
    use: str,
    learned: Trained,
    settings: Settings,
    changes: Tensor | None = None,
    progress: Progress | None = None,
) -> Calibration | None:
    """Return the calibration conditions of a use; None where there are none.

    Parameters
    ----------
    bank, similarity
        Measured responses and the kernels of their perturbations.
    use
        One of `USES`.
    learned
        For this use; with `blind`, so that fusion answers for nothing that it learned from.
    settings
        How many conditions, and from which seed.
    changes
        int8 [N, G] as `Responses.changes`, where they are known.
    progress
        Told about each scene.
    """
    parts: dict[str, list[np.ndarray]] = {}
    limit = min(settings.final_supports, SUPPORTS)
    known = torch.stack([source.known for source in similarity.sources]).any(0) if similarity.sources else None
    scenes = list(calibration_scenes(bank, use, settings.calibrating, settings.seed, known))
    for number, (scene, rows) in enumerate(scenes):
        answered = answer_scene(bank, similarity, scene, learned, limit, with_genes=True)
        answered = blind_answer(bank, answered, use, learned)
        truth = bank.effects[rows]
        mean = answered.spread.prior.at(scene.context, scene.queries)
        one = {
            "signs": signs_of(bank, answered, learned.weights).values,
            "accuracy": correlations(answered.values, truth).numpy(),
            "of_mean": correlations(mean, truth).detach().numpy(),
            "predicted": answered.values.float().numpy(),
            "truth": truth.float().numpy(),
            "context": np.full(len(rows), scene.context),
            "perturbation": scene.queries.numpy(),
            "named": bank.named[scene.queries].numpy(),
        }
        if changes is not None:
            one["chance"] = chance_of_change(bank, answered, learned.weights, changes).numpy()
        for name, values in one.items():
            parts.setdefault(name, []).append(values)
        if progress is not None:
            progress(f"{use}: trust", number + 1, len(scenes))
    if not parts:
        return None
    return Calibration(**{name: np.concatenate(values) for name, values in parts.items()})


class Trusting:
    """Fills in the trust of a prediction, question by question.

    Parameters
    ----------
    calibrated
        Use -> what calibration found.
    scale
        Unit of the bank, in the unit of the responses.
    shape
        Q and G.
    """

    def __init__(self, calibrated: Mapping[str, Calibrated], scale: float, shape: tuple[int, int]) -> None:
        self._calibrated, self._scale = calibrated, scale
        self._numbers = {name: np.full(shape[0], np.nan) for name in ("expected", "low", "high", "score")}
        self._std = np.full(shape, np.nan)
        self._grade, self._reason = ["none"] * shape[0], [""] * shape[0]
        self._holds = np.zeros(shape[0], dtype=bool)
        self._all = True

    def known(
        self, places: list[int], use: str, bank: Bank, answered: Answered, learned: Trained, variance: np.ndarray
    ) -> np.ndarray:
        """Note the trust of queries that something is known of, and return their expected accuracy [Q].

        Parameters
        ----------
        places
            Where they stand.
        use
            Of the question.
        bank, answered, learned
            How it was answered.
        variance
            [Q]: expected squared error, in the unit of the responses squared.
        """
        signs = signs_of(bank, answered, learned.weights)
        model = self._model(use)
        if model is None:
            self._note(places, score=signs.values[:, 0])
            self._std[places] = np.sqrt(variance)[:, None]
            holds = np.zeros(len(places), dtype=bool)
        else:
            context = answered.scene.context if use not in NEW_CONTEXT else -1
            numbers = np.stack([*model.expect(signs.values, context), model.score(signs.values)])
            self._note(places, *_drawn_to_the_mean(model, signs.values, numbers))
            self._std[places] = self._scale * model.deviations(answered.values.numpy(), signs.values[:, 0], context)
            holds = _within(model, signs.values) & (use not in NEW_CONTEXT or model.counts[1] >= FEWEST_CONTEXTS)
        self._holds[places] = holds
        for number, place in enumerate(places):
            why = self._doubt(use, model, bool(holds[number]))
            self._grade[place] = "none" if why else grade_of(self._numbers["expected"][place])
            self._reason[place] = "; ".join(filter(None, [why, words(signs, number)]))
        return self._numbers["expected"][places]

    def unknown(self, places: list[int], use: str, prior: np.ndarray, context: int, variance: float) -> None:
        """Note the trust of queries of which nothing is known, so that the mean effect [G] of the context answers."""
        model = self._model(use)
        if model is None:
            self._note(places, score=np.full(len(places), np.log(TINY)))
            self._std[places] = np.sqrt(variance)
        else:
            context = context if use not in NEW_CONTEXT else -1
            values = np.repeat(prior[None] / self._scale, len(places), axis=0)
            size = np.log(np.maximum(values.std(1), TINY))
            self._note(places, *_of_the_mean(model)[:, None].repeat(len(places), 1))
            self._std[places] = self._scale * model.deviations(values, size, context)
        for place in places:
            why = self._doubt(use, model, True)
            self._reason[place] = "; ".join(filter(None, [why, "nothing is known of it: context mean"]))

    def combined(
        self,
        places: list[int],
        mean: np.ndarray,
        expected: tuple[np.ndarray, np.ndarray, np.ndarray],
        variance: np.ndarray,
        reasons: Sequence[str],
        known: np.ndarray,
    ) -> None:
        """Note the trust of combinations.

        Parameters
        ----------
        places
            Where they stand.
        mean
            [Q, G]: predictions, in the unit of the responses.
        expected
            [Q] each: expected accuracy and both ends of its interval; NaN where that was not calibrated.
        variance
            [Q]: expected squared error, in that unit squared.
        reasons
            [Q]: what speaks for each, in words.
        known
            Bool [Q]: whether something is known of all members, as it is of those that made the calibration.
        """
        size = np.log(np.maximum(np.sqrt(np.square(mean).mean(1)) / self._scale, TINY))
        self._note(places, *expected, size)
        self._std[places] = np.sqrt(variance)[:, None]
        calibrated = np.isfinite(expected[0])
        holds = calibrated & known
        self._holds[places] = holds
        self._all = self._all and bool(calibrated.all())
        for place, value, yes, reason in zip(places, expected[0], holds, reasons, strict=True):
            self._grade[place] = grade_of(value) if yes else "none"
            self._reason[place] = reason

    def nothing(self, places: Sequence[int]) -> None:
        """Note that nothing was given, or no time went by, so that there is no effect to be right about."""
        self._note(list(places))
        self._holds[list(places)] = False
        for place in places:
            self._grade[place], self._reason[place] = "none", f"{NO_EFFECT}: a dose or time of 0"

    def trust(self) -> Trust:
        """Return all that was noted."""
        return Trust(
            **self._numbers,
            std=self._std,
            grade=tuple(self._grade),
            reason=tuple(self._reason),
            calibrated=self._all,
            holds=self._holds,
        )

    def _model(self, use: str) -> TrustModel | None:
        found = self._calibrated.get(use)
        model = None if found is None else found.model
        self._all = self._all and model is not None
        return model

    def _note(
        self,
        places: list[int],
        expected: np.ndarray | float = np.nan,
        low: np.ndarray | float = np.nan,
        high: np.ndarray | float = np.nan,
        score: np.ndarray | float = np.nan,
    ) -> None:
        for name, values in zip(self._numbers, (expected, low, high, score), strict=True):
            self._numbers[name][places] = values

    def _doubt(self, use: str, model: TrustModel | None, holds: bool) -> str:
        """Return why calibration says nothing about a prediction; empty where it does."""
        if use not in self._calibrated:
            return f"not calibrated: the engine was not trained for {use} questions"
        if model is None:
            count = self._calibrated[use].conditions
            return f"not calibrated, ranks only: {count} measured conditions to judge by, {FEWEST} needed"
        if holds:
            return ""
        if use in NEW_CONTEXT and model.counts[1] < FEWEST_CONTEXTS:
            return f"calibration may not hold: {int(model.counts[1])} contexts judge what a new one will do"
        return "calibration may not hold: unlike all conditions that it was made from"


def _of_the_mean(model: TrustModel) -> np.ndarray:
    """Return expected accuracy of the context's mean effect, both ends of its interval, and its score."""
    score = np.interp(model.prior[0], np.maximum.accumulate(model.accuracies), model.scores)
    return np.array([*model.prior, score])


def _drawn_to_the_mean(model: TrustModel, signs: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Return the numbers [4, Q] of queries, drawn to those of the mean effect where less is told than ever was.

    A prediction of which nothing is told is the context's mean effect.
    """
    told = SIGNS.index("variance told")
    least = model.range[0, told]
    share = np.clip(signs[:, told] / least, 0, 1) if least > 0 else np.ones(len(signs))
    mean = _of_the_mean(model)[:, None]
    found: np.ndarray = mean + share * (numbers - mean)
    return found


def _within(model: TrustModel, signs: np.ndarray) -> np.ndarray:
    low, high = model.range
    margin = BEYOND * (high - low)
    size, told = SIGNS.index("size"), SIGNS.index("variance told")
    within: np.ndarray = (signs[:, size] >= low[size] - margin[size]) & (signs[:, size] <= high[size] + margin[size])
    return within & (signs[:, told] >= low[told] - margin[told])


def grade_of(expected: float) -> str:
    """Return the grade of an expected correlation.

    Examples
    --------
    >>> grade_of(0.7), grade_of(0.4), grade_of(0.1)
    ('high', 'fair', 'low')
    """
    return "high" if expected >= HIGH else "fair" if expected >= FAIR else "low"


def words(signs: Signs, query: int) -> str:
    """Return what speaks for a prediction, in words."""
    elsewhere, agreeing, alike = (int(count[query]) for count in (signs.elsewhere, signs.agreeing, signs.alike))
    others = "measured in no other context"
    if elsewhere:
        contexts, agree = ("context", "agrees") if elsewhere == 1 else ("contexts", "agree")
        others = f"{agreeing} of {elsewhere} other {contexts} {agree}"
    if signs.treated:
        others = "its name was measured in no other condition, whatever the mode, dose and time"
        if elsewhere:
            told = f"{elsewhere} other condition{'s' if elsewhere > 1 else ''} of its name"
            others = f"{agreeing} of {told}, whatever the mode, dose and time, agree{'s' if elsewhere == 1 else ''}"
    near = "no similar perturbation measured"
    if alike:
        near = f"{alike} similar perturbation{'s' if alike > 1 else ''} measured"
    return f"{others}, {near}"
