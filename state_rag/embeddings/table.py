"""The table of perturbation embeddings: names and vectors, checked when it is made."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np

from state_rag.errors import StateRagError
from state_rag.names import listing, repeated, suggest
from state_rag.names.combinations import parts_of

ZeroRows = Literal["error", "drop"]
ROWS = 10_000
"""Of a table that are looked at at a time."""


@dataclass(frozen=True, eq=False)
class Embeddings:
    """Perturbation names and one vector for each.

    Making one checks it, so that whoever holds an `Embeddings` need not: names are distinct strings, every vector is
    finite, as wide as the others and not all zero. (Published tables hold zeros for the control: see the readers.)

    Parameters
    ----------
    names
        The perturbations, P of them, in the order of the rows.
    vectors
        float32 ``[P, D]``. Values are as stored: GenePT's rows have unit norm, others need not.
    source
        The path the table was read from, for messages.
    provenance
        Where the values came from (file name, SHA-256, format, ...). Travels into written files and checkpoints.

    Raises
    ------
    StateRagError
        Duplicate or non-string names, a wrong number of rows, NaN or infinite values, all-zero rows. The names
        concerned are listed.

    Examples
    --------
    >>> table = Embeddings(("AARS", "HARS"), np.eye(2, dtype=np.float32), source="example")
    >>> table.width, "AARS" in table, table.row("HARS").tolist()
    (2, True, [0.0, 1.0])
    """

    names: tuple[str, ...]
    vectors: np.ndarray
    source: str
    provenance: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = tuple(self.names)
        check_names(names, self.source)
        try:
            with np.errstate(over="ignore"):
                vectors = np.ascontiguousarray(self.vectors, dtype=np.float32)
        except (TypeError, ValueError) as error:
            raise StateRagError(f"{self.source}: the vectors are not a matrix of numbers ({error})") from error
        if vectors.ndim != 2 or vectors.shape[0] != len(names):
            raise StateRagError(
                f"{self.source}: expected a row of numbers for each of {len(names)} names, found shape {vectors.shape}"
            )
        if len(names) and vectors.shape[1] == 0:
            raise StateRagError(f"{self.source}: the vectors are empty (width 0)")
        check_finite(names, vectors, self.source)
        zero = zero_rows(vectors)
        if zero.any():
            raise StateRagError(
                f"{self.source}: the vector is all zeros for {listing(_picked(names, zero))}. A zero vector has no "
                "direction, so it has no neighbours; leave these names out (a control needs no embedding)"
            )
        object.__setattr__(self, "names", tuple(str(name) for name in names))
        object.__setattr__(self, "vectors", vectors)

    @property
    def width(self) -> int:
        """Width D of the vectors."""
        return int(self.vectors.shape[1])

    @cached_property
    def _row_of(self) -> dict[str, int]:
        return {name: row for row, name in enumerate(self.names)}

    def __len__(self) -> int:
        return len(self.names)

    def __contains__(self, name: object) -> bool:
        return name in self._row_of

    def row(self, name: str) -> np.ndarray:
        """Return the vector ``[D]`` of one name.

        Raises
        ------
        StateRagError
            The name is unknown; close spellings are listed.
        """
        return self.vectors[self._index(name)]

    def with_combinations(self, names: Iterable[str]) -> "Embeddings":
        """Return the table with those combinations among some names whose members it has all, each as their mean.

        `A+ctrl` is `A`.

        Examples
        --------
        >>> table = Embeddings(("A", "B"), np.eye(2, dtype=np.float32), source="example")
        >>> table.with_combinations(["B+A", "A+C", "A"]).row("B+A").tolist()
        [0.5, 0.5]
        """
        members = {name: parts_of(name) for name in dict.fromkeys(names) if name not in self}
        known = {
            name: parts for name, parts in members.items() if parts != (name,) and all(one in self for one in parts)
        }
        if not known:
            return self
        means = np.stack([np.mean([self.row(one) for one in parts], axis=0) for parts in known.values()])
        vectors = np.concatenate([self.vectors, means])
        return Embeddings((*self.names, *known), vectors, self.source, dict(self.provenance))

    def limited_to(self, names: Collection[str]) -> "Embeddings":
        """Return what the table knows of some names, combinations of its names too (see `with_combinations`).

        Examples
        --------
        >>> table = Embeddings(("B", "A"), np.eye(2, dtype=np.float32), source="example")
        >>> table.limited_to(["A", "A+B", "C"]).names
        ('A', 'A+B')
        """
        whole, wanted = self.with_combinations(names), set(names)
        return whole.subset([name for name in whole.names if name in wanted])

    def subset(self, names: Iterable[str]) -> "Embeddings":
        """Return the table of `names`, in that order.

        Raises
        ------
        StateRagError
            A name is unknown or asked for twice.
        """
        chosen = tuple(names)
        unknown = [name for name in chosen if name not in self._row_of]
        if len(unknown) > 1:
            raise StateRagError(f"{self.source}: no embedding for {listing(unknown)}")
        rows = [self._index(name) for name in chosen]
        return Embeddings(chosen, self.vectors[rows], self.source, dict(self.provenance))

    def _index(self, name: str) -> int:
        try:
            return self._row_of[name]
        except KeyError:
            raise StateRagError(f"{self.source}: no embedding for '{name}'{suggest([name], self.names)}") from None


def check_names(names: Sequence[object], source: str) -> None:
    """Refuse names that are no strings, empty, or there twice."""
    wrong = [f"{name!r} ({type(name).__name__})" for name in names if not isinstance(name, str)]
    if wrong:
        raise StateRagError(f"{source}: perturbation names must be text, found {listing(wrong)}")
    empty = [row for row, name in enumerate(names, start=1) if not str(name).strip()]
    if empty:
        raise StateRagError(f"{source}: the perturbation name is empty in row {listing(empty)}")
    if len(set(names)) != len(names):
        raise StateRagError(
            f"{source}: names that occur more than once: {listing(repeated(names))}. Keep one row for each"
        )


def check_finite(names: Sequence[str], vectors: np.ndarray, source: str) -> None:
    """Refuse rows of ``[P, D]`` with NaN or infinite values."""
    # The sum of a row is finite if its values are and do not overflow: one cheap pass settles most tables.
    with np.errstate(all="ignore"):
        suspect = np.flatnonzero(~np.isfinite(vectors.sum(axis=1, dtype=np.float64)))
    for row in suspect.tolist():
        if np.isfinite(vectors[row]).all():
            continue
        bad = [names[other] for other in suspect.tolist() if not np.isfinite(vectors[other]).all()]
        raise StateRagError(
            f"{source}: NaN or infinite values in the vectors of {listing(bad)}. Repair these rows or remove them"
        )


def zero_rows(vectors: np.ndarray) -> np.ndarray:
    """Return, for each row of ``[P, D]``, whether it is all zeros: bool ``[P]``."""
    return np.asarray(~vectors.any(axis=1))


def lengths(vectors: np.ndarray) -> np.ndarray:
    """Return the length of each row of ``[P, D]``, float64 ``[P]``, without a copy of the table."""
    squares = np.empty(len(vectors))
    for start in range(0, len(vectors), ROWS):
        block = vectors[start : start + ROWS].astype(np.float64)
        squares[start : start + ROWS] = np.einsum("pd,pd->p", block, block)
    return np.sqrt(squares)


def unit_rows(vectors: np.ndarray) -> np.ndarray:
    """Return rows [P, D] of length 1, float32; those of zeros stay."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 0).astype(np.float32)


def stack_rows(rows: Mapping[str, Any], source: str) -> np.ndarray:
    """Stack one vector a name into float32 ``[P, D]``, naming whatever does not fit.

    Parameters
    ----------
    rows
        Name -> vector (a list, tuple, array or tensor of D numbers).
    source
        The file, for messages.

    Raises
    ------
    StateRagError
        A value is no vector of numbers, or the widths differ.
    """
    wrong = []
    vectors = []
    for name, value in rows.items():
        vector, found = _as_vector(value)
        if vector is None:
            wrong.append(f"{name} ({found})")
        else:
            vectors.append(vector)
    if wrong:
        raise StateRagError(f"{source}: expected a vector of numbers for each name, found {listing(wrong)}")
    widths = [len(vector) for vector in vectors]
    if not widths:
        return np.zeros((0, 0), dtype=np.float32)
    width = max(set(widths), key=lambda found: (widths.count(found), found))
    ragged = [f"{name} ({found})" for name, found in zip(rows, widths, strict=True) if found != width]
    if ragged:
        raise StateRagError(
            f"{source}: ragged vectors: {len(widths) - len(ragged)} of {len(widths)} have width {width}, but "
            f"{listing(ragged)} not"
        )
    matrix = np.empty((len(vectors), width), dtype=np.float32)
    with np.errstate(over="ignore"):
        for row, vector in enumerate(vectors):
            matrix[row] = vector
    return matrix


def _as_vector(value: Any) -> tuple[np.ndarray | None, str]:
    """Return (vector, '') or (None, what was found instead)."""
    if isinstance(value, str | bytes) or value is None:
        return None, type(value).__name__
    try:
        vector = np.asarray(value)
    except (TypeError, ValueError):
        return None, f"{type(value).__name__} of mixed lengths"
    if vector.ndim != 1:
        return None, f"{type(value).__name__} of shape {list(vector.shape)}" if vector.ndim else type(value).__name__
    if vector.dtype.kind not in "iuf":
        kind = {"b": "bool", "U": "text", "S": "bytes", "O": "mixed", "c": "complex"}
        return None, f"{type(value).__name__} of {kind.get(vector.dtype.kind, str(vector.dtype))} values"
    return vector, ""


def _picked(names: Sequence[str], mask: np.ndarray) -> list[str]:
    return [names[row] for row in np.flatnonzero(mask).tolist()]
