"""Whether upstream can read a file of cells."""

from pathlib import Path

from state_rag.cell_files import CellFile, is_group, is_store
from state_rag.errors import StateRagError
from state_rag.h5ad import is_categorical, read_column
from state_rag.names import suggest

_PREPARE = "Run `state-rag data prepare {path}`, which writes a file that upstream can read."


def refuse_unreadable(
    file: CellFile,
    path: Path,
    pert_col: str,
    cell_type_key: str,
    batch_col: str,
    embed_key: str | None,
    *,
    upstream: bool = True,
) -> None:
    """Refuse an open file whose layout upstream fails on; `embed_key` None stands for X.

    Where upstream does not read it, a zarr store is no reason.

    Raises
    ------
    StateRagError
        If a column is missing or not categorical, or upstream cannot read the matrix or the names of the genes.
    """
    prepare = _PREPARE.format(path=path)
    if upstream and is_store(path):
        raise StateRagError(
            f"{path}: a zarr store, and upstream reads h5ad files only. Write it as one: "
            f"`anndata.read_zarr({str(path)!r}).write_h5ad(...)`. `state-rag evidence fit` reads it as it is."
        )
    for column, flag in ((pert_col, "data.kwargs.pert_col"), (cell_type_key, "data.kwargs.cell_type_key")):
        _, codes = read_column(file, column, flag)
        if not is_categorical(file, column):
            raise StateRagError(f"{path}: obs column {column!r} is not stored as categorical. {prepare}")
        if (codes < 0).any():
            raise StateRagError(
                f"{path}: obs column {column!r} has no value for {int((codes < 0).sum()):,} cells, which upstream "
                f"would take for cells of another kind. {prepare}"
            )
    read_column(file, batch_col, "data.kwargs.batch_col")
    if embed_key is not None and embed_key not in file.get("obsm", {}):
        present = ", ".join(sorted(file["obsm"])) if "obsm" in file else ""
        raise StateRagError(
            f"{path}: no obsm[{embed_key!r}] (from data.kwargs.embed_key); present: {present or 'none'}"
            f"{suggest([embed_key], file.get('obsm', ()))}. Set embed_key "
            f"to one of them, or to null for the whole of X." + (f" {prepare}" if embed_key == "X_hvg" else "")
        )
    matrix = file.get("X")
    if is_group(matrix) and matrix.attrs.get("encoding-type") != "csr_matrix":
        raise StateRagError(f"{path}: X is stored as {matrix.attrs.get('encoding-type')}, expected CSR. {prepare}")
    var = file.get("var", {})
    if not any(name in var for name in ("gene_name", "gene_name_index", "_index", "feature")):
        index = file["var"].attrs.get("_index") if "var" in file else None
        raise StateRagError(
            f"{path}: upstream finds no gene names: the var index has the name {index!r}, expected none. {prepare}"
        )
