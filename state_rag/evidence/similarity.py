"""How alike two perturbations are: by what is known of them (embeddings), and by what they did in other contexts.

Every source gives unit vectors, whose products are cosines; powers of these are kernels that look at near neighbours
only. Each is looked at in full and, coarse, along its first principal directions, which tell modules from noise. A
source that does not know a perturbation says nothing about it: it makes it similar to itself and to nothing else, so
that the prior variance is that of any other perturbation and the kernel stays positive semi-definite.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from scipy.linalg import eigh
from torch import Tensor

from state_rag.errors import StateRagError
from state_rag.evidence.bank import Bank
from state_rag.names import listing, repeated
from state_rag.names.combinations import plain_of

RESPONSES = "responses"
"""Name of the source that is not an embedding."""

COMPONENTS = 60
"""Directions of response that are compared; further ones are mostly noise."""

COARSE_RESPONSES, COARSE_EMBEDDING = 10, 30
"""Directions that the coarse look at a source keeps."""


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
    basis
        Bool [P]: the rows that centre and principal directions come from; None for all. What is learned later about
        further perturbations changes nothing for these.
    """

    name: str
    names: tuple[str, ...]
    vectors: Tensor
    basis: Tensor | None = None

    def widened(self, perturbations: Sequence[str], alike: Mapping[str, str] = MappingProxyType({})) -> Source:
        """Return the source for more perturbations, those among them that it does not know told by none.

        Parameters
        ----------
        perturbations
            P names.
        alike
            Further perturbation -> one that the source has, of which it says the same.
        """
        row = {name: number for number, name in enumerate(self.names)}
        meant = [alike.get(name, name) for name in perturbations]
        here = [number for number, name in enumerate(meant) if name in row]
        there = [row[meant[number]] for number in here]
        vectors = self.vectors.new_zeros(len(perturbations), self.vectors.shape[1])
        vectors[here] = self.vectors[there]
        basis = torch.zeros(len(perturbations), dtype=torch.bool)
        basis[here] = True if self.basis is None else self.basis[there]
        basis[[number for number, name in enumerate(perturbations) if name in alike]] = False
        return Source(self.name, tuple(perturbations), vectors, basis)

    @cached_property
    def known(self) -> Tensor:
        """Bool [P]: perturbations that the source knows."""
        return self.vectors.abs().sum(1) > 0

    def coarse(self) -> Tensor:
        """Return the vectors along their first principal directions, float32 [P, <=30], unit rows."""
        known = self.known
        basis = known if self.basis is None else known & self.basis
        width = min(COARSE_EMBEDDING, int(basis.sum()), self.vectors.shape[1])
        found = torch.zeros(len(known), min(COARSE_EMBEDDING, *self.vectors.shape))
        if basis.any():
            values = self.vectors[basis].double()
            scores = principal_scores(values, width)
            found[basis, : scores.shape[1]] = unit(scores).float()
            later = known & ~basis
            if later.any():
                # scores are products with directions; these, from the scores: C'S / |s|^2
                length = scores.square().sum(0)
                directions = (values - values.mean(0)).T @ scores / torch.where(length > 0, length, 1.0)
                also = (self.vectors[later].double() - values.mean(0)) @ directions
                found[later, : scores.shape[1]] = unit(also).float()
        return found

    @classmethod
    def of(
        cls,
        name: str,
        names: Sequence[str],
        matrix: Any,
        perturbations: Sequence[str],
        basis: Collection[str] | None = None,
        called: Sequence[str] | None = None,
    ) -> Source:
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
        basis
            Those that tell the centre; all by default.
        called
            What the embedding calls each of the P; by default as they are.

        Raises
        ------
        StateRagError
            For a matrix that does not fit the names, a name with two rows, or values that are not finite.
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
        if len(row) < len(names):
            twice = repeated(map(str, names))
            raise StateRagError(
                f"embeddings {name!r}: {len(twice)} names occur more than once ({listing(twice)}); keep one row "
                "for each."
            )
        index = torch.tensor(
            [row.get(label, row.get(plain_of(label), -1)) for label in called or perturbations], dtype=torch.long
        )
        vectors = torch.zeros(len(perturbations), values.shape[1], dtype=torch.float64)
        vectors[index >= 0] = values[index[index >= 0]]
        known = vectors.abs().amax(1) > 0 if values.shape[1] else torch.zeros(len(vectors), dtype=torch.bool)
        based = None if basis is None else torch.tensor([label in basis for label in perturbations])
        vectors[known] = unit(spread_out(unit(vectors[known]), None if based is None else based[known]))
        return cls(name, tuple(perturbations), vectors.to(torch.float32), based)


@dataclass(frozen=True)
class Kernel:
    """One kernel: a power of the cosines of a source, their negative part cut where the power is not 1."""

    source: str
    coarse: bool
    power: int

    @property
    def name(self) -> str:
        """Return a name such as `text`, `text^2` or `coarse text^4`."""
        name = f"coarse {self.source}" if self.coarse else self.source
        return name if self.power == 1 else f"{name}^{self.power}"


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
    profiles
        The attribute, of the same bank, where it is known; to find it takes most of the time of reading an engine.

    Attributes
    ----------
    names
        Sources by name, `responses` last.
    kernels
        J of them, in the order of `stack`.
    treatments
        What labels tell beside names; None where they are names.
    profiles
        What perturbations did, float32 [R, measured perturbations, <=60], unit rows or zero. R is a context; where
        labels tell treatments, a context and mode, and rows are names, over doses and times.
    """

    def __init__(
        self, bank: Bank, sources: Sequence[Source], powers: Sequence[int] = (1, 2, 4), profiles: Tensor | None = None
    ) -> None:
        self.sources = list(sources)
        self.powers = tuple(powers)
        self.names = (*(source.name for source in self.sources), RESPONSES)
        self.kernels = [Kernel(name, coarse, p) for name in self.names for coarse in (False, True) for p in self.powers]
        self._looks = [(source.vectors, source.coarse()) for source in self.sources]
        self.treatments = bank.treatments
        self._named = None if bank.treatments is None else bank.named
        self.profiles = _profiles(bank) if profiles is None else profiles
        n_modes = len(self.profiles) // max(len(bank.contexts), 1)
        self._context_of = [place // n_modes for place in range(len(self.profiles))]
        self._profiles = self.profiles, unit(self.profiles[..., :COARSE_RESPONSES])
        self._measured = [profile.abs().sum(2) > 0 for profile in self._profiles]

    def known(self, perturbations: Tensor, context: int) -> Tensor:
        """Return bool [sources, len(perturbations)]: which source says anything, seen from a context."""
        measured = _pad(self._elsewhere(context, None, 0).any(0))[self._measured_row(perturbations)]
        return torch.stack([*(source.known[perturbations] for source in self.sources), measured])

    def cosines(self, rows: Tensor, columns: Tensor, context: int, hidden: Tensor | None = None) -> list[Tensor]:
        """Return the cosines [A, B] by each source in full, responses last.

        Parameters
        ----------
        rows, columns
            Perturbations, long [A] and [B].
        context
            The context asked about: responses measured there are not looked at; -1 for a new one.
        hidden
            Bool [P]: perturbations whose responses are not looked at in any context.
        """
        return list(self._cosines(rows, columns, context, hidden, looks=(0,)))

    def stack(self, rows: Tensor, columns: Tensor, context: int, hidden: Tensor | None = None) -> Tensor:
        """Return all kernels, float32 [J, A, B]; parameters as of `cosines`."""
        found = torch.empty(len(self.kernels), len(rows), len(columns))
        place = 0
        for cosine in self._cosines(rows, columns, context, hidden, looks=(0, 1)):
            positive = cosine.clamp_min(0)
            for power in self.powers:
                found[place] = cosine if power == 1 else positive**power
                place += 1
        return found

    def _cosines(
        self, rows: Tensor, columns: Tensor, context: int, hidden: Tensor | None, looks: Iterable[int]
    ) -> Iterable[Tensor]:
        same = self.same(rows, columns)
        for vectors in self._looks:
            for look in looks:
                yield _cosine(vectors[look][rows], vectors[look][columns], same)
        rows, columns = self._measured_row(rows), self._measured_row(columns)
        for look in looks:
            profiles = self._seen_from(context, hidden, look)
            yield _cosine(profiles[rows], profiles[columns], same)

    def same(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Return bool [A, B]: whether two perturbations are of one name, whatever else their labels tell."""
        if self._named is not None:
            rows, columns = self._named[rows], self._named[columns]
        return rows[:, None] == columns[None]

    def _measured_row(self, perturbations: Tensor) -> Tensor:
        """Return the rows of profiles: measured perturbations come first, all others share a last, empty row."""
        if self._named is not None:
            perturbations = self._named[perturbations]
        return perturbations.clamp_max(self._measured[0].shape[1])

    def _elsewhere(self, context: int, hidden: Tensor | None, look: int) -> Tensor:
        """Return bool [contexts but one, measured perturbations]: where there is a response to look at."""
        measured = self._measured[look][self._others(context)]
        if hidden is not None and self._named is not None:
            hidden = torch.zeros(len(hidden), dtype=torch.bool).index_fill_(0, self._named[hidden], True)
        return measured if hidden is None else measured & ~hidden[: measured.shape[1]]

    def _others(self, context: int) -> list[int]:
        """Return the places of profiles that are of other contexts than this."""
        return [place for place, one in enumerate(self._context_of) if one != context]

    def _seen_from(self, context: int, hidden: Tensor | None, look: int) -> Tensor:
        """Return the response vectors of all contexts but one, [measured perturbations + 1, D].

        The vectors of a perturbation's contexts lie side by side and together have length 1, so that the product of
        two perturbations is the mean of their cosines where both were measured in the same contexts.
        """
        others = self._others(context)
        measured = self._elsewhere(context, hidden, look)
        weight = measured / measured.sum(0).clamp_min(1).sqrt()
        profiles = self._profiles[look][others] * weight[:, :, None]
        return _pad(profiles.permute(1, 0, 2).flatten(1))


def unit(vectors: Tensor) -> Tensor:
    """Return vectors [..., D] of length 1; those of zeros stay."""
    length = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    return vectors / torch.where(length > 0, length, torch.ones_like(length))


def spread_out(vectors: Tensor, basis: Tensor | None = None, cone: float = 0.5) -> Tensor:
    """Return unit rows, minus their mean where they lie in a narrow cone (their mean is longer than `cone`).

    The mean is that of the rows that `basis` marks, of all by default.
    """
    told = vectors if basis is None else vectors[basis]
    if len(told) < 3:
        return vectors
    mean = told.mean(0, keepdim=True)
    return vectors - mean if float(torch.linalg.vector_norm(mean)) > cone else vectors


def principal_scores(values: Tensor, width: int) -> Tensor:
    """Return the rows of a matrix along its first principal directions, largest first.

    Parameters
    ----------
    values
        float64 [N, D]; centred here.
    width
        Directions, at most min(N, D) of them.
    """
    centred = (values - values.mean(0)).numpy()
    n_rows, n_columns = centred.shape
    width = min(width, n_rows, n_columns)
    square = centred @ centred.T if n_rows <= n_columns else centred.T @ centred
    last = len(square) - 1
    sizes, directions = eigh(square, subset_by_index=[last - width + 1, last])
    sizes, directions = sizes[::-1].clip(0), directions[:, ::-1]
    # what is left of a direction without size is rounding, which unit rows would blow up
    real = sizes > 1e-10 * max(sizes[0], 1e-300)
    scores = directions * np.sqrt(sizes) if n_rows <= n_columns else centred @ directions
    return torch.from_numpy(np.ascontiguousarray(scores * real))


def _cosine(rows: Tensor, columns: Tensor, same: Tensor) -> Tensor:
    """Return the products of unit vectors, and 1 of a perturbation with itself where it has none."""
    unknown = (rows.abs().sum(1) == 0)[:, None]
    return torch.where(same & unknown, 1.0, rows @ columns.T)


def _pad(values: Tensor) -> Tensor:
    return torch.cat([values, values.new_zeros(1, *values.shape[1:])])


def _profiles(bank: Bank) -> Tensor:
    """Return `Similarity.profiles`."""
    width = min(COMPONENTS, bank.effects.shape[1])
    told = bank.treatments
    n_modes = 1 if told is None else len(told.axes.modes)
    n_measured = int(bank.named[bank.perturbation].max()) + 1
    profiles = torch.zeros(len(bank.contexts) * n_modes, n_measured, width)
    for context in range(len(bank.contexts)):
        rows = bank.rows_of(context)
        scores = principal_scores(bank.effects_on_others[rows], width)
        labels = bank.perturbation[rows]
        for mode in range(n_modes):
            here = torch.ones(len(rows), dtype=torch.bool) if told is None else told.mode[labels] == mode
            total = scores.new_zeros(n_measured, scores.shape[1])
            total.index_add_(0, bank.named[labels[here]], scores[here])
            profiles[context * n_modes + mode, :, : scores.shape[1]] = unit(total).float()
    return profiles
