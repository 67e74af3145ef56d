from pathlib import Path

import anndata
import numpy as np
import pandas as pd
from scipy import sparse

SMALL = {
    "n_perturbations": 12,
    "n_modules": 4,
    "n_genes": 30,
    "n_hvgs": 20,
    "cells_per_condition": 6,
    "controls_per_line": 15,
    "embedding_width": 16,
    "gem_groups_per_line": 2,
}
SHARED = Path(__file__).parents[2] / "../shared/data"


def make_adata(n_cells=60, n_genes=8, counts=False, seed=0):
    """Three lines x (control + 4 perturbations), log-normalised unless `counts`."""
    rng = np.random.default_rng(seed)
    values = rng.poisson(2.0, (n_cells, n_genes)).astype(np.float64)
    if not counts:
        values = np.log1p(values * rng.uniform(0.7, 1.3, (n_cells, 1)))
    obs = pd.DataFrame(
        {
            "perturbation": pd.Categorical([["ctrl", "AARS", "KARS", "WARS", "RPL3"][i % 5] for i in range(n_cells)]),
            "cell_type": pd.Categorical([["a549", "k562", "T.cell 1"][(i // 5) % 3] for i in range(n_cells)]),
            "batch": pd.Categorical([str(i % 2) for i in range(n_cells)]),
        },
        index=[f"c{i}" for i in range(n_cells)],
    )
    return anndata.AnnData(
        X=sparse.csr_matrix(values), obs=obs, var=pd.DataFrame(index=[f"G{i}" for i in range(n_genes)])
    )


def load_batches(toml_path, *, pert_col, cell_type_key, batch_col, control_pert, embed_key="X_hvg"):
    """Open a split with upstream's own loader; return the module and one batch of each part."""
    from cell_load.data_modules import PerturbationDataModule
    from cell_load.utils.data_utils import GlobalH5MetadataCache

    GlobalH5MetadataCache()._cache.clear()
    module = PerturbationDataModule(
        toml_config_path=str(toml_path),
        batch_size=2,
        num_workers=0,
        pert_col=pert_col,
        batch_col=batch_col,
        cell_type_key=cell_type_key,
        control_pert=control_pert,
        embed_key=embed_key,
        output_space="gene" if embed_key == "X_hvg" else "all",
        cell_sentence_len=4,
    )
    module.setup()
    loaders = (module.train_dataloader(), module.val_dataloader(), module.test_dataloader())
    return module, [next(iter(loader)) for loader in loaders]
