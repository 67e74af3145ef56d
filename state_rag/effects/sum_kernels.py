"""Loops that add cells up by group, compiled: one look at each stored value, no copy, and other threads go on."""

import numba
import numpy as np


@numba.njit(nogil=True)
def add_sparse(
    data: np.ndarray,
    indices: np.ndarray,
    indptr: np.ndarray,
    order: np.ndarray,
    group_of: np.ndarray,
    sums: np.ndarray,
    squares: np.ndarray,
) -> None:
    """Add the rows of a CSR matrix, and their squares, to those of their groups.

    Parameters
    ----------
    data, indices, indptr
        The matrix; indices within bounds.
    order
        The rows to add, best group by group, int [n].
    group_of
        Group of every row of the matrix.
    sums, squares
        float64 [groups, G], added to.
    """
    for row in order:
        total, square = sums[group_of[row]], squares[group_of[row]]
        # unsigned, since a check of each place for negative numbers costs a fifth of the time
        for place in range(np.uint64(indptr[row]), np.uint64(indptr[row + 1])):
            value = np.float64(data[place])
            column = np.uint64(indices[place])
            total[column] += value
            square[column] += value * value


@numba.njit(nogil=True)
def add_dense(
    values: np.ndarray,
    order: np.ndarray,
    group_of: np.ndarray,
    shift: np.ndarray,
    sums: np.ndarray,
    squares: np.ndarray,
) -> None:
    """Add rows of a dense matrix `[n, G]`, and the squares of what is left when `shift` `[G]` is taken off."""
    for row in order:
        total, square, own = sums[group_of[row]], squares[group_of[row]], values[row]
        for column in range(len(own)):
            value = np.float64(own[column])
            total[column] += value
            square[column] += (value - shift[column]) ** 2
