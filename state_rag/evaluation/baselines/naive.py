"""Naive predictors that any model should beat, from the data the model was trained on.

Each predicts a condition's mean effect; its profile is the real control mean plus that effect, its cells are real
control cells of the cell line moved by it.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from state_rag.effects.conditions import Condition
from state_rag.effects.mean_effects import MeanEffects
from state_rag.evaluation.baselines.ridge import RidgeModel, fit_ridge
from state_rag.metrics.row_blocks import row_blocks
from state_rag.names.combinations import parts_of, plain_of

MIN_RIDGE_CONDITIONS = 10
NO_EFFECT, MEAN_EFFECT, OTHER_LINES, RIDGE, ADDITIVE, STRONGER = NAIVE = (
    "no effect",
    "mean effect",
    "same pert., other lines",
    "embedding ridge",
    "additive",
    "stronger member",
)
"""What naive baselines are called."""
EVIDENCE = "evidence, controls scaled"
"""What the evidence engine is called beside them; `evidence_row` makes it."""
NAMES = (*NAIVE, EVIDENCE)
"""Names that no run may have."""


class Baseline(Protocol):
    """A naive predictor of mean effects."""

    def effect(self, perturbation: str, cell_line: str) -> np.ndarray:
        """Return the predicted effect `[G]`."""
        ...

    def knows(self, perturbation: str, cell_line: str) -> bool:
        """Return whether the prediction is the baseline's own rather than its fallback."""
        ...


@runtime_checkable
class Scaling(Baseline, Protocol):
    """A predictor whose cells are controls scaled to its mean, rather than all moved by one effect."""

    def limited(self, mean: np.ndarray) -> np.ndarray:
        """Return a predicted profile `[G]` as cells can have it: expression is not below zero."""
        ...

    def scaled(self, cells: np.ndarray, mean: np.ndarray) -> np.ndarray:
        """Return cells `[n, G]` with a wanted mean `[G]`."""
        ...


def profile_of(baseline: Baseline, condition: Condition, control: np.ndarray) -> np.ndarray:
    """Return the profile `[G]` that a baseline predicts for a condition, from the control mean `[G]`."""
    moved = control + baseline.effect(condition.perturbation, condition.cell_line)
    return baseline.limited(moved) if isinstance(baseline, Scaling) else moved


def cells_of(
    baseline: Baseline, condition: Condition, cells: np.ndarray, control: np.ndarray, lowest: float
) -> np.ndarray:
    """Return control cells as a baseline's prediction of a condition.

    Parameters
    ----------
    baseline, condition
        Whose prediction of what.
    cells
        `[n, G]`: controls to start from.
    control
        `[G]`: mean of all controls.
    lowest
        Values below are set to it, as upstream does with predictions.
    """
    if isinstance(baseline, Scaling):
        return baseline.scaled(cells, profile_of(baseline, condition, control))
    effect = baseline.effect(condition.perturbation, condition.cell_line).astype(np.float32)
    return np.clip(cells + effect, lowest, None)


@dataclass(frozen=True)
class MovedControl:
    """Profiles that a baseline predicts for some conditions of one cell line, made as they are asked for."""

    baseline: Baseline
    conditions: list[Condition]
    control: np.ndarray

    def __len__(self) -> int:
        return len(self.conditions)

    def __getitem__(self, rows: slice) -> np.ndarray:
        return np.stack([profile_of(self.baseline, condition, self.control) for condition in self.conditions[rows]])


class NoEffect:
    """The perturbation does nothing: the prediction is the control."""

    def __init__(self, genes: int):
        self.zero = np.zeros(genes)

    def effect(self, perturbation: str, cell_line: str) -> np.ndarray:
        """Return zeros `[G]`."""
        return self.zero

    def knows(self, perturbation: str, cell_line: str) -> bool:
        """Return True."""
        return True


class MeanEffect:
    """Every perturbation does what training perturbations do on average.

    The average is over the cell line's own training perturbations; for a line that has none (zero-shot), over all
    training conditions of the other lines. Every condition weighs the same.
    """

    def __init__(self, training: MeanEffects):
        self.by_line: dict[str, np.ndarray] = {}
        every, count = np.zeros(()), 0
        for line, effects in training.effects.items():
            if effects:
                total = sum(effects.values(), start=np.zeros(()))
                self.by_line[line] = total / len(effects)
                every, count = every + total, count + len(effects)
        self.overall: np.ndarray = every / count

    def effect(self, perturbation: str, cell_line: str) -> np.ndarray:
        """Return the mean training effect `[G]`."""
        return self.by_line.get(cell_line, self.overall)

    def knows(self, perturbation: str, cell_line: str) -> bool:
        """Return whether the line has training perturbations of its own."""
        return cell_line in self.by_line


class OtherLines:
    """The perturbation does what it does on average in the training cell lines other than the one asked for.

    A perturbation that no other line has falls back to the mean effect.
    """

    def __init__(self, training: MeanEffects, fallback: Baseline | None = None):
        self.training = training
        self.fallback = fallback or MeanEffect(training)

    def effect(self, perturbation: str, cell_line: str) -> np.ndarray:
        """Return the perturbation's mean effect over the other lines `[G]`."""
        lines = self._lines(perturbation, cell_line)
        if not lines:
            return self.fallback.effect(perturbation, cell_line)
        return np.mean([self.training.effects[line][perturbation] for line in lines], axis=0)

    def knows(self, perturbation: str, cell_line: str) -> bool:
        """Return whether another line's training data has the perturbation."""
        return bool(self._lines(perturbation, cell_line))

    def _lines(self, perturbation: str, cell_line: str) -> list[str]:
        return [
            line for line, effects in self.training.effects.items() if line != cell_line and perturbation in effects
        ]


class Ridge:
    """Ridge regression from a perturbation's embedding to its mean effect.

    Fitted per cell line on the line's own training perturbations, or, with fewer than ten of them, on every training
    perturbation's mean effect over the training lines. The penalty minimises the leave-one-out error over
    1e-4 ... 1e4 (the largest of equally good ones), with embeddings scaled to unit mean square norm. A perturbation
    without an embedding falls back to the mean effect. Only the model of the line asked for last is kept.

    Parameters
    ----------
    training
        Mean effects of the training conditions.
    embeddings
        Perturbation to vector `[D]`.
    fallback
        The mean effect, where it is at hand.
    """

    def __init__(self, training: MeanEffects, embeddings: Mapping[str, np.ndarray], fallback: Baseline | None = None):
        self.training = training
        self.embeddings = embeddings
        self.fallback = fallback or MeanEffect(training)
        self._fitted_on: dict[str, str | None] = {}
        self._latest: tuple[str | None, tuple[RidgeModel, float] | None] | None = None

    def effect(self, perturbation: str, cell_line: str) -> np.ndarray:
        """Return the regression's prediction `[G]`."""
        model = self._model(cell_line)
        if model is None or perturbation not in self.embeddings:
            return self.fallback.effect(perturbation, cell_line)
        regression, scale = model
        return regression.predict(np.asarray(self.embeddings[perturbation], dtype=np.float64) / scale)

    def knows(self, perturbation: str, cell_line: str) -> bool:
        """Return whether the perturbation has an embedding and a regression could be fitted."""
        return perturbation in self.embeddings and self._model(cell_line) is not None

    def _model(self, line: str) -> tuple[RidgeModel, float] | None:
        if line not in self._fitted_on:
            own = self._usable(self.training.effects.get(line, {}))
            self._fitted_on[line] = line if len(own) >= MIN_RIDGE_CONDITIONS else None
        source = self._fitted_on[line]
        if self._latest is None or self._latest[0] != source:
            self._latest = None  # two models at once would be memory for nothing
            effects = self.training.mean_over_lines() if source is None else self.training.effects[source]
            self._latest = source, self._fit(effects)
        return self._latest[1]

    def _fit(self, effects: Mapping[str, np.ndarray]) -> tuple[RidgeModel, float] | None:
        names = self._usable(effects)
        if len(names) < MIN_RIDGE_CONDITIONS:
            return None
        norms = (np.square(np.asarray(self.embeddings[name], dtype=np.float64)).sum() for name in names)
        scale = float(np.sqrt(sum(norms) / len(names))) or 1.0

        def blocks() -> Iterator[tuple[np.ndarray, np.ndarray]]:
            for rows in row_blocks(len(names)):
                some = names[rows]
                vectors = np.stack([np.asarray(self.embeddings[name], dtype=np.float64) for name in some])
                yield vectors / scale, np.stack([effects[name] for name in some])

        return fit_ridge(blocks), scale

    def _usable(self, effects: Mapping[str, np.ndarray]) -> list[str]:
        return [name for name in effects if name in self.embeddings]


class Members:
    """A combination `A+B` does what its members do.

    A member's effect is that in the line, or its mean over other training lines, or, where no line has it, the mean
    effect. What is no combination, or one of which no member is known, falls back to the mean effect.

    Parameters
    ----------
    training
        Mean effects of the training conditions.
    fallback
        The mean effect.
    stronger
        Take the member with the larger effect, instead of the sum.
    """

    def __init__(self, training: MeanEffects, fallback: Baseline | None = None, *, stronger: bool = False):
        self.training = training
        self.fallback = fallback or MeanEffect(training)
        self.stronger = stronger
        self._elsewhere = OtherLines(training, self.fallback)
        self._label = {plain_of(name): name for effects in training.effects.values() for name in effects}

    def effect(self, perturbation: str, cell_line: str) -> np.ndarray:
        """Return the sum of the members' effects, or the larger one by its norm `[G]`."""
        if not self.knows(perturbation, cell_line):
            return self.fallback.effect(perturbation, cell_line)
        effects = [self._member(member, cell_line) for member in parts_of(perturbation)]
        return max(effects, key=np.linalg.norm) if self.stronger else np.sum(effects, axis=0)

    def knows(self, perturbation: str, cell_line: str) -> bool:
        """Return whether it is a combination of which a member was measured, in whatever line."""
        members = parts_of(perturbation)
        return len(members) > 1 and any(member in self._label for member in members)

    def _member(self, member: str, cell_line: str) -> np.ndarray:
        own, label = self.training.effects.get(cell_line, {}), self._label.get(member, member)
        return own[label] if label in own else self._elsewhere.effect(label, cell_line)


def naive_baselines(
    training: MeanEffects | None,
    genes: int,
    embeddings: Mapping[str, np.ndarray] | None = None,
    conditions: Iterable[Condition] | None = None,
) -> dict[str, Baseline]:
    """Return the naive baselines that the given knowledge allows, by name.

    Parameters
    ----------
    training
        Mean effects of the training data; None leaves only "no effect".
    genes
        Number of genes.
    embeddings
        Perturbation to vector; None leaves out the ridge regression.
    conditions
        What is asked. Where training has none of these perturbations in another cell line (one line only, or
        perturbations held out in all), what they do there cannot be told, and that baseline is left out. None keeps it.
        Where some are combinations `A+B` of known members, there are baselines for these.
    """
    found: dict[str, Baseline] = {NO_EFFECT: NoEffect(genes)}
    if training is not None and training.n_conditions:
        found[MEAN_EFFECT] = mean = MeanEffect(training)
        other = OtherLines(training, mean)
        if conditions is None or any(other.knows(asked.perturbation, asked.cell_line) for asked in conditions):
            found[OTHER_LINES] = other
        if embeddings:
            found[RIDGE] = Ridge(training, embeddings, mean)
        additive = Members(training, mean)
        if any(additive.knows(asked.perturbation, asked.cell_line) for asked in conditions or ()):
            found |= {ADDITIVE: additive, STRONGER: Members(training, mean, stronger=True)}
    return found
