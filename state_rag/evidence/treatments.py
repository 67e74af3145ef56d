"""How alike two ways of perturbing are: modes by a learned correlation, doses and times by their distance.

A perturbation's label may tell its mode (CRISPRi, CRISPRa, KO, drug), dose and time (`names.treatments`). Then the
covariance of two conditions is multiplied by

    M(m, m') D(d, d') T(t, t'),    M(m, m') = v_m . v_m',  |v_m| = 1,
    D(d, d') = r(x - x') - r(x) r(x'),    r(x) = exp(-x^2 / 2 l^2),  x = log10(1 + d / d0)

M is any matrix of correlations, learned from none at all: two modes may do the same, the opposite, or what tells
nothing of one another. D is a Gaussian kernel over the logarithm of the dose given that dose 0 does nothing (Rasmussen
and Williams 2006, equation 2.19); its length l and how far below the least dose nothing lies, d0, are learned, and T
is alike. All three are positive semi-definite, and so is what they multiply (Schur).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from state_rag.errors import StateRagError
from state_rag.evidence.responses import Responses
from state_rag.names.treatments import Treatment, single_labels, treatment_of

OWN_MODE = -1
"""Number of a mode that no measured condition has; it is like no other, and cannot be asked for."""


@dataclass(frozen=True)
class Scale:
    """What is known of measured doses, or times.

    Attributes
    ----------
    least, largest
        Of those above 0.
    middle
        The median, taken where a label has none.
    """

    least: float
    middle: float
    largest: float

    @classmethod
    def of(cls, values: Iterable[float | None]) -> Scale | None:
        """Return the scale of some labels' numbers; None where none has a number above 0."""
        known = sorted(value for value in values if value)
        return cls(known[0], known[len(known) // 2], known[-1]) if known else None


@dataclass(frozen=True)
class Axes:
    """What the labels of measured conditions tell beside names.

    Attributes
    ----------
    modes
        M different ones in alphabetical order, None first; M is 1 where labels tell no two.
    dose, time
        Scales; None where no label tells one.
    told
        Which of mode, dose and time labels tell together.
    """

    modes: tuple[str | None, ...]
    dose: Scale | None
    time: Scale | None
    told: tuple[tuple[bool, bool, bool], ...]

    @classmethod
    def of(cls, labels: Iterable[str]) -> Axes:
        """Return the axes of measured labels of single perturbations."""
        found = [treatment_of(label)[1] for label in labels]
        modes = {one.mode for one in found}
        return cls(
            tuple(sorted(modes, key=lambda mode: (mode is not None, mode or ""))),
            Scale.of(one.dose for one in found),
            Scale.of(one.time for one in found),
            tuple(sorted({_told(one) for one in found})),
        )

    def allows(self, treatment: Treatment) -> bool:
        """Tell whether a treatment can be asked about: its mode was measured, and it tells what measured ones tell."""
        return treatment.mode in self.modes and _told(treatment) in self.told

    def to_dict(self) -> dict:
        """Return plain data, for JSON."""
        scales = {
            name: None if one is None else [one.least, one.middle, one.largest]
            for name, one in (("dose", self.dose), ("time", self.time))
        }
        return {"modes": list(self.modes), **scales, "told": [list(one) for one in self.told]}

    @classmethod
    def from_dict(cls, data: dict) -> Axes:
        """Return what `to_dict` was called on."""
        dose, time = (None if data[name] is None else Scale(*data[name]) for name in ("dose", "time"))
        told = tuple((bool(m), bool(d), bool(t)) for m, d, t in data["told"])
        return cls(tuple(data["modes"]), dose, time, told)


def axes_of(responses: Responses) -> Axes | None:
    """Return what the labels of responses tell; None where they are names."""
    return Axes.of(single_labels(responses.perturbation_names)) if responses.treated else None


@dataclass(frozen=True)
class Treatments:
    """The treatments of P labels by number.

    Attributes
    ----------
    axes
        Of measured conditions.
    mode
        Long [P], -1 for a mode that was not measured.
    dose, time
        float64 [P]: the middle one where a label has none; zeros where no label has.
    """

    axes: Axes
    mode: Tensor
    dose: Tensor
    time: Tensor

    @classmethod
    def of(cls, axes: Axes, treatments: Sequence[Treatment]) -> Treatments:
        """Return treatments by number."""
        place = {mode: number for number, mode in enumerate(axes.modes)}

        def values(scale: Scale | None, given: list[float | None]) -> Tensor:
            middle = 0.0 if scale is None else scale.middle
            return torch.tensor([middle if one is None else one for one in given], dtype=torch.float64)

        return cls(
            axes,
            torch.tensor([place.get(one.mode, OWN_MODE) for one in treatments], dtype=torch.long),
            values(axes.dose, [one.dose for one in treatments]),
            values(axes.time, [one.time for one in treatments]),
        )


class ScaleWeights(nn.Module):
    """The numbers of the kernel over doses, or over times.

    Parameters
    ----------
    scale
        Of what was measured.
    """

    def __init__(self, scale: Scale) -> None:
        super().__init__()
        self._least = scale.least
        self.length = nn.Parameter(torch.zeros((), dtype=torch.float64))
        self.gap = nn.Parameter(torch.zeros((), dtype=torch.float64))

    def decades(self, values: Tensor) -> Tensor:
        """Return how far values [A] are from 0: about the decades above d0."""
        log_d0 = math.log(self._least) - self.gap.exp() * math.log(10)
        return torch.log1p(values * torch.exp(-log_d0)) / math.log(10)

    def near(self, distance: Tensor) -> Tensor:
        """Return r of distances."""
        return torch.exp(-0.5 * (distance / self.length.exp()).square())

    def forward(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Return the kernel [A, B] of values [A] and [B]."""
        x, y = self.decades(rows), self.decades(columns)
        return self.near(x[:, None] - y[None]) - self.near(x)[:, None] * self.near(y)[None]

    def variance(self, values: Tensor) -> Tensor:
        """Return the kernel [A] of values with themselves: from 0 at 0 to 1 far from it."""
        return 1 - self.near(self.decades(values)).square()

    def mean(self, values: Tensor) -> Tensor:
        """Return what a mean of 1 is [A], given that 0 does nothing."""
        return 1 - self.near(self.decades(values))


class TreatmentWeights(nn.Module):
    """What is learned of modes, doses and times.

    Parameters
    ----------
    axes
        Of measured conditions.
    """

    def __init__(self, axes: Axes) -> None:
        super().__init__()
        n_modes = len(axes.modes)
        # any two modes start without a correlation, so that no sign is favoured
        self.modes = nn.Parameter(torch.eye(n_modes, dtype=torch.float64)) if n_modes > 1 else None
        self.dose = None if axes.dose is None else ScaleWeights(axes.dose)
        self.time = None if axes.time is None else ScaleWeights(axes.time)

    def correlation(self) -> Tensor:
        """Return the correlation of modes, float64 [M, M], with 1 on the diagonal."""
        if self.modes is None:
            return torch.ones(1, 1, dtype=torch.float64)
        directions = self.modes / torch.linalg.vector_norm(self.modes, dim=1, keepdim=True)
        return directions @ directions.T

    def factor(self, told: Treatments, rows: Tensor, columns: Tensor) -> Tensor:
        """Return what covariances of labels [A] and [B] are multiplied by, float64 [A, B]."""
        padded = torch.nn.functional.pad(self.correlation(), (0, 1, 0, 1))
        found = padded[told.mode[rows][:, None], told.mode[columns][None]]
        for part, values in ((self.dose, told.dose), (self.time, told.time)):
            if part is not None:
                found = found * part(values[rows], values[columns])
        return found

    def variance(self, told: Treatments, labels: Tensor) -> Tensor | None:
        """Return the factor of labels with themselves [A]; None where it is 1 throughout."""
        return self._of_scales("variance", told, labels)

    def mean(self, told: Treatments, labels: Tensor) -> Tensor | None:
        """Return what the prior mean of labels is multiplied by [A]; None where it is 1 throughout."""
        return self._of_scales("mean", told, labels)

    def _of_scales(self, what: str, told: Treatments, labels: Tensor) -> Tensor | None:
        found: Tensor | None = None
        for part, values in ((self.dose, told.dose), (self.time, told.time)):
            if part is not None:
                one = getattr(part, what)(values[labels])
                found = one if found is None else found * one
        return found


def refuse_unmeasured(axes: Axes, label: str, measured: Sequence[str] = ()) -> None:
    """Refuse a label whose treatment cannot be told from those that were measured.

    Parameters
    ----------
    axes
        Of measured conditions.
    label
        Of a single perturbation.
    measured
        Labels of the same name that were, for the message.

    Raises
    ------
    StateRagError
        If its mode was not measured, or it tells no dose or time where all others do, or one where none does.
    """
    treatment = treatment_of(label)[1]
    if axes.allows(treatment):
        return
    known = ", ".join(mode for mode in axes.modes if mode is not None)
    if treatment.mode not in axes.modes:
        what = "tells no mode" if treatment.mode is None else f"has the mode {treatment.mode!r}"
        why = f"{what}; the modes that were measured are {known or 'none'}"
    else:
        why = f"tells {_words(_told(treatment))}; measured conditions tell {' or '.join(map(_words, axes.told))}"
    example = f", such as {measured[0]!r}" if measured else ""
    form = "NAME:MODE:dose=NUMBER:time=HOURS, as far as measured labels tell these"
    raise StateRagError(f"{label!r} {why}. Write {form}{example}.")


def _told(treatment: Treatment) -> tuple[bool, bool, bool]:
    return treatment.mode is not None, treatment.dose is not None, treatment.time is not None


def _words(told: tuple[bool, bool, bool]) -> str:
    named = [name for name, yes in zip(("a mode", "a dose", "a time"), told, strict=True) if yes]
    return " and ".join(named) or "nothing but a name"
