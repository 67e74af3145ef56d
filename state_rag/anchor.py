"""Anchor a network's cells at the mean that the evidence engine predicts: the network keeps the shape around it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from state_rag.cells.anchored import LARGEST_FACTOR
from state_rag.evidence.estimator import Evidence
from state_rag.evidence.prediction import Prediction

_LEAST = 1e-6
_SOLVING = threading.Lock()  # sets are predicted in several threads


class Anchor:
    """Means of conditions, and how cells are brought to them.

    Parameters
    ----------
    engine
        A fitted engine; a condition that it was fitted on is predicted without its own response.
    control
        Label of control cells, whose mean is the context's measured one.
    expression
        Whether genes are predicted, which are scaled so that zeros stay; other spaces are shifted.
    decoded
        Whether what is anchored is decoded from what the transformer predicts.

    Attributes
    ----------
    context_of
        Returns the context of the cells that are being predicted, where a batch does not say it.
    """

    def __init__(self, engine: Evidence, control: str, expression: bool, decoded: bool = False) -> None:
        self.engine, self.control, self.expression, self.decoded = engine, control, expression, decoded
        self.context_of: Callable[[], str] | None = None
        self._effects: dict[tuple[str, str], np.ndarray] = {}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Anchor:
        """Return what `to_state` gave."""
        return cls(
            Evidence.from_state(state["engine"]),
            str(state["control"]),
            bool(state["expression"]),
            bool(state["decoded"]),
        )

    def to_state(self) -> dict[str, Any]:
        """Return plain types and tensors."""
        return {
            "engine": self.engine.to_state(),
            "control": self.control,
            "expression": self.expression,
            "decoded": self.decoded,
        }

    @property
    def width(self) -> int:
        """Number of columns of the predicted space."""
        return len(self.engine.responses.genes)

    def mean(self, context: str, perturbation: str) -> Tensor | None:
        """Return the mean of a condition `[G]`; None in a context whose controls were not seen."""
        control = self.engine.responses.controls.get(context)
        if control is None:
            return None
        effect = 0.0 if perturbation == self.control else self._effect(context, perturbation)
        return torch.from_numpy(np.asarray(control + effect, dtype=np.float32))

    def foretell(self, context: str, perturbations: Sequence[str]) -> Prediction:
        """Predict many conditions of a context in one solve, with their trust; their cells are brought to these means.

        Parameters
        ----------
        context
            Name.
        perturbations
            Names; the control is none of them.
        """
        found = self.engine.predict(context, perturbations)
        self._effects |= {(context, name): effect for name, effect in zip(perturbations, found.mean, strict=True)}
        return found

    def contexts(self, batch: Mapping[str, Any], sets: int) -> list[str]:
        """Return the context of each of the batch's sets."""
        given = batch.get("cell_type")
        if given is None:
            return [self.context_of() if self.context_of is not None else ""] * sets
        return [str(name) for name in given[:: max(len(given) // sets, 1)]][:sets]

    def bring(self, cells: Tensor, contexts: Sequence[str], perturbations: Sequence[str], controls: Tensor) -> Tensor:
        """Return cells whose mean over each set is the predicted one.

        Parameters
        ----------
        cells
            A network's cells [B, S, G].
        contexts, perturbations
            Of each set.
        controls
            The control cells that each set starts from [B, S, G'], for contexts that were not seen: there the effect
            is added to their mean.
        """
        wanted = torch.stack(
            [
                self._wanted(context, name, own)
                for context, name, own in zip(contexts, perturbations, controls, strict=True)
            ]
        ).to(cells.device)
        return brought_to_mean(cells, wanted) if self.expression else cells + (wanted - cells.mean(1))[:, None]

    def _wanted(self, context: str, name: str, controls: Tensor) -> Tensor:
        known = self.mean(context, name)
        if known is not None:
            return known
        own = controls.detach().float().mean(0).cpu()
        if own.shape[0] != self.width or name == self.control:
            return own
        return own + torch.from_numpy(self._effect(context, name).astype(np.float32))

    def _effect(self, context: str, name: str) -> np.ndarray:
        """Return the predicted effect [G]."""
        key = context, name
        with _SOLVING:
            if key not in self._effects:
                self._effects[key] = self.engine.predict(context, [name], trust=False).mean[0]
        return self._effects[key]


def brought_to_mean(cells: Tensor, wanted: Tensor) -> Tensor:
    """Return cells of expression scaled gene by gene so that each set's mean is the wanted one, with gradient.

    As `cells.anchored.scaled_to_mean`: one factor a gene, up to `LARGEST_FACTOR`; what is lacking is added to all.

    Parameters
    ----------
    cells
        [B, S, G]; negative values count as zero.
    wanted
        [B, G].
    """
    positive, wanted = cells.clamp_min(0), wanted.clamp_min(0).to(cells.dtype)
    own = positive.mean(1)
    factor = wanted / own.clamp_min(_LEAST)
    enough = (own >= _LEAST) & (factor <= LARGEST_FACTOR)
    factor = factor.clamp_max(LARGEST_FACTOR)
    lacking = (wanted - own * factor).masked_fill(enough, 0.0)  # exactly zero, or zeros would not stay
    return positive * factor[:, None] + lacking[:, None]
