"""Values of X as upstream needs them: float32, row by row, log-normalised."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from state_rag.contract.feature_names import HVG, MemoryMatrices, column_names, gene_names
from state_rag.contract.scale import LARGEST_LOG, Scale
from state_rag.contract.space import read_space
from state_rag.datasets.preparing.alike import kept_scale, rescale
from state_rag.errors import StateRagError
from state_rag.threads import torch_threads_kept

if TYPE_CHECKING:
    import anndata


def fix_values(
    adata: "anndata.AnnData", path: Path, total: float | None, changes: list[str], before: Scale | None = None
) -> None:
    """Check X; make it float32, CSR where sparse, and log-normalised, to `total` where one is wanted.

    `before` is the scale of X before genes were taken out of it, which then tells what cells were normalised to.
    """
    from scipy import sparse

    matrix: Any = adata.X
    if matrix is None:
        raise StateRagError(f"{path}: has no X. Expected counts or log-normalised expression, cells x genes.")
    if sparse.issparse(matrix) and matrix.format != "csr":
        changes.append(f"stored X row by row (CSR, was {matrix.format.upper()})")
        matrix = matrix.tocsr()
    if sparse.issparse(matrix):
        matrix.sum_duplicates()
    values = matrix.data if sparse.issparse(matrix) else np.asarray(matrix)
    if not np.isfinite(values).all():
        raise StateRagError(
            f"{path}: X holds {int((~np.isfinite(values)).sum()):,} NaN or infinite values. Give counts or "
            "log-normalised expression without them."
        )
    if values.size and values.min() < 0:
        raise StateRagError(
            f"{path}: X holds negative values (least {float(values.min()):.3g}), so it was centred or scaled. Give "
            "counts or log-normalised expression; the unscaled matrix may lie in `raw` or `layers` of the file."
        )
    if matrix.dtype != np.float32:
        changes.append(f"stored X as float32 (was {matrix.dtype})")
        matrix = matrix.astype(np.float32)
    adata.X = matrix
    scale = read_space(MemoryMatrices(adata), "X").scale
    whole = scale.kind == "counts" and bool(np.all(values == np.floor(values)))
    if whole or scale.kind == "linear" or (values.size and float(values.max()) > LARGEST_LOG):
        _log_normalise(adata, whole, scale.maximum, total, changes)
        return
    adata.X = rescale(adata.X, kept_scale(adata.X, scale, before), total, changes)
    if "log1p" not in adata.uns:
        adata.uns["log1p"] = {}
        changes.append(f"marked X as log1p-transformed (largest value {scale.maximum:.2f}, not whole numbers)")


def _log_normalise(
    adata: "anndata.AnnData", whole: bool, largest: float, total: float | None, changes: list[str]
) -> None:
    """Scale counts to a total (the median depth) and take log1p; data scaled but not logged only get the log."""
    import scanpy

    adata.uns.pop("log1p", None)
    if whole:
        with torch_threads_kept():
            scanpy.pp.normalize_total(adata, target_sum=total)
        depth = "the median depth" if total is None else f"{total:,.0f}"
        changes.append(f"X held counts (whole numbers): scaled each cell to {depth} and took log1p")
    else:
        changes.append(f"X was not log-transformed (largest value {largest:.4g}): took log1p")
    with torch_threads_kept():
        scanpy.pp.log1p(adata)
    adata.uns["log1p"] = {}
    if "X_hvg" in adata.obsm:
        names = column_names(MemoryMatrices(adata), HVG).names
        if names is not None and set(names) <= set(genes := gene_names(adata.var)):
            adata.var["highly_variable"] = np.isin(genes, names)
        del adata.obsm["X_hvg"]
        changes.append("left out obsm['X_hvg'], which came from X as it was")
