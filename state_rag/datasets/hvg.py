"""Highly variable genes, chosen the same way for simulated and prepared screens."""

from typing import TYPE_CHECKING

import numpy as np

from state_rag.threads import torch_threads_kept

if TYPE_CHECKING:
    import anndata


_GENES_PER_BIN = 20


def highly_variable(adata: "anndata.AnnData", n_genes: int) -> np.ndarray:
    """Choose the most variable genes of log-normalised data (scanpy's `seurat` flavour).

    Genes compete within bins of equal mean; small gene sets get fewer bins than scanpy's 20, so that
    no bin is nearly empty.

    Parameters
    ----------
    adata
        Log-normalised data, cells x G genes.
    n_genes
        How many to choose; all genes are chosen when there are no more than that.

    Returns
    -------
    numpy.ndarray
        Boolean mask over the genes, `[G]`, with `min(n_genes, G)` true entries.
    """
    import scanpy

    if adata.n_vars <= n_genes:
        return np.ones(adata.n_vars, dtype=bool)
    bins = min(20, max(1, adata.n_vars // _GENES_PER_BIN))
    with torch_threads_kept():
        table = scanpy.pp.highly_variable_genes(adata, n_top_genes=n_genes, flavor="seurat", n_bins=bins, inplace=False)
    order = np.lexsort((np.arange(adata.n_vars), -np.nan_to_num(table["dispersions_norm"].to_numpy(), nan=-np.inf)))
    mask = np.zeros(adata.n_vars, dtype=bool)
    mask[order[:n_genes]] = True
    return mask
