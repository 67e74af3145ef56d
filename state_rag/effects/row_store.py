"""Rows that are kept in a temporary file, so that memory does not grow with their number."""

import os
import tempfile

import numpy as np


class RowStore:
    """An array `[rows, width]` in an unnamed temporary file; rows start as zeros.

    Parameters
    ----------
    rows, width
        Shape.
    dtype
        Type of the values.

    Examples
    --------
    >>> store = RowStore(3, 2, np.float32)
    >>> store[1] = [1, 2]
    >>> store[0:2].tolist()
    [[0.0, 0.0], [1.0, 2.0]]
    """

    def __init__(self, rows: int, width: int, dtype: type) -> None:
        self.shape = (rows, width)
        self.dtype = np.dtype(dtype)
        self._bytes = width * self.dtype.itemsize
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  lives as long as the store
        self._file.truncate(rows * self._bytes)

    def grow(self, rows: int) -> None:
        """Have so many rows, if there are fewer; new ones are zeros."""
        if rows > len(self):
            self._file.truncate(rows * self._bytes)
            self.shape = (rows, self.shape[1])

    def __len__(self) -> int:
        """Return the number of rows."""
        return self.shape[0]

    def __setitem__(self, rows: int | slice, values: object) -> None:
        """Write one row `[width]`, or consecutive rows `[n, width]`."""
        if isinstance(rows, slice):
            start, stop, step = rows.indices(len(self))
            if step != 1:
                raise ValueError("rows are written in order, without gaps")
        else:
            start = range(len(self))[rows]
            stop = start + 1
        shape = (max(0, stop - start), self.shape[1])
        data = np.ascontiguousarray(np.broadcast_to(np.asarray(values, self.dtype), shape))
        os.pwrite(self._file.fileno(), data.data, start * self._bytes)

    def __getitem__(self, rows: int | slice) -> np.ndarray:
        """Return one row `[width]`, or consecutive rows `[n, width]`."""
        if not isinstance(rows, slice):
            place = range(len(self))[rows]
            return self[place : place + 1][0]
        start, stop, step = rows.indices(len(self))
        if step != 1:
            raise ValueError("rows are read in order, without gaps")
        count = max(0, stop - start)
        data = os.pread(self._file.fileno(), count * self._bytes, start * self._bytes)
        return np.frombuffer(data, self.dtype).reshape(count, self.shape[1])

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        """Return all rows in memory."""
        return self[:].astype(dtype or self.dtype)
