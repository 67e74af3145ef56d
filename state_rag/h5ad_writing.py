"""Write h5ad files, whole or a block of cells after the other: a file is there complete, or as it was before."""

import io
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from state_rag.errors import StateRagError
from state_rag.files import atomic_path, keep_other
from state_rag.h5ad import first_line

if TYPE_CHECKING:
    import anndata
    import pandas as pd


def write_h5ad(adata: "anndata.AnnData", path: str | os.PathLike[str], *, keep: bool = False) -> Path:
    """Write an AnnData object; `path` holds the whole file afterwards, or what it held before.

    Parameters
    ----------
    adata
        The object.
    path
        The file.
    keep
        Keep a file there that says something else, with `.before` at the end of its name.

    Raises
    ------
    StateRagError
        If the disk is full or the folder cannot be written.
    """
    from anndata.io import write_elem

    path = Path(path)
    adata.strings_to_categoricals()
    try:
        with atomic_path(path) as temporary, _Sink(temporary, "w+") as sink:
            try:
                with h5py.File(sink, "w") as file:
                    write_elem(file, "/", adata)
            except Exception as error:
                if sink.failure is None:
                    raise
                raise sink.failure from error
            if sink.failure is not None:
                raise sink.failure
            if keep:
                sink.flush()
                keep_other(path, temporary)
    except OSError as error:
        raise _disk_error(path, error) from error
    return path


def _disk_error(path: Path, error: OSError) -> StateRagError:
    return StateRagError(
        f"{path}: cannot be written ({first_line(error)}). Free disk space or choose another place; no incomplete "
        "file was left."
    )


class CellWriter:
    """Writes an h5ad file a block of cells after the other; memory does not grow with the matrices. For a `with` block.

    Parameters
    ----------
    path
        Holds the whole file once `finish` has been called, and until then what it held before.
    n_obs
        Cells there will be.
    text
        Columns of `obs` that differ from cell to cell; the others are categorical, with their labels in memory.
    """

    def __init__(self, path: str | os.PathLike[str], n_obs: int, text: Sequence[str] = ()) -> None:
        self.path, self.n_obs = Path(path), n_obs
        self._text, self._written = frozenset(text), 0
        self._codes: dict[str, np.ndarray] = {}
        self._categories: dict[str, dict[str, int]] = {}
        self._stack = ExitStack()
        with ExitStack() as stack:
            temporary = stack.enter_context(atomic_path(self.path))
            self._sink = stack.enter_context(_Sink(temporary, "w+"))
            self._file = stack.enter_context(h5py.File(self._sink, "w"))
            self._stack = stack.pop_all()

    def __enter__(self) -> "CellWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.discard()

    def add(self, matrices: Mapping[str, np.ndarray], labels: Mapping[str, Sequence[str]]) -> None:
        """Write the next cells.

        Parameters
        ----------
        matrices
            Values [cells, width] by their place in the file, ``X`` or ``obsm/NAME``.
        labels
            Columns of `obs`.

        Raises
        ------
        StateRagError
            If the disk is full.
        """
        first = self._written
        for place, values in matrices.items():
            if place not in self._file:
                made = self._file.create_dataset(place, (self.n_obs, values.shape[1]), values.dtype)
                made.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
            self._file[place][first : first + len(values)] = values
        count = len(next(iter(matrices.values())))
        index = [str(first + row) for row in range(count)]
        for name, own in {"_index": index, **labels}.items():
            self._add_labels(f"obs/{name}", name, first, own)
        self._written += count
        self._check()

    def _add_labels(self, place: str, name: str, first: int, values: Sequence[str]) -> None:
        if name == "_index" or name in self._text:
            if place not in self._file:
                made = self._file.create_dataset(place, (self.n_obs,), h5py.string_dtype())
                made.attrs.update({"encoding-type": "string-array", "encoding-version": "0.2.0"})
            self._file[place][first : first + len(values)] = list(values)
            return
        known = self._categories.setdefault(name, {})
        codes = self._codes.setdefault(name, np.full(self.n_obs, -1, dtype=np.int32))
        codes[first : first + len(values)] = [known.setdefault(value, len(known)) for value in values]

    def finish(self, columns: Sequence[str], var: "pd.DataFrame") -> Path:
        """Complete the file and put it in its place.

        Parameters
        ----------
        columns
            Columns of `obs` in their order.
        var
            The columns of X.

        Raises
        ------
        StateRagError
            If the disk is full, fewer cells came than were announced, or they came with other columns.
        """
        import pandas as pd
        from anndata.io import write_elem

        if self._written != self.n_obs:
            raise StateRagError(f"{self.path}: {self._written} cells came where {self.n_obs} were to be written.")
        file = self._file
        came = {*self._categories, *file["obs"]} - {"_index"}
        if came != set(columns):
            raise StateRagError(
                f"{self.path}: the cells came with {', '.join(sorted(came))}, expected {', '.join(columns)}."
            )
        for name, known in self._categories.items():
            order = sorted(known)
            position = np.empty(len(order), dtype=np.int32)
            position[[known[label] for label in order]] = np.arange(len(order))
            column = pd.Categorical.from_codes(position[self._codes[name]], order)
            # As anndata has it: what differs from cell to cell is text.
            write_elem(file["obs"], name, column if len(order) < self.n_obs else column.astype(object))
        frame = {"encoding-type": "dataframe", "encoding-version": "0.2.0", "_index": "_index"}
        file["obs"].attrs.update({**frame, "column-order": np.array(columns, dtype=h5py.string_dtype())})
        write_elem(file, "var", var)
        for name in ("layers", "obsm", "obsp", "uns", "varm", "varp"):
            file.require_group(name).attrs.update({"encoding-type": "dict", "encoding-version": "0.1.0"})
        file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
        file.close()
        self._check()
        self._stack.close()
        return self.path

    def discard(self) -> None:
        """Leave what lay at the path, unless the file is finished."""
        stack, self._stack = self._stack, ExitStack()
        with suppress(_Discarded), stack:
            raise _Discarded

    def _check(self) -> None:
        if self._sink.failure is not None:
            raise _disk_error(self.path, self._sink.failure) from self._sink.failure


class _Discarded(Exception):
    """Has a writer leave its file as it was."""


class _Sink(io.FileIO):
    """The file that HDF5 writes to. When the disk takes no more it goes on in memory.

    HDF5 cannot close an object whose writes fail: it complains at every attempt and brings the process down at exit;
    nor may it read back other bytes than it wrote. So it is shown no failure: the first is kept for the caller, who
    asks once HDF5 has closed in peace, and what was written so far moves into memory for that time.
    """

    failure: OSError | None = None
    _memory: io.BytesIO | None = None

    def write(self, data: Any) -> int:
        """Write all of `data` at the current position."""
        if self._memory is None:
            start = self.tell()
            try:
                rest = memoryview(data)
                while rest:
                    rest = rest[super().write(rest) :]
                return len(data)
            except OSError as error:
                self._go_on_in_memory(error, start)
        assert self._memory is not None
        return self._memory.write(data)

    def truncate(self, size: int | None = None) -> int:
        """Set the length of the file."""
        if self._memory is None:
            try:
                return super().truncate(size)
            except OSError as error:
                self._go_on_in_memory(error, self.tell())
        assert self._memory is not None
        size = self._memory.tell() if size is None else size
        lacking = size - len(self._memory.getbuffer())
        if lacking > 0:
            position = self._memory.tell()
            self._memory.seek(0, io.SEEK_END)
            self._memory.write(bytes(lacking))
            self._memory.seek(position)
        return self._memory.truncate(size)

    def seek(self, position: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position."""
        return super().seek(position, whence) if self._memory is None else self._memory.seek(position, whence)

    def tell(self) -> int:
        """Return the position."""
        return super().tell() if self._memory is None else self._memory.tell()

    def readinto(self, buffer: Any) -> int:
        """Read bytes from the current position."""
        return super().readinto(buffer) if self._memory is None else self._memory.readinto(buffer)

    def _go_on_in_memory(self, error: OSError, position: int) -> None:
        self.failure = error
        super().seek(0)
        self._memory = io.BytesIO(super().readall())
        self._memory.seek(position)
