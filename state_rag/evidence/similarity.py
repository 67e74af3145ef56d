"""How alike two perturbations are: by what is known of them (embeddings), and by what they did in other contexts.

Every source gives unit vectors, whose products are cosines; powers of these are kernels that look at near neighbours
only. A source that does not know a perturbation says nothing about it: it makes it similar to itself and to nothing
else, so that the prior variance is that of any other perturbation and the kernel stays positive semi-definite.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from state_rag.errors import StateRagError
from state_rag.evidence.bank import Bank

RESPONSES = "responses"
"""Name of the source that is not an embedding."""

COMPONENTS = 60
"""Directions of response that are compared; further ones are mostly noise."""


@dataclass(frozen=True)
class Source:
    """One embedding of perturbations.

    Attributes
    ----------
    name
        Of the source, such as `text`.
    names
        P perturbations.
    vectors
        float32 [P, D], unit rows; zero where the source does not know a perturbation.
    known
        Bool [P].
    """

    name: str
    names: tuple[str, ...]
    vectors: Tensor
    known: Tensor

    @classmethod
    def of(cls, name: str, names: Sequence[str], matrix: Any, perturbations: Sequence[str]) -> Source:
        """Return the rows of an embedding for the given perturbations.

        A row of zeros knows nothing. Rows are used as they are, and centred only where two random ones point the
        same way: sentence embeddings lie in a narrow cone, in which all cosines are high.

        Parameters
        ----------
        name
            Of the source.
        names, matrix
            Embedded names and their vectors [len(names), D].
        perturbations
            P names.

        Raises
        ------
        StateRagError
            For a matrix that does not fit the names, or values that are not finite.
        """
        if name == RESPONSES:
            raise StateRagError(f"embeddings: the name {RESPONSES!r} is taken by measured responses; choose another.")
        values = torch.as_tensor(np.asarray(matrix), dtype=torch.float64)
        if values.ndim != 2 or len(values) != len(names):
            raise StateRagError(
                f"embeddings {name!r}: shape {tuple(values.shape)} for {len(names)} names; expected a row for each."
            )
        if not torch.isfinite(values).all():
            raise StateRagError(f"embeddings {name!r}: NaN or infinity among the values; leave such rows out.")
        row = {str(label): number for number, label in enumerate(names)}
        index = torch.tensor([row.get(label, -1) for label in perturbations], dtype=torch.long)
        vectors = torch.zeros(len(perturbations), values.shape[1], dtype=torch.float64)
        vectors[index >= 0] = values[index[index >= 0]]
        known = vectors.abs().amax(1) > 0 if values.shape[1] else torch.zeros(len(vectors), dtype=torch.bool)
        vectors[known] = unit(spread_out(unit(vectors[known])))
        return cls(name, tuple(perturbations), vectors.to(torch.float32), known)


@dataclass(frozen=True)
class Kernel:
    """One kernel: a power of the cosines of a source, its negative part cut where the power is not 1."""

    source: str
    power: int

    @property
    def name(self) -> str:
        """Return a name such as `text` or `text^3`."""
        return self.source if self.power == 1 else f"{self.source}^{self.power}"


class Similarity:
    """All kernels of a bank.

    Parameters
    ----------
    bank
        Measured responses.
    sources
        Embeddings, of all perturbations of the bank.
    powers
        Powers of each source's cosines.

    Attributes
    ----------
    kernels
        J of them, in the order of `stack`.
    """

    def __init__(
        self,
        bank: Bank,
        sources: Sequence[Source],
        powers: Sequence[int] = (1, 3),
    ) -> None:
        self.sources = list(sources)
        names = [*(source.name for source in self.sources), RESPONSES]
        self.kernels = [Kernel(name, int(power)) for name in names for power in powers]
        self._profiles, self._measured = _profiles(bank)

    def known(self, perturbations: Tensor, context: int) -> Tensor:
        """Return bool [sources, len(perturbations)]: which source says anything, seen from a context."""
        others = [m for m in range(len(self._measured)) if m != context]
        rows = [source.known[perturbations] for source in self.sources]
        return torch.stack([*rows, self._measured[others][:, perturbations].any(0)])

    def cosines(self, rows: Tensor, columns: Tensor, context: int, hidden: Tensor | None = None) -> list[Tensor]:
        """Return the cosines [A, B] by each source, responses last.

        Parameters
        ----------
        rows, columns
            Perturbations, long [A] and [B].
        context
            The context asked about: responses measured there are not looked at; -1 for a new one.
        hidden
            Bool [P]: perturbations whose responses are not looked at in any context.
        """
        same = rows[:, None] == columns[None]
        found = []
        for source in self.sources:
            cosine = source.vectors[rows] @ source.vectors[columns].T
            found.append(_itself(cosine, same, source.known[rows]))
        profiles = self._seen_from(context, hidden)
        cosine = profiles[0][rows] @ profiles[0][columns].T
        return [*found, _itself(cosine, same, profiles[1][rows])]

    def stack(self, rows: Tensor, columns: Tensor, context: int, hidden: Tensor | None = None) -> Tensor:
        """Return all kernels, float32 [J, A, B]; parameters as of `cosines`."""
        cosines = dict(
            zip(
                [*(source.name for source in self.sources), RESPONSES],
                self.cosines(rows, columns, context, hidden),
                strict=True,
            )
        )
        return torch.stack(
            [cosines[k.source] if k.power == 1 else cosines[k.source].clamp_min(0) ** k.power for k in self.kernels]
        )

    def _seen_from(self, context: int, hidden: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return response vectors [P, D] of all contexts but one, and which perturbations have any.

        The vectors of a perturbation's contexts lie side by side and together have length 1, so that the product of
        two perturbations is the mean of their cosines where both were measured in the same contexts.
        """
        others = [m for m in range(len(self._profiles)) if m != context]
        if not others:
            return self._profiles.new_zeros(self._measured.shape[1], 1), torch.zeros_like(self._measured[0])
        measured = self._measured[others]
        if hidden is not None:
            measured = measured & ~hidden
        count = measured.sum(0).clamp_min(1)
        weight = measured / count.sqrt()
        wide = (self._profiles[others] * weight[:, :, None]).permute(1, 0, 2).flatten(1)
        return wide, measured.any(0)


def unit(vectors: Tensor) -> Tensor:
    """Return rows of length 1; a row of zeros stays."""
    length = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    return vectors / torch.where(length > 0, length, torch.ones_like(length))


def spread_out(vectors: Tensor, cone: float = 0.5) -> Tensor:
    """Return unit rows, minus their mean where they lie in a narrow cone (their mean is longer than `cone`)."""
    if len(vectors) < 3:
        return vectors
    mean = vectors.mean(0, keepdim=True)
    return vectors - mean if float(torch.linalg.vector_norm(mean)) > cone else vectors


def _itself(cosine: Tensor, same: Tensor, known: Tensor) -> Tensor:
    return torch.where(same & ~known[:, None], torch.ones_like(cosine), cosine)


def _profiles(bank: Bank) -> tuple[Tensor, Tensor]:
    """Return what perturbations did in each context, unit rows [C, P, <=60], and where they were measured [C, P]."""
    n_contexts, n_perturbations = bank.row.shape
    width = min(COMPONENTS, bank.effects.shape[1])
    profiles = torch.zeros(n_contexts, n_perturbations, width)
    for context in range(n_contexts):
        rows = bank.rows_of(context)
        values = bank.effects[rows]
        centred = values - values.mean(0)
        u, s, _ = torch.linalg.svd(centred, full_matrices=False)
        scores = unit((u * s)[:, :width]).to(torch.float32)
        profiles[context, bank.perturbation[rows], : scores.shape[1]] = scores
    measured = bank.row >= 0
    return profiles, measured & (profiles.abs().amax(2) > 0)
