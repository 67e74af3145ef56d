"""Which column of one matrix is which column of another, by their names."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from state_rag.errors import StateRagError
from state_rag.names import listing, repeated


@dataclass(frozen=True)
class Alignment:
    """How a matrix's columns lie in one that is given.

    Attributes
    ----------
    places
        For each expected column its number in the given matrix, int `[columns]`; -1 where it is missing.
    missing
        Names of the expected columns that the given matrix lacks, in their order.
    extra
        Names of given columns that are not expected, in their order.
    """

    places: np.ndarray
    missing: tuple[str, ...]
    extra: tuple[str, ...]

    @property
    def is_identity(self) -> bool:
        """Whether the given columns are the expected ones, in their order."""
        return not self.extra and bool(np.array_equal(self.places, np.arange(len(self.places))))

    @property
    def moved(self) -> int:
        """How many of the columns that are there lie at another place among those."""
        here = self.places[self.places >= 0]
        return int((np.argsort(np.argsort(here)) != np.arange(len(here))).sum())

    @property
    def words(self) -> str:
        """What differs, in words; empty where nothing does."""
        parts = []
        if self.missing:
            parts.append(f"{len(self.missing)} of {len(self.places)} are missing ({listing(list(self.missing))})")
        if self.extra:
            parts.append(f"{len(self.extra)} more ({listing(list(self.extra))})")
        if self.moved:
            parts.append("in another order")
        return ", ".join(parts)


def align(expected: Sequence[str], given: Sequence[str]) -> Alignment:
    """Find the expected columns among the given ones.

    Raises
    ------
    StateRagError
        If a name that is expected is given twice, or expected twice: then it does not say which column is meant.

    Examples
    --------
    >>> found = align(["A", "B", "C"], ["C", "A", "D"])
    >>> found.places.tolist(), found.missing, found.extra
    ([1, -1, 0], ('B',), ('D',))
    """
    for names, whose in ((given, "given"), (expected, "expected")):
        twice = repeated(names)
        if twice and (whose == "expected" or set(twice) & set(expected)):
            if list(expected) == list(given):
                break  # the very same columns: which of two of one name is which does not matter
            raise StateRagError(
                f"{len(twice)} gene names occur more than once among the {whose} columns ({listing(twice)}), so they "
                "do not say which column is meant. `state-rag data prepare` makes names unique."
            )
    if list(expected) == list(given):
        return Alignment(np.arange(len(expected)), (), ())
    place = {name: number for number, name in enumerate(given)}
    places = np.array([place.get(name, -1) for name in expected], dtype=np.int64)
    known = set(expected)
    return Alignment(
        places,
        tuple(name for name, at in zip(expected, places.tolist(), strict=True) if at < 0),
        tuple(name for name in given if name not in known),
    )
