"""Values of an HDF5 data set that lie in the file as they are, read past HDF5: a third of the time, or less."""

import os
from io import FileIO
from typing import Any

import h5py
import numpy as np

from state_rag.errors import StateRagError

CAN_READ_INTO = hasattr(os, "preadv")
"""Windows cannot."""


def read_into(file: FileIO, into: memoryview, place: int) -> int:
    """Fill `into` with the bytes of a file from `place` on; return how many there were."""
    start = place
    while len(into) and (count := os.preadv(file.fileno(), [into], place)) > 0:
        into, place = into[count:], place + count
    return place - start


class PlainValues:
    """A one-dimensional data set without compression, in chunks of which HDF5 has told the places.

    anndata writes a sparse matrix so. HDF5 takes its chunks one by one, with a copy for each; chunks that follow each
    other in the file are read here at once.

    Parameters
    ----------
    path
        The file.
    dtype
        Of the values.
    length
        How many there are.
    chunk
        Values of a chunk.
    offsets
        Where each chunk lies, in bytes, int64.

    Examples
    --------
    >>> import tempfile; folder = tempfile.TemporaryDirectory()
    >>> with h5py.File(folder.name + "/a.h5", "w") as file:
    ...     made = file.create_dataset("values", data=np.arange(10), chunks=(4,))
    >>> PlainValues.of(h5py.File(folder.name + "/a.h5")["values"])[3:6].tolist()
    [3, 4, 5]
    """

    def __init__(self, path: str, dtype: np.dtype, length: int, chunk: int, offsets: np.ndarray) -> None:
        self.dtype, self._length, self._chunk, self._offsets = dtype, length, chunk, offsets
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115  lives as long as the values

    @classmethod
    def of(cls, dataset: Any) -> "PlainValues | None":
        """Return the values of a data set; None where its bytes in the file are not those of the values."""
        if not isinstance(dataset, h5py.Dataset) or dataset.ndim != 1 or not dataset.chunks or not len(dataset):
            return None
        if not CAN_READ_INTO:
            return None
        made, file = dataset.id.get_create_plist(), dataset.file
        plain = made.get_nfilters() == 0 and dataset.dtype.kind in "iuf" and dataset.dtype.isnative
        if not plain or file.mode != "r" or file.driver != "sec2" or file.userblock_size:
            return None
        chunk, size = dataset.chunks[0], dataset.chunks[0] * dataset.dtype.itemsize
        offsets = np.full(-(-len(dataset) // chunk), -1, dtype=np.int64)

        def note(stored: Any) -> None:
            if stored.size == size:
                offsets[stored.chunk_offset[0] // chunk] = stored.byte_offset

        dataset.id.chunk_iter(note)
        if (offsets < 0).any():  # never written, and so a fill value
            return None
        return cls(file.filename, dataset.dtype, len(dataset), chunk, offsets)

    def __len__(self) -> int:
        """Return how many values there are."""
        return self._length

    def __getitem__(self, where: slice) -> np.ndarray:
        """Return consecutive values.

        Raises
        ------
        StateRagError
            If the file ends before.
        """
        start, stop, step = where.indices(self._length)
        if step != 1:
            raise ValueError("values are read in order, without gaps")
        found = np.empty(max(0, stop - start), dtype=self.dtype)
        if not len(found):
            return found
        chunk, size = self._chunk, self.dtype.itemsize
        first, last = start // chunk, (stop - 1) // chunk
        apart = np.flatnonzero(np.diff(self._offsets[first : last + 1]) != chunk * size) + first + 1
        into = found.view(np.uint8).data
        for one, other in zip([first, *apart.tolist()], [*apart.tolist(), last + 1], strict=True):
            begin, end = max(start, one * chunk), min(stop, other * chunk)
            place = int(self._offsets[one]) + (begin - one * chunk) * size
            self._fill(into[(begin - start) * size : (end - start) * size], place)
        return found

    def _fill(self, into: memoryview, place: int) -> None:
        if read_into(self._file, into, place) < len(into):
            raise StateRagError(
                f"{self._file.name}: the file ends in the middle of its matrix; it is truncated. Copy or write it "
                "again."
            )
