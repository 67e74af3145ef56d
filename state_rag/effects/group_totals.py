"""Sums over groups of cells that arrive in chunks, kept in temporary files.

Totals lie in files (8 bytes a gene and group, 16 with squares), and means are computed as they are asked for, so memory
does not grow with the number of groups.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from state_rag.contract.matrices import Rows
from state_rag.effects.row_store import RowStore
from state_rag.progress import track

CHUNK_VALUES = 2**22
"""Values that are read at once: 16 MiB, and twice that while they are added up."""
Group = tuple[str, str]
"""Cell line and perturbation."""


@dataclass(frozen=True)
class _Part:
    """Where a group's totals over the cells of one file lie."""

    sums: RowStore
    squares: RowStore | None
    row: int


class GroupTotals:
    """Sums, and if wanted sums of squares, of the cells of each group, over any number of files.

    Parameters
    ----------
    squares
        Whether standard deviations will be asked for. Squares are taken of what is left when the mean of the first
        chunk is taken off, so that no precision is lost to the difference of two large sums.
    """

    def __init__(self, squares: bool = False) -> None:
        self.squares = squares
        self.cells: dict[Group, int] = {}
        self._parts: dict[Group, list[_Part]] = {}
        self._shift: np.ndarray | None = None

    def __contains__(self, group: object) -> bool:
        return group in self._parts

    def groups(self) -> list[Group]:
        """Return the groups, in the order in which they came."""
        return list(self._parts)

    def add(
        self, rows: Rows, groups: Sequence[Group], group_of: np.ndarray, what: str = "cells", progress: bool = True
    ) -> None:
        """Add the cells of one file.

        Parameters
        ----------
        rows
            Reads the cells `[n, G]`.
        groups
            The groups to add up.
        group_of
            Number of each cell's group, `[n]`; -1 for cells to leave out.
        what
            Said beside the progress bar.
        progress
            Whether to show one.
        """
        chosen = np.flatnonzero(group_of >= 0)
        if len(chosen) == 0:
            return
        width = rows.shape[1]
        sums = RowStore(len(groups), width, np.float64)
        squares = RowStore(len(groups), width, np.float64) if self.squares else None
        sizes = np.bincount(group_of[chosen], minlength=len(groups)).tolist()
        for row, (group, size) in enumerate(zip(groups, sizes, strict=True)):
            self._parts.setdefault(group, []).append(_Part(sums, squares, row))
            self.cells[group] = self.cells.get(group, 0) + int(size)
        chunk = max(1, CHUNK_VALUES // width)
        for start in track(range(0, len(chosen), chunk), what, disable=not progress):
            part = chosen[start : start + chunk]
            used, member = np.unique(group_of[part], return_inverse=True)
            members = sparse.csr_matrix((np.ones(len(part)), (member, np.arange(len(part)))))
            cells = rows.read(part).astype(np.float64)
            _add(sums, used, members @ cells)
            if squares is not None:
                if self._shift is None:
                    mean = cells.mean(axis=0)
                    self._shift = np.where(np.isfinite(mean), mean, 0.0)
                cells -= self._shift
                _add(squares, used, members @ np.square(cells, out=cells))

    def mean(self, group: Group) -> np.ndarray:
        """Return a group's mean `[G]` over all files, in float64."""
        total, *further = (part.sums[part.row] for part in self._parts[group])
        for more in further:
            total = total + more
        return total / self.cells[group]

    def std(self, group: Group) -> np.ndarray:
        """Return a group's standard deviation between cells `[G]` (unbiased variance); NaN of a single cell."""
        if self._shift is None:
            raise ValueError("no squares were added up; make the totals with squares=True")
        n = self.cells[group]
        if n < 2:
            return np.full(len(self._shift), np.nan)
        total = sum((part.squares[part.row] for part in self._parts[group] if part.squares), np.zeros(()))
        excess = total - n * np.square(self.mean(group) - self._shift)
        return np.sqrt(np.clip(excess, 0, None) / (n - 1))


def _add(store: RowStore, rows: np.ndarray, values: np.ndarray) -> None:
    for row, total in zip(rows.tolist(), values, strict=True):
        store[row] = store[row] + total
