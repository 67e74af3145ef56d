import numpy as np
import pytest
from sklearn.decomposition import PCA

from state_rag.evaluation import spaces


def cells(n=200, genes=30, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(n, genes)) @ np.diag(np.linspace(3, 0.2, genes)) + 5).astype(np.float32)


def test_projections_equal_scikit_learns_up_to_sign():
    x = cells()
    space = spaces.fit_pca([x], 8)
    theirs = PCA(8, svd_solver="full").fit(x.astype(float))
    np.testing.assert_allclose(np.abs(space.project(x)), np.abs(theirs.transform(x.astype(float))), atol=1e-4)
    np.testing.assert_allclose(space.variance, theirs.explained_variance_, rtol=1e-5)


def test_neither_blocks_nor_order_of_cells_matter(monkeypatch):
    monkeypatch.setattr(spaces, "BLOCK", 16)
    x = cells()
    order = np.random.default_rng(1).permutation(len(x))
    one, many = spaces.fit_pca([x], 5), spaces.fit_pca(np.array_split(x[order], 13), 5)
    np.testing.assert_allclose(many.project(x), one.project(x), atol=1e-8)


def test_few_cells_or_genes_leave_fewer_components():
    assert spaces.fit_pca([cells(4)], 50).components.shape == (30, 3)
    assert spaces.fit_pca([cells(60, 7)], 50).components.shape == (7, 7)


def test_no_cells_are_an_error():
    with pytest.raises(ValueError, match="no cells"):
        spaces.fit_pca([])
