"""The matrix of variable genes, `obsm["X_hvg"]`: kept where it is sound, else made."""

from typing import TYPE_CHECKING, Any

import numpy as np

from state_rag.contract.feature_names import HVG, MemoryMatrices, gene_names
from state_rag.contract.space import not_finite, read_space, unsuited

if TYPE_CHECKING:
    import anndata

DEFAULT_HVGS = 2000


def fix_hvgs(adata: "anndata.AnnData", n_hvgs: int | None, changes: list[str]) -> None:
    """Make `obsm["X_hvg"]`, or bring the one there is to dense float32."""
    from scipy import sparse

    from state_rag.datasets.hvg import highly_variable

    if n_hvgs is None and _keeps_hvgs(adata, changes):
        return
    own = adata.var.get("highly_variable")
    if own is not None and n_hvgs is None and own.to_numpy(dtype=bool).any():
        mask = own.to_numpy(dtype=bool)
        origin = "var['highly_variable'] of the file"
    else:
        mask = highly_variable(adata, DEFAULT_HVGS if n_hvgs is None else n_hvgs)
        origin = "all genes, since there are no more" if mask.all() else "the most variable genes, by scanpy"
    adata.var["highly_variable"] = mask
    chosen: Any = adata.X[:, mask]  # type: ignore[index]
    adata.obsm["X_hvg"] = (chosen.toarray() if sparse.issparse(chosen) else np.array(chosen)).astype(np.float32)
    changes.append(f"made obsm['X_hvg'] from {int(mask.sum()):,} genes ({origin})")


def _keeps_hvgs(adata: "anndata.AnnData", changes: list[str]) -> bool:
    """Keep an `X_hvg` that is there, as dense float32, if its values and names are sound; else take it away."""
    from scipy import sparse

    present: Any = adata.obsm.get("X_hvg")
    if present is None:
        return False
    space = read_space(MemoryMatrices(adata), HVG)
    wrong = not_finite(space) or next(iter(unsuited(space) or ()), "")
    if space.note or (not wrong and space.names is None and "highly_variable" in adata.var):
        wrong = space.note or "obsm['X_hvg'] has not the genes that var['highly_variable'] says."
    if wrong:
        if space.names is not None and set(space.names) <= set(genes := gene_names(adata.var)):
            adata.var["highly_variable"] = np.isin(genes, space.names)
        elif space.note:
            adata.var = adata.var.drop(columns="highly_variable", errors="ignore")
        adata.uns.pop("hvg_names", None)
        changes.append(f"left out obsm['X_hvg'] as it was: {wrong}")
        return False
    if sparse.issparse(present) or not isinstance(present, np.ndarray) or present.dtype != np.float32:
        dense = present.toarray() if sparse.issparse(present) else np.asarray(present)
        adata.obsm["X_hvg"] = dense.astype(np.float32)
        changes.append("stored obsm['X_hvg'] as a dense float32 matrix")
    return True
