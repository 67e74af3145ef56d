"""Sums of cells by group, of a stretch of a matrix's rows, in one pass over blocks of what is stored.

Kept of a group are the number of its cells, their sum, and the sum of the squares of their deviations from the group's
own mean. These can be joined over stretches and files in any number (Chan, Golub and LeVeque, 1983: "Algorithms for
computing the sample variance", The American Statistician 37), and no precision is lost to the difference of large sums.
"""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from state_rag.contract.matrices import Block, Rows, row_blocks

BLOCK_VALUES = 2**22
"""Stored values that are read at once: 32 MiB of a sparse matrix, 16 MiB of a dense one."""
IN_MEMORY = 2**28
"""Bytes of sums that are held in memory; more of them lie in a temporary file that is mapped."""


@dataclass(frozen=True)
class CellSums:
    """Sums of N groups of cells.

    Attributes
    ----------
    keys
        What each group is called.
    cells
        How many cells it has, int64 [N].
    sums
        Of its cells, float64 [N, G].
    squares
        Sums of the squares of deviations from the group's mean, float64 [N, G].
    """

    keys: list[tuple[str, ...]]
    cells: np.ndarray
    sums: np.ndarray
    squares: np.ndarray


def sum_cells(
    rows: Rows,
    keys: Sequence[tuple[str, ...]],
    group_of: np.ndarray,
    start: int = 0,
    told: Callable[[int], object] | None = None,
) -> CellSums:
    """Add up the cells of each group.

    Parameters
    ----------
    rows
        The matrix.
    keys
        What the groups are called.
    group_of
        Number of each cell's group, int `[n]`, of the cells from `start` on; -1 for cells to leave out.
    start
        Row of the first of these cells.
    told
        Called with the number of cells after each block.
    """
    count, width = len(keys), rows.shape[1]
    sums, squares = _zeros(count, width), _zeros(count, width)
    cells = np.bincount(group_of[group_of >= 0], minlength=count).astype(np.int64)
    shift: np.ndarray | None = None
    small = np.uint16 if count <= 2**16 else np.int64  # few groups are sorted without comparing
    with np.errstate(invalid="ignore", over="ignore"):
        for first, last in row_blocks(rows, start, start + len(group_of), BLOCK_VALUES):
            own = group_of[first - start : last - start]
            used = np.flatnonzero(own >= 0)
            order = used[np.argsort(own[used].astype(small), kind="stable")]
            if len(order):
                shift = _add(rows.block(first, last), order, own, shift, sums, squares)
            if told is not None:
                told(last - first)
        for group in range(count):  # row by row, so that a mapped file is not copied into memory
            offset = 0.0 if shift is None else shift
            mean = sums[group] / max(int(cells[group]), 1)
            squares[group] -= cells[group] * np.square(mean - offset)
        np.maximum(squares, 0, out=squares)  # what rounding makes negative; NaN stays
    return CellSums(list(keys), cells, sums, squares)


def _add(
    block: Block,
    order: np.ndarray,
    group_of: np.ndarray,
    shift: np.ndarray | None,
    sums: np.ndarray,
    squares: np.ndarray,
) -> np.ndarray | None:
    """Add a block's rows; return what squares are taken about, which is zero (None) for sparse rows."""
    from state_rag.effects.sum_kernels import add_dense, add_sparse  # compiled when it is needed, in half a second

    if sparse.issparse(block):
        found = sparse.csr_matrix(block)
        add_sparse(_plain(found.data), found.indices, found.indptr, order, group_of, sums, squares)
        return None
    values = _plain(np.asarray(block))
    if shift is None:
        mean = values[order].mean(axis=0, dtype=np.float64)
        shift = np.where(np.isfinite(mean), mean, 0.0)
    add_dense(values, order, group_of, shift, sums, squares)
    return shift


def _plain(values: np.ndarray) -> np.ndarray:
    """Return values of a type that the compiled loops take: float32 or float64, in this machine's order of bytes."""
    kind = np.float32 if values.dtype.kind == "f" and values.dtype.itemsize <= 4 else np.float64
    return np.ascontiguousarray(values, dtype=kind)


def _zeros(rows: int, width: int) -> np.ndarray:
    """Return zeros `[rows, width]`, mapped from a nameless temporary file where they are many."""
    if rows * width * 8 <= IN_MEMORY // 2:
        return np.zeros((rows, width))
    with tempfile.TemporaryFile() as file:
        file.truncate(rows * width * 8)
        return np.memmap(file, np.float64, "r+", shape=(rows, width))
