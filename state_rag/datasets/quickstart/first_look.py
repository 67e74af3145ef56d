"""What an h5ad file holds, read without its matrix: obs columns with few labels, and some values of X.

A file of 50 GB costs what its `obs` columns cost: one column at a time, as codes; of a matrix a few thousand values are
read, in slices spread over it. What cannot be read is passed over with a reason, never an error.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from state_rag.h5ad import obs_columns, open_h5ad, read_column

SLICES, SLICE = 16, 4096
"""Slices of a column or matrix that are looked at, and how many values each has."""

MOST_NUMBERS = 500
"""A column of whole numbers with more different ones is a measurement, not labels."""

_LARGEST_LOG = 15.0  # natural log of three million: no log-normalised count is larger


@dataclass(frozen=True)
class Column:
    """An obs column whose values are labels.

    Attributes
    ----------
    name
        Its name.
    labels
        Labels that have cells, str `[C]`.
    codes
        Label of each cell, int32 `[cells]`; -1 where there is none.
    is_text
        Whether the labels are stored as text; else as numbers or truth values.
    """

    name: str
    labels: np.ndarray
    codes: np.ndarray
    is_text: bool

    @property
    def counts(self) -> np.ndarray:
        """Cells of each label, `[C]`."""
        return np.bincount(self.codes[self.codes >= 0], minlength=len(self.labels))


@dataclass(frozen=True)
class Values:
    """What a sample of a matrix says.

    Attributes
    ----------
    kind
        `counts`, `log` (log-normalised), `unlogged` (normalised, not logged), `scaled` (negative values), `broken` (NaN
        or infinite) or `empty` (nothing but zeros in the sample, or no value at all).
    largest
        Largest value of the sample.
    """

    kind: str
    largest: float

    @property
    def words(self) -> str:
        """The kind for readers."""
        said = {
            "counts": "counts (whole numbers)",
            "log": "log-normalised",
            "unlogged": "not log-transformed",
            "scaled": "centred or scaled (negative values)",
            "broken": "with NaN or infinite values",
            "empty": "zeros only, where looked at",
        }[self.kind]
        return f"{said}; largest value in a sample {self.largest:.3g}" if self.kind != "empty" else said


@dataclass(frozen=True)
class FirstLook:
    """An h5ad file at a glance.

    Attributes
    ----------
    path, size
        The file and its bytes.
    n_cells, n_genes
        Its shape.
    columns
        The obs columns with labels, by name.
    passed_over
        Other obs columns and why.
    spaces
        Width of each matrix in obsm.
    values
        What samples of `X` (None: no X) and of `obsm["X_hvg"]` (where present) say, by `X` and `X_hvg`.
    genes
        Names of the genes: of the var index and of text columns in var that name genes, upper case.
    """

    path: Path
    size: int
    n_cells: int
    n_genes: int
    columns: dict[str, Column]
    passed_over: dict[str, str]
    spaces: dict[str, int]
    values: dict[str, Values]
    genes: frozenset[str]


def look_at(path: str | os.PathLike[str]) -> FirstLook:
    """Read what can be told without the matrix.

    Raises
    ------
    StateRagError
        If it is no h5ad file.
    """
    path = Path(path)
    columns: dict[str, Column] = {}
    passed_over: dict[str, str] = {}
    with open_h5ad(path) as file:
        for name in obs_columns(file):
            found = _column(file, name)
            if isinstance(found, Column):
                columns[name] = found
            else:
                passed_over[name] = found
        n_cells, n_genes = _shape(file)
        spaces = {name: _width(node) for name, node in file["obsm"].items()} if "obsm" in file else {}
        matrices = {"X": file.get("X"), "X_hvg": file.get("obsm/X_hvg")}
        values = {name: _values(node) for name, node in matrices.items() if node is not None}
        genes = _genes(file)
    return FirstLook(path, path.stat().st_size, n_cells, n_genes, columns, passed_over, spaces, values, genes)


def _column(file: h5py.File, name: str) -> Column | str:
    """Return a column of labels, or why it is none."""
    try:
        node = file["obs"][name]
        is_text = _is_text(file, node)
        if not (isinstance(node, h5py.Group) and "categories" in node) and (why := _no_labels(node)):
            return why
        categories, codes = read_column(file, name, "")
    except Exception as error:  # noqa: BLE001  # HDF5, old layouts and damage raise what they like
        return f"cannot be read ({str(error).splitlines()[0][:80] if str(error) else type(error).__name__})"
    used, codes = np.unique(codes, return_inverse=True)
    shift = int(len(used) > 0 and used[0] < 0)
    labels = categories[used[shift:]]
    if not len(labels):
        return "no values"
    if len(labels) > max(20, len(codes) // 2):
        return "another value in nearly every cell"
    return Column(name, labels, (codes - shift).astype(np.int32), is_text)


def _is_text(file: h5py.File, node: Any) -> bool:
    if isinstance(node, h5py.Group):
        kept = node.get("categories", node.get("values"))
        return kept is None or _holds_text(kept)
    if "categories" in node.attrs:
        return _holds_text(file[node.attrs["categories"]])
    return _holds_text(node)


def _holds_text(node: Any) -> bool:
    return not isinstance(node, h5py.Dataset) or node.dtype.kind in "OSU"


def _no_labels(node: Any) -> str | None:
    """Return why a column that is not categorical holds no labels, by a sample; None where it may."""
    values = node.get("values") if isinstance(node, h5py.Group) else node
    if not isinstance(values, h5py.Dataset) or values.ndim != 1 or "categories" in node.attrs:
        return None
    sample = _sample(values)
    if values.dtype.kind in "iuf":
        finite = sample[np.isfinite(sample)]
        if np.any(finite != np.floor(finite)) or len(np.unique(finite)) > MOST_NUMBERS:
            return "measurements"
        return None
    if len(sample) > 100 and len(set(sample.tolist())) > len(sample) // 2:
        return "another value in nearly every cell"
    return None


def _sample(node: h5py.Dataset) -> np.ndarray:
    """Return values in slices that are spread evenly over the first axis, all of a short one."""
    length = node.shape[0]
    if length <= SLICES * SLICE:
        return np.asarray(node[:])
    starts = np.linspace(0, length - SLICE, SLICES).astype(int)
    return np.concatenate([node[start : start + SLICE] for start in starts])


def _values(node: Any) -> Values:
    stored = node.get("data") if isinstance(node, h5py.Group) else node
    if not isinstance(stored, h5py.Dataset) or not stored.size or stored.dtype.kind not in "iufb":
        return Values("empty", 0.0)
    if stored.ndim == 1:
        sample = _sample(stored)
    else:
        rows = np.unique(np.linspace(0, stored.shape[0] - 1, min(stored.shape[0], 64)).astype(int))
        sample = np.concatenate([np.ravel(stored[row]) for row in rows])
    sample = sample.astype(np.float64)
    if not np.isfinite(sample).all():
        return Values("broken", float("nan"))
    largest = float(sample.max())
    if sample.min() < 0:
        return Values("scaled", largest)
    if not sample.any():
        return Values("empty", 0.0)
    if np.all(sample == np.floor(sample)):
        return Values("counts", largest)
    return Values("unlogged" if largest > _LARGEST_LOG else "log", largest)


def _shape(file: h5py.File) -> tuple[int, int]:
    """Return cells and genes: of X, else the lengths of the two indices."""
    matrix = file.get("X")
    shape = matrix.attrs.get("shape", matrix.attrs.get("h5sparse_shape")) if isinstance(matrix, h5py.Group) else None
    if shape is None and isinstance(matrix, h5py.Dataset) and matrix.ndim == 2:
        shape = matrix.shape
    if shape is not None:
        return int(shape[0]), int(shape[1])
    return _rows(file["obs"]), _rows(file["var"]) if "var" in file else 0


def _rows(table: Any) -> int:
    index = table.get(table.attrs.get("_index", "_index"))
    return index.shape[0] if isinstance(index, h5py.Dataset) else 0


def _width(node: Any) -> int:
    shape = node.attrs.get("shape") if isinstance(node, h5py.Group) else node.shape
    return int(shape[1]) if shape is not None and len(shape) > 1 else 0


def _genes(file: h5py.File) -> frozenset[str]:
    """Return the names of the genes, upper case, under all the names that they have."""
    var = file.get("var")
    if not isinstance(var, h5py.Group):
        return frozenset()
    names: set[str] = set()
    index = var.attrs.get("_index", "_index")
    for column, node in var.items():
        if column != index and not re.search("symbol|name|feature|id", column, re.IGNORECASE):
            continue
        if isinstance(node, h5py.Group):
            node = node.get("categories", node.get("values"))
        if isinstance(node, h5py.Dataset) and node.dtype.kind in "OSU" and node.ndim == 1:
            names.update(
                (value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)).upper()
                for value in node[:]
            )
    return frozenset(names)
