"""Naive predictors that any model should beat, from the data the model was trained on.

Each predicts a condition's mean effect; its profile is the real control mean plus that effect, its cells are real
control cells of the cell line moved by it.
"""

from collections.abc import Mapping
from typing import Protocol

import numpy as np

from state_rag.evaluation.training_effects import TrainingEffects

MIN_RIDGE_CONDITIONS = 10
NO_EFFECT = "no effect"
RIDGE_ALPHAS = tuple(10.0**power for power in range(-4, 5))


class Baseline(Protocol):
    """A naive predictor of mean effects."""

    def effect(self, perturbation: str, cell_line: str) -> np.ndarray:
        """Return the predicted effect `[G]`."""
        ...

    def knows(self, perturbation: str, cell_line: str) -> bool:
        """Return whether the prediction is the baseline's own rather than its fallback."""
        ...


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

    def __init__(self, training: TrainingEffects):
        self.by_line: dict[str, np.ndarray] = {
            line: np.mean(list(effects.values()), axis=0) for line, effects in training.effects.items() if effects
        }
        every = [effect for effects in training.effects.values() for effect in effects.values()]
        self.overall: np.ndarray = np.mean(every, axis=0)

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

    def __init__(self, training: TrainingEffects):
        self.training = training
        self.fallback = MeanEffect(training)

    def effect(self, perturbation: str, cell_line: str) -> np.ndarray:
        """Return the perturbation's mean effect over the other lines `[G]`."""
        found = self._found(perturbation, cell_line)
        return np.mean(found, axis=0) if found else self.fallback.effect(perturbation, cell_line)

    def knows(self, perturbation: str, cell_line: str) -> bool:
        """Return whether another line's training data has the perturbation."""
        return bool(self._found(perturbation, cell_line))

    def _found(self, perturbation: str, cell_line: str) -> list[np.ndarray]:
        return [
            effects[perturbation]
            for line, effects in self.training.effects.items()
            if line != cell_line and perturbation in effects
        ]


class Ridge:
    """Ridge regression from a perturbation's embedding to its mean effect.

    Fitted per cell line on the line's own training perturbations, or, with fewer than ten of them, on every training
    perturbation's mean effect over the training lines. The penalty minimises the leave-one-out error (scikit-learn's
    `RidgeCV`) over 1e-4 ... 1e4, with embeddings scaled to unit mean square norm. A perturbation without an
    embedding falls back to the mean effect.

    Parameters
    ----------
    training
        Mean effects of the training conditions.
    embeddings
        Perturbation to vector `[D]`.
    """

    def __init__(self, training: TrainingEffects, embeddings: Mapping[str, np.ndarray]):
        self.training = training
        self.embeddings = embeddings
        self.fallback = MeanEffect(training)
        self.models: dict[str, tuple[object, float] | None] = {}

    def effect(self, perturbation: str, cell_line: str) -> np.ndarray:
        """Return the regression's prediction `[G]`."""
        model = self._model(cell_line)
        if model is None or perturbation not in self.embeddings:
            return self.fallback.effect(perturbation, cell_line)
        regression, scale = model
        vector = np.asarray(self.embeddings[perturbation], dtype=np.float64)[None] / scale
        return regression.predict(vector)[0]  # type: ignore[attr-defined]

    def knows(self, perturbation: str, cell_line: str) -> bool:
        """Return whether the perturbation has an embedding and a regression could be fitted."""
        return perturbation in self.embeddings and self._model(cell_line) is not None

    def _model(self, line: str) -> tuple[object, float] | None:
        if line not in self.models:
            self.models[line] = self._fit(line)
        return self.models[line]

    def _fit(self, line: str) -> tuple[object, float] | None:
        from sklearn.linear_model import RidgeCV

        pairs = self._usable(self.training.effects.get(line, {}))
        if len(pairs) < MIN_RIDGE_CONDITIONS:
            pairs = self._usable(self.training.mean_over_lines())
        if len(pairs) < MIN_RIDGE_CONDITIONS:
            return None
        x = np.stack([np.asarray(self.embeddings[name], dtype=np.float64) for name in pairs])
        scale = float(np.sqrt(np.square(x).sum(axis=1).mean())) or 1.0
        return RidgeCV(alphas=RIDGE_ALPHAS).fit(x / scale, np.stack(list(pairs.values()))), scale

    def _usable(self, effects: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {name: effect for name, effect in effects.items() if name in self.embeddings}


def naive_baselines(
    training: TrainingEffects | None, genes: int, embeddings: Mapping[str, np.ndarray] | None = None
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
    """
    found: dict[str, Baseline] = {NO_EFFECT: NoEffect(genes)}
    if training is not None and training.n_conditions:
        found["mean effect"] = MeanEffect(training)
        found["same pert., other lines"] = OtherLines(training)
        if embeddings:
            found["embedding ridge"] = Ridge(training, embeddings)
    return found
