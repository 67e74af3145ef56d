"""Read chosen rows of a matrix that may be far larger than memory."""

from collections.abc import Iterator
from typing import Any, Protocol, TypeAlias

import h5py
import numpy as np
from scipy import sparse

from state_rag.cell_files import CellFile, is_group
from state_rag.contract.plain_values import CAN_READ_INTO, PlainValues, read_into
from state_rag.errors import StateRagError

Block: TypeAlias = np.ndarray | sparse.csr_matrix
"""Consecutive rows as they are stored."""


class Rows(Protocol):
    """A matrix of which rows can be read: `shape` (rows, features), `read` and `block`."""

    shape: tuple[int, int]

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Return the given rows, in the given order, as float32 `[len(rows), features]`."""
        ...

    def block(self, start: int, stop: int) -> Block:
        """Return the rows from `start` to before `stop` as they are stored: dense, or CSR without repeated places."""
        ...


class ArrayRows:
    """Rows of an array or sparse matrix that is already in memory."""

    def __init__(self, values):
        self.values = values.tocsr() if sparse.issparse(values) else np.asarray(values)
        self.shape: tuple[int, int] = (int(values.shape[0]), int(values.shape[1]))

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Return the given rows, in the given order, as float32 `[len(rows), features]`."""
        chosen = self.values[rows]
        return np.asarray(chosen.toarray() if sparse.issparse(chosen) else chosen, dtype=np.float32)

    def block(self, start: int, stop: int) -> Block:
        """Return the rows from `start` to before `stop` as they are stored: dense, or CSR."""
        found = self.values[start:stop]
        return without_repeats(found) if sparse.issparse(found) else found


class ChosenColumns:
    """Chosen columns of another matrix, in a given order."""

    def __init__(self, rows: Rows, places: np.ndarray):
        self.rows, self.places = rows, np.asarray(places, dtype=np.int64)
        self.shape: tuple[int, int] = (rows.shape[0], len(self.places))

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Return the given rows, in the given order, as float32 `[len(rows), features]`."""
        return self.rows.read(rows)[:, self.places]

    def block(self, start: int, stop: int) -> Block:
        """Return the rows from `start` to before `stop` as they are stored: dense, or CSR."""
        return self.rows.block(start, stop)[:, self.places]


class DenseFileRows:
    """Rows of a dense HDF5 data set, or of a zarr array.

    Contiguous data sets (what anndata writes by default) are read with plain positioned reads of whole runs of
    rows: a few times quicker than HDF5's selections, and nothing stays mapped in memory.
    """

    def __init__(self, dataset: Any):
        self.dataset = dataset
        self.shape: tuple[int, int] = (int(dataset.shape[0]), int(dataset.shape[1]))
        plain = isinstance(dataset, h5py.Dataset) and dataset.chunks is None and dataset.dtype.isnative
        self.offset = dataset.id.get_offset() if plain and CAN_READ_INTO else None
        self.file = open(dataset.file.filename, "rb", buffering=0) if self.offset is not None else None  # noqa: SIM115

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Return the given rows, in the given order, as float32 `[len(rows), features]`."""
        rows = np.asarray(rows, dtype=np.int64)
        out = np.empty((len(rows), self.shape[1]), dtype=np.float32)
        if self.file is not None and self.dataset.dtype == out.dtype:
            for start, stop in runs(rows):
                self._fill(out[start:stop], int(rows[start]))
            return out
        order = np.argsort(rows, kind="stable")
        for start, stop in runs(rows[order]):
            first, count = int(rows[order[start]]), stop - start
            out[order[start:stop]] = self._read_run(first, count)
        return out

    def block(self, start: int, stop: int) -> Block:
        """Return the rows from `start` to before `stop` as they are stored."""
        return self._read_run(start, stop - start)

    def _read_run(self, first: int, count: int) -> np.ndarray:
        if self.file is None:
            return self.dataset[first : first + count]
        found = np.empty((count, self.shape[1]), dtype=self.dataset.dtype)
        self._fill(found, first)
        return found

    def _fill(self, out: np.ndarray, first: int) -> None:
        """Read as many consecutive rows as `out` has, of the values' own kind, into it."""
        assert self.file is not None
        assert self.offset is not None
        width = self.shape[1] * self.dataset.dtype.itemsize
        count = read_into(self.file, out.reshape(-1).view(np.uint8).data, self.offset + first * width)
        if count < out.nbytes:
            raise StateRagError(
                f"{self.dataset.file.filename}: '{self.dataset.name}' ends at row {first + count // width} of "
                f"{self.shape[0]}; the file is truncated. Copy or write it again"
            )


class SparseFileRows:
    """Rows of a CSR matrix in an h5ad file or a zarr store; only the index of row starts is held in memory."""

    def __init__(self, group: Any):
        self.name = str(group.name)
        self.data, self.indices = (PlainValues.of(group[part]) or group[part] for part in ("data", "indices"))
        self.indptr = group["indptr"][:]
        rows, columns = group.attrs["shape"]
        self.shape: tuple[int, int] = (int(rows), int(columns))

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Return the given rows, in the given order, as float32 `[len(rows), features]`."""
        rows = np.asarray(rows, dtype=np.int64)
        out = np.zeros((len(rows), self.shape[1]), dtype=np.float32)
        if not len(rows):
            return out
        order = np.argsort(rows, kind="stable")
        ends = [(int(rows[order[start]]), int(rows[order[stop - 1]]) + 1) for start, stop in runs(rows[order])]
        parts = [slice(int(self.indptr[first]), int(self.indptr[last])) for first, last in ends]
        data, indices = (np.concatenate([values[part] for part in parts]) for values in (self.data, self.indices))
        starts = np.append(0, np.cumsum(self.indptr[rows[order] + 1] - self.indptr[rows[order]]))
        found = without_repeats(sparse.csr_matrix((data, indices, starts), shape=out.shape))
        out[np.repeat(order, np.diff(found.indptr)), found.indices] = found.data
        return out

    def block(self, start: int, stop: int) -> Block:
        """Return the rows from `start` to before `stop` as CSR.

        Raises
        ------
        StateRagError
            If the file ends before, or its indices are out of bounds, which whoever adds values up must not follow.
        """
        starts = self.indptr[start : stop + 1]
        begin, end = int(starts[0]), int(starts[-1])
        data, indices = self.data[begin:end], self.indices[begin:end]
        whole = len(starts) == stop - start + 1 and len(data) == len(indices) == end - begin
        ascending = bool((np.diff(starts) >= 0).all())
        if not (whole and ascending and _within(indices, self.shape[1])):
            raise StateRagError(
                f"rows {start:,} to {stop:,} of '{self.name}' are damaged: their places do not fit a matrix of "
                f"{self.shape[0]:,} x {self.shape[1]:,}. Copy or write the file again."
            )
        return without_repeats(sparse.csr_matrix((data, indices, starts - begin), shape=(stop - start, self.shape[1])))


def without_repeats(rows: sparse.csr_matrix) -> sparse.csr_matrix:
    """Return CSR rows in which no place stands twice; values that share a place are added up, as SciPy reads them.

    Rows whose places are merely out of order come back as they are.

    Examples
    --------
    >>> twice = sparse.csr_matrix(([1.0, 2.0], [0, 0], [0, 2]), shape=(1, 3))
    >>> without_repeats(twice).data.tolist()
    [3.0]
    """
    if rows.has_canonical_format:
        return rows
    columns = rows.tocsc()  # brings repeats side by side, in time that grows with the values; sorting takes longer
    if columns.has_canonical_format:
        return rows
    columns.sum_duplicates()
    return columns.tocsr()


def _within(indices: np.ndarray, width: int) -> bool:
    """Tell whether all are from 0 to below `width`; read as unsigned, a negative number is a large one."""
    if indices.dtype.kind == "i":
        indices = indices.view(indices.dtype.str.replace("i", "u"))
    return not len(indices) or bool(indices.max() < width)


def runs(rows: np.ndarray) -> list[tuple[int, int]]:
    """Split an array of row numbers into stretches of consecutive ones.

    Examples
    --------
    >>> runs(np.array([3, 4, 5, 9, 10]))
    [(0, 3), (3, 5)]
    """
    if len(rows) == 0:
        return []
    breaks = np.flatnonzero(np.diff(rows) != 1) + 1
    edges = [0, *breaks.tolist(), len(rows)]
    return list(zip(edges[:-1], edges[1:], strict=True))


def row_blocks(rows: Rows, start: int, stop: int, at_most: int) -> Iterator[tuple[int, int]]:
    """Yield consecutive ranges of rows that hold about so many stored values each, one row at least.

    Parameters
    ----------
    rows
        The matrix.
    start, stop
        The rows to go through.
    at_most
        Stored values of a block; a row of a dense matrix has as many as there are columns.
    """
    inner = rows.rows if isinstance(rows, ChosenColumns) else rows
    indptr = getattr(inner.values if isinstance(inner, ArrayRows) else inner, "indptr", None)
    # as int64 once, which a search for a Python number would otherwise make of all rows' starts, at every block
    starts = None if indptr is None else np.asarray(indptr[start : stop + 1], dtype=np.int64)
    begin = start
    while start < stop:
        if starts is None:
            end = start + max(1, at_most // max(inner.shape[1], 1))
        else:
            end = begin + int(np.searchsorted(starts, starts[start - begin] + at_most, side="right")) - 1
        end = min(max(end, start + 1), stop)
        yield start, end
        start = end


def open_rows(file: CellFile, key: str) -> Rows:
    """Open `X` or `obsm/NAME` of a file of cells for reading by rows.

    Raises
    ------
    StateRagError
        If the matrix is missing or stored by columns (CSC), which cannot be read by rows in bounded memory.
    """
    if key not in file:
        have = ["X"] + [f"obsm/{name}" for name in sorted(file.get("obsm", {}))]
        raise StateRagError(f"{file.filename}: no matrix '{key}'; the file has {', '.join(have)}")
    node = file[key]
    if not is_group(node):
        return DenseFileRows(node)
    encoding = node.attrs.get("encoding-type", "")
    if encoding != "csr_matrix":
        raise StateRagError(
            f"{file.filename}: '{key}' is stored as '{encoding or 'unknown'}'; expected a dense matrix or CSR. "
            "Convert it with `adata.X = adata.X.tocsr()` and write the file again"
        )
    return SparseFileRows(node)
