"""What a fitted engine says of perturbations in a context, and the perturbations that it draws on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from state_rag.evidence.trust.expected import Trust
from state_rag.evidence.trust.gene_calls import GeneCalls

NEIGHBOURS = 32
"""Perturbations that a prediction names at most."""


Neighbours = tuple[tuple[str, float], ...]
"""Perturbations, each with its weight relative to the largest."""


@dataclass(frozen=True)
class Prediction:
    """Predicted effects of perturbations in a context.

    Attributes
    ----------
    context, perturbations, genes
        Names: of the context, the Q queries and the G genes.
    mean
        float64 [Q, G]: predicted mean effects, in the unit of the responses.
    variance
        float64 [Q]: expected squared error, averaged over genes, in that unit squared.
    uses
        [Q]: what kind of question it was, one of `USES`.
    sources
        [Q]: sources that know the perturbation: embeddings by name, `responses` for a response elsewhere. Where it is
        empty nothing is known, and the prediction is the mean effect of the context.
    neighbours
        [Q]: the perturbations with the largest weights, at most `NEIGHBOURS`, each with its weight (in all contexts,
        without sign) relative to the largest; empty where nothing is known.
    trust
        How far each can be trusted; None where it was not asked for, or the engine knows nothing of it, as one that
        was fitted before there was such a thing.
    calls
        Which genes each changes; None where trust was not asked for, the responses do not say which genes changed, or
        too few did to learn it.
    """

    context: str
    perturbations: tuple[str, ...]
    genes: tuple[str, ...]
    mean: np.ndarray
    variance: np.ndarray
    uses: tuple[str, ...]
    sources: tuple[tuple[str, ...], ...]
    neighbours: tuple[tuple[tuple[str, float], ...], ...]
    trust: Trust | None = None
    calls: GeneCalls | None = None

    @property
    def nothing_known(self) -> np.ndarray:
        """Return bool [Q]: perturbations with neither a response elsewhere nor an embedding."""
        return np.array([not known for known in self.sources], dtype=bool)


def heaviest(names: tuple[str, ...], weight: Tensor) -> list[Neighbours]:
    """Return the perturbations with the largest weights in each of Q answers, `NEIGHBOURS` at most.

    Parameters
    ----------
    names
        Perturbation of each support.
    weight
        [S, Q]: of each support, whose signs do not count; a perturbation's supports are added.
    """
    row: Mapping[str, int] = {name: number for number, name in enumerate(dict.fromkeys(names))}
    place = torch.tensor([row[name] for name in names], dtype=torch.long)
    total = weight.new_zeros(len(row), weight.shape[1]).index_add_(0, place, weight.abs())
    largest, rows = total.topk(min(NEIGHBOURS, len(row)), 0)
    relative = largest / largest[:1].clamp_min(1e-300)
    known = list(row)
    return [
        tuple((known[number], value) for number, value in zip(numbers, values, strict=True))
        for numbers, values in zip(rows.T.tolist(), relative.T.tolist(), strict=True)
    ]
