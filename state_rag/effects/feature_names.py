"""Names of a matrix's columns, as cell-load finds them: `var/gene_name` or the index, for `X_hvg` those of the HVGs."""

from typing import TYPE_CHECKING

import h5py
import numpy as np
import pandas as pd

if TYPE_CHECKING:
    import anndata


def names_in_file(file: h5py.File, matrix: str) -> list[str] | None:
    """Return the names of the columns of `X` or `obsm/NAME` in an h5ad file; None where they cannot be told."""
    from anndata.io import read_elem

    hvg_names = file["uns/hvg_names"].asstr()[:] if "uns/hvg_names" in file else None
    return _names(read_elem(file["var"]), matrix, hvg_names)


def names_in_anndata(adata: "anndata.AnnData", matrix: str) -> list[str] | None:
    """Return the names of the columns of `X`, `layers/NAME` or `obsm/NAME`; None where they cannot be told."""
    return _names(adata.var, matrix, adata.uns.get("hvg_names"))


def _names(var: pd.DataFrame, matrix: str, hvg_names: np.ndarray | None) -> list[str] | None:
    names = var["gene_name"].astype(str) if "gene_name" in var.columns else var.index.to_series().astype(str)
    if matrix == "X" or matrix.startswith("layers/"):
        return names.tolist()
    if matrix == "obsm/X_hvg":
        if "highly_variable" in var.columns:
            return names[var["highly_variable"].to_numpy(dtype=bool)].tolist()
        if hvg_names is not None:
            return [str(name) for name in hvg_names]
    return None
