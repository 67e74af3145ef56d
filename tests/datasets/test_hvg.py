import anndata
import numpy as np

from state_rag.datasets.hvg import highly_variable


def test_the_genes_that_vary_between_cells_are_chosen():
    rng = np.random.default_rng(0)
    counts = rng.poisson(3.0, (300, 100)).astype(np.float32)
    counts[:, [3, 17, 31]] = rng.choice([0, 6], (300, 3))
    mask = highly_variable(anndata.AnnData(np.log1p(counts)), 10)
    assert mask.sum() == 10
    assert mask[[3, 17, 31]].all()


def test_all_genes_are_chosen_when_there_are_no_more():
    assert highly_variable(anndata.AnnData(np.ones((4, 3), dtype=np.float32)), 5).all()
