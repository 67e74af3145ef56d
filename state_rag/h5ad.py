"""Open files of cells with errors that name the file, read `obs` without the matrix.

Files of cells are h5ad files and zarr stores; the latter are read alike by what opens them (`open_cells`), and not
written.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from state_rag.cell_files import CellFile, ZarrStore, as_text, is_group, is_store
from state_rag.errors import StateRagError
from state_rag.files import existing_file
from state_rag.names import suggest

if TYPE_CHECKING:
    pass

_LABELS_READ = 1 << 20
"""Labels that are no categorical are read so many at once."""


def open_cells(path: str | os.PathLike[str]) -> CellFile:
    """Open an h5ad file, or a zarr store, for reading; use it in a `with` block, or close it.

    Returns
    -------
    h5py.File or ZarrStore
        The open file; it has an `obs` group.

    Raises
    ------
    StateRagError
        As `open_h5ad`, or if the store cannot be read.
    """
    path = Path(path)
    return _with_obs(ZarrStore(path), path) if is_store(path) else open_h5ad(path)


def open_h5ad(path: str | os.PathLike[str]) -> h5py.File:
    """Open an h5ad file for reading; use it in a `with` block, or close it.

    Returns
    -------
    h5py.File
        The open file; it has an `obs` group.

    Raises
    ------
    StateRagError
        If the file is missing, is no HDF5 file, is truncated or has no `obs` table.
    """
    path = Path(path)
    existing_file(path, "an h5ad file", (".h5ad", ".h5"))
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        size = path.stat().st_size
        raise StateRagError(
            f"{path}: {size:,} bytes that cannot be read as HDF5 ({first_line(error)}). The file is truncated or not "
            "an h5ad file; copy or download it again."
        ) from error
    return _with_obs(file, path)


def _with_obs(file: CellFile, path: Path) -> CellFile:
    """Return an open file; refuse one without a table of cells."""
    if not is_group(file.get("obs")):
        found = ", ".join(sorted(file)) or "nothing"
        file.close()
        raise StateRagError(
            f"{path}: no `obs` table inside (found: {found}). Expected an h5ad file as anndata 0.7 or later writes it; "
            "open it with anndata and write it again."
        )
    return file


def obs_columns(file: CellFile) -> list[str]:
    """Return the names of the `obs` columns, without the index."""
    obs = file["obs"]
    index = obs.attrs.get("_index", "_index")
    return sorted(name for name in obs if name not in (index, "__categories"))


def read_column(
    file: CellFile, column: str, flag: str, start: int = 0, stop: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Read one `obs` column as categories and codes; text is never held for each cell.

    Parameters
    ----------
    file
        An open file of cells.
    column
        Name of the column.
    flag
        How the user names the column (`data.kwargs.pert_col`, `--pert-col`); goes into the error.
    start, stop
        Only the cells from `start` to before `stop`.

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
            f"{', '.join(obs_columns(file)) or 'none'}{suggest([column], obs_columns(file))}. Set {flag} to one "
            "of them."
        )
    node = obs[column]
    try:
        if is_group(node) and "categories" in node:
            return as_text(node["categories"][:]), node["codes"][start:stop].astype(np.int64)
        if not is_group(node) and "categories" in node.attrs:  # as anndata wrote it before version 0.8
            return as_text(file[node.attrs["categories"]][:]), node[start:stop].astype(np.int64)
        return _coded(node, start, stop)
    except (KeyError, OSError, ValueError) as error:
        raise StateRagError(
            f"{file.filename}: obs column {column!r} cannot be read ({first_line(error)}). The file is damaged; "
            "copy or download it again."
        ) from error


def label_of_each(categories: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Return the label of each cell, str `[cells]`, from what `read_column` returns; empty where it is missing.

    Examples
    --------
    >>> label_of_each(np.array(["a", "b"]), np.array([1, -1, 0])).tolist()
    ['b', '', 'a']
    """
    return np.append(np.asarray(categories, dtype=str), "")[codes]  # -1 is the last


def _coded(node: Any, start: int, stop: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Return the categories and codes of a column that is stored cell by cell, read a stretch at a time."""
    values, mask = (node["values"], node["mask"]) if is_group(node) else (node, None)  # `mask`: where nullable
    first, last, _ = slice(start, stop).indices(values.shape[0])
    found, codes = [], []
    for begin in range(first, last, _LABELS_READ):
        end = min(begin + _LABELS_READ, last)
        own = values[begin:end]
        if mask is not None:
            missing = mask[begin:end].astype(bool)
        else:
            missing = np.isnan(own) if own.dtype.kind == "f" else np.zeros(len(own), dtype=bool)
        categories, code = np.unique(own, return_inverse=True)
        found.append(categories)
        codes.append(np.where(missing, -1, code))
    if not found:
        return np.array([], dtype=str), np.array([], dtype=np.int64)
    every, places = np.unique(np.concatenate(found), return_inverse=True)
    starts = np.cumsum([0, *map(len, found)])
    joined = [
        np.where(code < 0, -1, places[begin + np.maximum(code, 0)])
        for code, begin in zip(codes, starts[:-1].tolist(), strict=True)
    ]
    return as_text(every), np.concatenate(joined).astype(np.int64)


def is_categorical(file: CellFile, column: str) -> bool:
    """Tell whether an `obs` column is stored as a categorical, the only storage that upstream reads names from."""
    node = file["obs"][column]
    return is_group(node) and "categories" in node


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's text, which is where HDF5 says what is wrong."""
    return (str(error) or type(error).__name__).splitlines()[0]
