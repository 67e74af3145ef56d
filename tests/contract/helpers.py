"""Cells of a small log-normalised screen in memory."""

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse


def screen(n_cells=240, n_genes=30, seed=0, every=2):
    """Two lines, `ctrl` and three perturbations; every second gene is highly variable."""
    rng = np.random.default_rng(seed)
    counts = rng.poisson(rng.gamma(2.0, 1.0, n_genes) * rng.uniform(0.5, 2, (n_cells, 1))) + np.eye(n_cells, n_genes)
    values = np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e3).astype(np.float32)
    obs = pd.DataFrame(
        {
            "gene": pd.Categorical([["ctrl", "A", "B", "C"][number % 4] for number in range(n_cells)]),
            "cell_line": pd.Categorical([["k562", "rpe1"][number // 4 % 2] for number in range(n_cells)]),
            "gem_group": pd.Categorical(["1"] * n_cells),
        },
        index=[f"cell{number}" for number in range(n_cells)],
    )
    mask = np.arange(n_genes) % every == 0
    var = pd.DataFrame({"highly_variable": mask}, index=[f"G{number}" for number in range(n_genes)])
    made = ad.AnnData(sparse.csr_matrix(values), obs=obs, var=var)
    made.obsm["X_hvg"] = values[:, mask]
    return made


def reordered(cells, order, hvg_order):
    """The same cells with genes in another order, and the columns of `X_hvg` in a third."""
    other = cells[:, order].copy()
    names = cells.var_names[cells.var["highly_variable"]].to_numpy(dtype=object)
    other.obsm["X_hvg"] = cells.obsm["X_hvg"][:, hvg_order]
    other.uns["hvg_names"] = names[hvg_order]
    del other.var["highly_variable"]
    return other
