"""Sums over groups of cells that arrive file by file, kept in temporary files.

Totals lie in files (8 bytes a gene and group, 16 with squares), and means are computed as they are asked for, so memory
does not grow with the number of groups; nor does anything with the number of files.
"""

from collections.abc import Sequence

import numpy as np

from state_rag.contract.matrices import Rows
from state_rag.effects.cell_sums import CellSums, sum_cells
from state_rag.effects.row_store import RowStore
from state_rag.progress import bar

Group = tuple[str, str]
"""Cell line and perturbation."""

_VALUES_AT_ONCE = 2**16


class GroupTotals:
    """Sums, and if wanted sums of squares, of the cells of each group, over any number of files.

    Parameters
    ----------
    squares
        Whether standard deviations will be asked for.
    """

    def __init__(self, squares: bool = False) -> None:
        self.squares = squares
        self.cells: dict[Group, int] = {}
        self._row: dict[Group, int] = {}
        self._sums: RowStore | None = None
        self._squares: RowStore | None = None

    def __contains__(self, group: object) -> bool:
        return group in self._row

    def groups(self) -> list[Group]:
        """Return the groups, in the order in which they came."""
        return list(self._row)

    def add(
        self, rows: Rows, groups: Sequence[Group], group_of: np.ndarray, what: str = "cells", progress: bool = True
    ) -> None:
        """Add cells that lie in one matrix.

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
        with bar(len(group_of), what, "cells", disable=not progress) as shown:
            found = sum_cells(rows, groups, group_of, told=shown.update)
        self.join(found, groups)

    def expect(self, groups: Sequence[Group]) -> None:
        """Have groups in this order, whichever of their cells come first; all must come."""
        for group in groups:
            self._row.setdefault(group, len(self._row))

    def join(self, found: CellSums, groups: Sequence[Group | None]) -> None:
        """Add sums that were made elsewhere.

        Parameters
        ----------
        found
            The sums of N groups.
        groups
            Which of the totals' groups each belongs to; None for one that is left out.
        """
        wanted = [(number, group) for number, group in enumerate(groups) if group is not None]
        if not wanted:
            return
        self.expect([group for _, group in wanted])
        width = found.sums.shape[1]
        if self._sums is None:
            self._sums = RowStore(0, width, np.float64)
            self._squares = RowStore(0, width, np.float64) if self.squares else None
        self._sums.grow(len(self._row))
        if self._squares is not None:
            self._squares.grow(len(self._row))
        numbers = np.array([number for number, _ in wanted])
        rows = np.array([self._row[group] for _, group in wanted])
        # stretches of groups that lie beside each other here and there
        starts = np.flatnonzero((np.diff(numbers, prepend=-2) != 1) | (np.diff(rows, prepend=-2) != 1))
        step = max(1, _VALUES_AT_ONCE // max(width, 1))
        with np.errstate(invalid="ignore", over="ignore"):
            for first, last in zip(starts.tolist(), [*starts[1:].tolist(), len(wanted)], strict=True):
                for start in range(first, last, step):
                    part = slice(start, min(start + step, last))
                    self._join(int(rows[start]), [group for _, group in wanted[part]], found, int(numbers[start]))

    def _join(self, row: int, groups: Sequence[Group], found: CellSums, number: int) -> None:
        """Add consecutive sums to consecutive totals."""
        assert self._sums is not None
        here, there = slice(row, row + len(groups)), slice(number, number + len(groups))
        before = np.array([self.cells.get(group, 0) for group in groups])
        cells, total = found.cells[there], found.sums[there]
        self.cells.update(zip(groups, (before + cells).tolist(), strict=True))
        known = self._sums[here]
        self._sums[here] = known + total
        if self._squares is not None:
            share = before * cells / np.maximum(before + cells, 1)
            apart = known / np.maximum(before, 1)[:, None]  # all else in its place: this is what a pass waits for
            apart -= total / np.maximum(cells, 1)[:, None]
            np.square(apart, out=apart)
            apart *= share[:, None]
            apart += found.squares[there]
            apart += self._squares[here]
            self._squares[here] = apart

    def mean(self, group: Group) -> np.ndarray:
        """Return a group's mean `[G]` over all files, in float64."""
        assert self._sums is not None
        return self._sums[self._row[group]] / self.cells[group]

    def std(self, group: Group) -> np.ndarray:
        """Return a group's standard deviation between cells `[G]` (unbiased variance); NaN of a single cell."""
        if self._squares is None:
            raise ValueError("no squares were added up; make the totals with squares=True")
        n = self.cells[group]
        if n < 2:
            return np.full(self._squares.shape[1], np.nan)
        return np.sqrt(self._squares[self._row[group]] / (n - 1))
