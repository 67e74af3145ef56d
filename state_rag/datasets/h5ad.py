"""Open h5ad files with errors that name the file, read `obs` without the matrix, write without half files."""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from state_rag.errors import StateRagError
from state_rag.files import atomic_path

if TYPE_CHECKING:
    import anndata


@contextmanager
def open_h5ad(path: str | os.PathLike[str]) -> Iterator[h5py.File]:
    """Open an h5ad file for reading.

    Yields
    ------
    h5py.File
        The open file; it has an `obs` group.

    Raises
    ------
    StateRagError
        If the file is missing, is no HDF5 file, is truncated or has no `obs` table.
    """
    path = Path(path)
    if not path.is_file():
        raise StateRagError(f"{path}: no such file. Give the path of an existing h5ad file.")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        size = path.stat().st_size
        raise StateRagError(
            f"{path}: {size:,} bytes that cannot be read as HDF5 ({_first_line(error)}). The file is truncated or not "
            "an h5ad file; copy or download it again."
        ) from error
    with file:
        if not isinstance(file.get("obs"), h5py.Group):
            raise StateRagError(
                f"{path}: no `obs` table inside (found: {', '.join(sorted(file)) or 'nothing'}). Expected an h5ad file "
                "as anndata 0.7 or later writes it; open it with anndata and write it again."
            )
        yield file


def obs_columns(file: h5py.File) -> list[str]:
    """Return the names of the `obs` columns, without the index."""
    obs = file["obs"]
    index = obs.attrs.get("_index", "_index")
    return sorted(name for name in obs if name not in (index, "__categories"))


def read_column(file: h5py.File, column: str, flag: str) -> tuple[np.ndarray, np.ndarray]:
    """Read one `obs` column as categories and codes.

    Parameters
    ----------
    file
        An open h5ad file.
    column
        Name of the column.
    flag
        How the user names the column (`data.kwargs.pert_col`, `--pert-col`); goes into the error.

    Returns
    -------
    tuple of numpy.ndarray
        Category names, str `[C]`, and the category of each cell, int `[cells]`; -1 where the value is missing.

    Raises
    ------
    StateRagError
        If there is no such column; the columns present are listed.
    """
    obs = file["obs"]
    if column not in obs or column not in obs_columns(file):
        raise StateRagError(
            f"{file.filename}: no obs column {column!r} (from {flag}). Columns present: "
            f"{', '.join(obs_columns(file)) or 'none'}. Set {flag} to one of them."
        )
    node = obs[column]
    try:
        if isinstance(node, h5py.Group) and "categories" in node:
            return _as_text(node["categories"][:]), node["codes"][:].astype(np.int64)
        if isinstance(node, h5py.Dataset) and "categories" in node.attrs:  # as anndata wrote it before version 0.8
            return _as_text(file[node.attrs["categories"]][:]), node[:].astype(np.int64)
        if isinstance(node, h5py.Group):  # nullable integer, boolean or string: `values` and `mask`
            values, mask = node["values"][:], node["mask"][:].astype(bool)
        else:
            values = node[:]
            mask = np.isnan(values) if values.dtype.kind == "f" else np.zeros(len(values), dtype=bool)
    except (KeyError, OSError) as error:
        raise StateRagError(
            f"{file.filename}: obs column {column!r} cannot be read ({_first_line(error)}). The file is damaged; "
            "copy or download it again."
        ) from error
    categories, codes = np.unique(values, return_inverse=True)
    return _as_text(categories), np.where(mask, -1, codes).astype(np.int64)


def is_categorical(file: h5py.File, column: str) -> bool:
    """Tell whether an `obs` column is stored as a categorical, the only storage that upstream reads names from."""
    node = file["obs"][column]
    return isinstance(node, h5py.Group) and "categories" in node


def write_h5ad(adata: "anndata.AnnData", path: str | os.PathLike[str]) -> Path:
    """Write an AnnData object; `path` holds the whole file afterwards, or what it held before.

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
                raise sink.failure or error from error
            if sink.failure is not None:
                raise sink.failure
    except OSError as error:
        raise StateRagError(
            f"{path}: cannot be written ({_first_line(error)}). Free disk space or choose another place; no "
            "incomplete file was left."
        ) from error
    return path


class _Sink(io.FileIO):
    """The file that HDF5 writes to. After the first failure it accepts and forgets everything.

    HDF5 cannot close a file whose last writes fail: it complains at every attempt and brings the process down at exit.
    So the failure is raised once, which ends the writing, and then kept for the caller while HDF5 closes in peace.
    """

    failure: OSError | None = None

    def write(self, data: Any) -> int:
        """Write all of `data` at the current position."""
        if self.failure is None:
            try:
                rest = memoryview(data)
                while rest:
                    rest = rest[super().write(rest) :]
            except OSError as error:
                self.failure = error
                raise
        return len(data)

    def truncate(self, size: int | None = None) -> int:
        """Set the length of the file."""
        if self.failure is None:
            try:
                return super().truncate(size)
            except OSError as error:
                self.failure = error
                raise
        return size or 0


def _as_text(values: np.ndarray) -> np.ndarray:
    """Return stored names as str."""
    return np.array([v.decode("utf-8", "replace") if isinstance(v, bytes) else str(v) for v in values], dtype=str)


def _first_line(error: BaseException) -> str:
    """Return the first line of an exception's text, which is where HDF5 says what is wrong."""
    return (str(error) or type(error).__name__).splitlines()[0]
