"""Loops that add cells up by group, compiled: one look at each stored value, no copy, and other threads go on."""

import numba
import numpy as np

BUFFER = 4096
"""Stored values that are gathered before they are added up: 32 KiB."""


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

    The sums of all groups lie far from the processor. A group with many values is added up nearby first.

    Parameters
    ----------
    data, indices, indptr
        The matrix; indices within bounds, none twice in a row.
    order
        The rows to add, best group by group, int [n].
    group_of
        Group of every row of the matrix.
    sums, squares
        float64 [groups, G], added to.
    """
    room = BUFFER
    for row in order:
        room = max(room, indptr[row + 1] - indptr[row])
    values, columns = np.empty(room, data.dtype), np.empty(room, indices.dtype)
    near, near_squares = np.zeros(sums.shape[1]), np.zeros(sums.shape[1])
    end = 0
    while end < len(order):
        start, group, count = end, group_of[order[end]], 0
        while end < len(order) and group_of[order[end]] == group:
            count += indptr[order[end] + 1] - indptr[order[end]]
            end += 1
        rows = order[start:end]
        if count < sums.shape[1]:
            _add_rows(data, indices, indptr, rows, values, columns, sums[group], squares[group])
        else:
            near[:] = 0
            near_squares[:] = 0
            _add_rows(data, indices, indptr, rows, values, columns, near, near_squares)
            for column in range(len(near)):
                sums[group, column] += near[column]
                squares[group, column] += near_squares[column]


@numba.njit(nogil=True)
def _add_rows(
    data: np.ndarray,
    indices: np.ndarray,
    indptr: np.ndarray,
    rows: np.ndarray,
    values: np.ndarray,
    columns: np.ndarray,
    total: np.ndarray,
    square: np.ndarray,
) -> None:
    """Add rows of a CSR matrix to `total` [G] and their squares to `square`.

    Rows of a group lie anywhere in a block that the nearest cache does not hold. Copying some of them together first,
    into `values` and `columns`, has many reads under way at once, where adding waits for each: half the time.
    """
    done = 0
    while done < len(rows):
        held = np.uint64(0)
        while done < len(rows):
            # unsigned, since a check of each place for negative numbers costs a fifth of the time
            start, stop = np.uint64(indptr[rows[done]]), np.uint64(indptr[rows[done] + 1])
            if held + stop - start > np.uint64(len(values)):
                break
            for place in range(stop - start):
                values[held + place] = data[start + place]
            for place in range(stop - start):
                columns[held + place] = indices[start + place]
            held += stop - start
            done += 1
        for place in range(held):
            value = np.float64(values[place])
            column = np.uint64(columns[place])
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
