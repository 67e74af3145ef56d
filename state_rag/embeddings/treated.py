"""Labels that tell modes, doses or times, as coordinates beside the embedding of their name.

A network knows `Afatinib:dose=0.5:time=24` by the embedding of Afatinib and by where its treatment lies among those of
training: one coordinate for each mode (1 or 0), and the logarithms of dose and time, standardised. So an unseen dose
between two others lies between them.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from state_rag.embeddings.table import Embeddings
from state_rag.errors import StateRagError
from state_rag.names.combinations import is_made, parts_of, with_members
from state_rag.names.treatments import Treatment, treatment_of

BELOW_LEAST = 10.0
"""A dose or time of 0, which has no logarithm, counts as the least of training divided by this."""


@dataclass(frozen=True)
class LogScale:
    """How a dose or time becomes a coordinate.

    Attributes
    ----------
    least
        The least of training above 0, in its own unit.
    mean, deviation
        Of the base-10 logarithms of training.
    """

    least: float
    mean: float
    deviation: float

    @classmethod
    def of(cls, values: Sequence[float]) -> LogScale | None:
        """Return the scale of training's values, one a condition; None where all are the same or there are none."""
        above = [value for value in values if value > 0]
        if len(set(values)) < 2 or not above:
            return None
        logs = _logs(values, min(above))
        if not np.isfinite(logs).all() or not logs.std() > 0:  # of numbers at the end of what floats can say
            return None
        return cls(min(above), float(logs.mean()), float(logs.std()))

    def __call__(self, value: float | None) -> float:
        """Return the coordinate of a value: 0, the mean of training, where there is none."""
        return 0.0 if value is None else float((_logs([value], self.least)[0] - self.mean) / self.deviation)


@dataclass(frozen=True)
class Coordinates:
    """What becomes of labels' treatments, by those of training.

    Attributes
    ----------
    modes
        Those of training; a coordinate each where there are two or more. `None`, no mode told, is one too.
    dose, time
        Scales; None where training tells no two values.

    Examples
    --------
    >>> coordinates = Coordinates.of(["A:dose=0.1", "A:dose=10", "B:dose=0.1", "B:dose=10"])
    >>> coordinates(["A:dose=0.1", "A:dose=1", "B:dose=10"]).tolist()
    [[-1.0], [0.0], [1.0]]
    """

    modes: tuple[str | None, ...]
    dose: LogScale | None
    time: LogScale | None

    @classmethod
    def of(cls, labels: Iterable[str]) -> Coordinates:
        """Return the coordinates of training's labels, each different one counted once."""
        told = [treatment for label in dict.fromkeys(labels) for _, treatment in members_in(label)]
        modes = sorted({one.mode for one in told}, key=lambda mode: (mode is not None, mode or ""))
        doses = [one.dose for one in told if one.dose is not None]
        times = [one.time for one in told if one.time is not None]
        return cls(tuple(modes), LogScale.of(doses), LogScale.of(times))

    @property
    def width(self) -> int:
        """Number of coordinates, C."""
        return self._of_modes + (self.dose is not None) + (self.time is not None)

    @property
    def words(self) -> str:
        """What labels tell, in words."""
        told = [f"{len(self.modes)} modes"] if self._of_modes else []
        told += [name for name, scale in (("log dose", self.dose), ("log time", self.time)) if scale is not None]
        return ", ".join(told) or "nothing that differs"

    def allows(self, label: str) -> bool:
        """Tell whether a label's mode is one of training."""
        return all(treatment.mode in self.modes for _, treatment in members_in(label))

    def __call__(self, labels: Sequence[str]) -> np.ndarray:
        """Return the coordinates of labels, float32 [N, C]; of a combination the mean of its members'."""
        found = np.zeros((len(labels), self.width), dtype=np.float32)
        for row, label in enumerate(labels):
            members = [self._of(treatment) for _, treatment in members_in(label)]
            found[row] = np.mean(members, axis=0) if self.width else 0
        return found

    def to_state(self) -> dict[str, Any]:
        """Return what `from_state` reads: plain types."""
        scales = {"dose": self.dose, "time": self.time}
        told = {name: [one.least, one.mean, one.deviation] for name, one in scales.items() if one is not None}
        return {"modes": list(self.modes), **told}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Coordinates:
        """Return the coordinates that `to_state` was called on."""
        dose, time = (LogScale(*state[name]) if name in state else None for name in ("dose", "time"))
        return cls(tuple(state["modes"]), dose, time)

    @property
    def _of_modes(self) -> int:
        return len(self.modes) if len(self.modes) > 1 else 0

    def _of(self, treatment: Treatment) -> list[float]:
        modes = [float(treatment.mode == mode) for mode in self.modes] if self._of_modes else []
        numbers = ((self.dose, treatment.dose), (self.time, treatment.time))
        return [*modes, *(scale(value) for scale, value in numbers if scale is not None)]


def members_in(label: str) -> list[tuple[str, Treatment]]:
    """Return name and treatment of each member of a label; the label itself, untreated, where it is none."""
    try:
        return [treatment_of(part) for part in parts_of(label)]
    except StateRagError:
        return [(label, Treatment())]


def with_names(labels: Iterable[str]) -> list[str]:
    """Return labels, their members, and the names in them: what a table is asked for.

    Examples
    --------
    >>> with_names(["A:KO+B:KO"])
    ['A:KO+B:KO', 'A:KO', 'B:KO', 'A', 'B']
    """
    given = with_members(labels)
    return list(dict.fromkeys([*given, *(name for label in given for name, _ in members_in(label))]))


def treated(table: Container[str], labels: Iterable[str]) -> list[str]:
    """Return the labels with a treatment that a table, or its names, has by their names alone, not as written."""
    return [
        label
        for label in dict.fromkeys(labels)
        if label not in table
        and not is_made(label, table)
        and any(treatment != Treatment() for _, treatment in members_in(label))
        and all(name in table for name, _ in members_in(label))
    ]


def labelled(table: Embeddings, labels: Collection[str]) -> Embeddings:
    """Return what a table knows of labels: as they are written, or else the row of the name in them.

    Examples
    --------
    >>> table = Embeddings(("A", "B"), np.eye(2, dtype=np.float32), source="example")
    >>> labelled(table, ["A", "B:dose=1", "B:dose=2", "C:dose=1"]).names
    ('A', 'B:dose=1', 'B:dose=2')
    """
    limited, more = table.limited_to(labels), treated(table, labels)
    if not more:
        return limited
    rows = [np.mean([table.row(name) for name, _ in members_in(label)], axis=0) for label in more]
    vectors = np.concatenate([limited.vectors.reshape(-1, table.width), np.stack(rows)])
    return Embeddings((*limited.names, *more), vectors, table.source, dict(table.provenance))


def _logs(values: Sequence[float], least: float) -> np.ndarray:
    with np.errstate(divide="ignore"):  # of the least number that floats can say, a tenth is 0
        logs: np.ndarray = np.log10(np.maximum(np.asarray(values, dtype=np.float64), least / BELOW_LEAST))
    return logs
