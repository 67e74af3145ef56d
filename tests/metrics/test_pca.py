import numpy as np
import pytest
from sklearn.decomposition import PCA

from state_rag.metrics import pca as spaces


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
    monkeypatch.setattr(spaces, "BLOCK_VALUES", 16 * 30)
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


@pytest.fixture
def many_genes(monkeypatch):
    """Take 1,100 genes for many, so that tests are quick."""
    monkeypatch.setattr(spaces, "LANCZOS_GENES", 1000)


def of_many_genes(n=300, genes=1100, seed=0):
    """Return cells with some strong directions in noise, as real ones have."""
    rng = np.random.default_rng(seed)
    strong = rng.normal(size=(n, 12)) @ (rng.normal(size=(12, genes)) * np.linspace(2, 0.3, 12)[:, None])
    return (strong + rng.normal(size=(n, genes)) + 3).astype(np.float32)


@pytest.mark.usefixtures("many_genes")
@pytest.mark.parametrize("n", [300, 1500])
def test_many_genes_have_the_coordinates_of_the_full_solver(n, monkeypatch):
    x = of_many_genes(n)
    found = spaces.fit_pca(np.array_split(x, 4), 50)
    monkeypatch.setattr(spaces, "LANCZOS_GENES", 10**6)
    full = spaces.fit_pca([x], 50)
    np.testing.assert_allclose(found.project(x), full.project(x), atol=1e-6)
    np.testing.assert_allclose(found.variance, full.variance, rtol=1e-9)


@pytest.mark.usefixtures("many_genes")
def test_many_genes_are_fitted_the_same_every_time():
    x = of_many_genes(100)
    np.testing.assert_array_equal(spaces.fit_pca([x], 20).components, spaces.fit_pca([x], 20).components)


@pytest.mark.usefixtures("many_genes")
@pytest.mark.parametrize("distinct", [1, 2, 5])
def test_many_genes_of_few_distinct_cells_leave_orthonormal_components(distinct):
    x = np.repeat(of_many_genes(distinct), 12, axis=0)
    space = spaces.fit_pca([x], 10)
    np.testing.assert_allclose(space.components.T @ space.components, np.eye(10), atol=1e-8)
    centred = x.astype(float) - x.mean(axis=0, dtype=float)
    np.testing.assert_allclose(space.project(x) @ space.components.T, centred, atol=1e-5)
