"""What the columns of a matrix are called, and whether the matrix bears the names out.

`X` has its names in `var`. For `obsm["X_hvg"]`, which is consumed by position, they are those of
`var["highly_variable"]` or `uns["hvg_names"]`; both are compared with the values of `X`, and where neither is there or
either is wrong, each column is looked for in `X` itself. Other spaces have no names.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pandas as pd

from state_rag.cell_files import CellFile, is_group, n_cells, text_at
from state_rag.contract.matrices import ArrayRows, Rows, open_rows
from state_rag.errors import StateRagError
from state_rag.names.gene_ids import unversioned, unversioned_genes

if TYPE_CHECKING:
    import anndata

HVG = "obsm/X_hvg"
UNKNOWN = "unknown"

_SAMPLE = 256
"""Cells that names are compared on; four times as many are read where these do not tell columns apart."""
_FEW = 5
_ALIKE = 0.5


@dataclass(frozen=True)
class ColumnNames:
    """Names of a matrix's columns.

    Attributes
    ----------
    names
        One for each column; None where they cannot be told.
    origin
        Where they come from: `var`, `var/highly_variable`, `uns/hvg_names`, `values of X`, or `unknown`.
    note
        What contradicts the names that the file declares; empty where nothing does.
    """

    names: tuple[str, ...] | None
    origin: str
    note: str = ""


class Matrices(Protocol):
    """The matrices of one set of cells, in a file or in memory."""

    @property
    def n_cells(self) -> int:
        """How many cells there are."""
        ...

    @property
    def var(self) -> pd.DataFrame:
        """The table of genes."""
        ...

    @property
    def hvg_names(self) -> Sequence[str] | None:
        """What `uns["hvg_names"]` holds."""
        ...

    def rows(self, matrix: str) -> Rows | None:
        """Return `X`, `layers/NAME` or `obsm/NAME` for reading by rows; None where there is none."""
        ...

    def dtype(self, matrix: str) -> str:
        """Return the type of the stored values."""
        ...


class FileMatrices:
    """The matrices of an open file of cells."""

    def __init__(self, file: CellFile):
        from anndata.io import read_elem

        self.file = file
        self.var: pd.DataFrame = read_elem(file["var"]) if "var" in file else pd.DataFrame()
        if not isinstance(self.var, pd.DataFrame):
            raise StateRagError(f"{file.filename}: 'var' is no table of genes; the file is damaged. Write it again.")
        names = text_at(file, "uns/hvg_names")
        self.hvg_names: Sequence[str] | None = None if names is None else names.tolist()

    @property
    def n_cells(self) -> int:
        """How many cells there are."""
        return n_cells(self.file)

    def rows(self, matrix: str) -> Rows | None:
        """Return a matrix for reading by rows; None where there is none, or it lies by columns."""
        if matrix not in self.file:
            return None
        try:
            return open_rows(self.file, matrix)
        except StateRagError:
            return None

    def dtype(self, matrix: str) -> str:
        """Return the type of the stored values."""
        node = self.file[matrix]
        return str((node["data"] if is_group(node) else node).dtype)


class MemoryMatrices:
    """The matrices of an AnnData object that lies in memory."""

    def __init__(self, adata: "anndata.AnnData"):
        self.adata = adata

    @property
    def n_cells(self) -> int:
        """How many cells there are."""
        return int(self.adata.n_obs)

    @property
    def var(self) -> pd.DataFrame:
        """The table of genes."""
        return self.adata.var

    @property
    def hvg_names(self) -> Sequence[str] | None:
        """What `uns["hvg_names"]` holds."""
        return self.adata.uns.get("hvg_names")

    def _values(self, matrix: str) -> Any:
        kind, _, name = matrix.partition("/")
        if kind == "X" and not name:
            return self.adata.X
        return {"layers": self.adata.layers, "obsm": self.adata.obsm}[kind].get(name)

    def rows(self, matrix: str) -> Rows | None:
        """Return a matrix for reading by rows; None where there is none, or it was left in its file."""
        if self.adata.isbacked and not matrix.startswith("obsm/"):
            return None
        values = self._values(matrix)
        if values is None:
            return None
        return ArrayRows(values.to_numpy() if isinstance(values, pd.DataFrame) else values)

    def dtype(self, matrix: str) -> str:
        """Return the type of the stored values."""
        values = self._values(matrix)
        return str(values.to_numpy().dtype if isinstance(values, pd.DataFrame) else values.dtype)


def is_expression(matrix: str) -> bool:
    """Whether a matrix's columns are genes: `X`, or the highly variable ones of it."""
    return matrix in ("X", HVG)


def names_in_file(file: CellFile, matrix: str) -> list[str] | None:
    """Return the names of the columns of `X` or `obsm/NAME` in a file of cells; None where they cannot be told."""
    names = column_names(FileMatrices(file), matrix).names
    return None if names is None else list(names)


def names_in_anndata(adata: "anndata.AnnData", matrix: str) -> list[str] | None:
    """Return the names of the columns of `X`, `layers/NAME` or `obsm/NAME`; None where they cannot be told."""
    names = column_names(MemoryMatrices(adata), matrix).names
    return None if names is None else list(names)


def gene_names(var: pd.DataFrame) -> list[str]:
    """Return what genes are called: `gene_name` where there is that column, as STATE reads it, else the index.

    Where several genes have one `gene_name` and the index tells them apart (Ensembl ids), it is the index too. Ensembl
    ids lose their version.

    Raises
    ------
    StateRagError
        If a gene stands there in two versions of its Ensembl id.
    """
    index = var.index.astype(str)
    if "gene_name" not in var.columns:
        return unversioned_genes(index.tolist())
    names = var["gene_name"].astype(str)
    return unversioned_genes(index.tolist() if not names.is_unique and index.is_unique else names.tolist())


def column_names(matrices: Matrices, matrix: str) -> ColumnNames:
    """Tell what the columns of a matrix are called.

    Parameters
    ----------
    matrices
        The cells.
    matrix
        `X`, `layers/NAME` or `obsm/NAME`.
    """
    if matrix == "X" or matrix.startswith("layers/"):
        return ColumnNames(tuple(gene_names(matrices.var)), "var")
    frame = getattr(matrices, "adata", None)
    own = frame.obsm.get(matrix.removeprefix("obsm/")) if frame is not None else None
    if isinstance(own, pd.DataFrame):
        return ColumnNames(tuple(unversioned_genes(map(str, own.columns))), matrix)
    rows = matrices.rows(matrix) if matrix == HVG else None
    if rows is None:
        return ColumnNames(None, UNKNOWN)
    genes = gene_names(matrices.var)
    declared, origin = _declared(matrices, genes, rows.shape[1])
    expression = matrices.rows("X")
    if expression is None or expression.shape[1] != len(genes):
        return ColumnNames(declared, origin)
    note = ""
    if declared is not None:
        note = _contradiction(expression, rows, genes, declared, origin)
        if not note:
            return ColumnNames(declared, origin)
    for cells in (_SAMPLE, 4 * _SAMPLE):
        found = _found_in(expression, rows, genes, cells)
        if found is not None:
            return ColumnNames(found, "values of X", note)
    return ColumnNames(None, UNKNOWN, note)


def _declared(matrices: Matrices, genes: list[str], width: int) -> tuple[tuple[str, ...] | None, str]:
    """Return the names that the file gives for `X_hvg`, as STATE would take them."""
    if "highly_variable" in matrices.var.columns:
        mask = matrices.var["highly_variable"].to_numpy(dtype=bool)
        if mask.sum() == width:
            return tuple(np.asarray(genes, dtype=object)[mask].tolist()), "var/highly_variable"
    if matrices.hvg_names is not None and len(matrices.hvg_names) == width:
        return tuple(unversioned(str(name)) for name in matrices.hvg_names), "uns/hvg_names"
    return None, UNKNOWN


def _sample(expression: Rows, rows: Rows, cells: int) -> tuple[np.ndarray, np.ndarray]:
    """Return evenly spaced rows of both matrices."""
    total = min(expression.shape[0], rows.shape[0])
    chosen = np.unique(np.linspace(0, max(total - 1, 0), min(cells, total)).astype(np.int64))
    return expression.read(chosen), rows.read(chosen)


def _contradiction(expression: Rows, rows: Rows, genes: list[str], declared: tuple[str, ...], origin: str) -> str:
    """Compare columns with those of `X` that have their names: equal, or at least zero in the same cells."""
    place = {name: number for number, name in enumerate(genes)}
    there = [number for number, name in enumerate(declared) if name in place]
    if not there:
        return ""
    values, own = _sample(expression, rows, _SAMPLE)
    values, own = values[:, [place[declared[number]] for number in there]], own[:, there]
    if np.array_equal(values, own) or not ((values == 0).any() and (own == 0).any()):
        return ""  # where nothing is zero (scaled values), the names are all there is
    either, both = ((values != 0) | (own != 0)).sum(axis=0), ((values != 0) & (own != 0)).sum(axis=0)
    wrong = np.flatnonzero((either >= _FEW) & (both < _ALIKE * either))
    if not len(wrong):
        return ""
    first = declared[there[int(wrong[0])]]
    return (
        f"{len(wrong)} of {rows.shape[1]} columns of obsm['X_hvg'] are not those of X that {origin} says "
        f"(column {there[int(wrong[0])]} is not {first})"
    )


def _found_in(expression: Rows, rows: Rows, genes: list[str], cells: int) -> tuple[str, ...] | None:
    """Look every column up in `X`, by its values or else by where it is zero; None unless all are found."""
    values, own = _sample(expression, rows, cells)
    for kind in (lambda block: block, lambda block: block != 0):
        known: dict[bytes, str | None] = {}
        for name, column in zip(genes, np.ascontiguousarray(kind(values).T), strict=True):
            key = column.tobytes()
            known[key] = None if key in known else name
        found = [known.get(column.tobytes()) for column in np.ascontiguousarray(kind(own).T)]
        if all(found) and len(set(found)) == len(found):
            return tuple(str(name) for name in found)
    return None
