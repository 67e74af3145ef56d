import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from state_rag.embeddings.factor import factor


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 12), st.integers(1, 6), st.integers(0, 1000))
def test_products_of_the_vectors_are_the_kernel(count, rank, seed):
    vectors = np.random.default_rng(seed).normal(size=(count, rank))
    kernel = vectors @ vectors.T
    found = factor(kernel)
    assert found.shape[1] <= min(count, rank)
    np.testing.assert_allclose(found @ found.T, kernel, atol=1e-4 * max(1, np.abs(kernel).max()))


def test_a_large_kernel_keeps_its_leading_directions(caplog):
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(300, 40)) * 0.8 ** np.arange(40)
    kernel = vectors @ vectors.T
    sizes = np.sort(np.linalg.eigvalsh(kernel))[::-1]
    with caplog.at_level("INFO"):
        found = factor(kernel, exact=100, width=10)
    assert found.shape == (300, 10)
    np.testing.assert_allclose((found**2).sum(0), sizes[:10], rtol=1e-3)
    lost = 100 * (1 - sizes[:10].sum() / sizes.sum())
    assert f"10 directions are kept, {lost:.1f} % is lost" in caplog.text


def test_what_is_like_nothing_has_a_row_of_zeros():
    found = factor(np.diag([1.0, 0.0, 2.0]))
    assert found[1].tolist() == [0, 0]
    assert factor(np.zeros((0, 0))).shape == (0, 0)
    assert factor(np.zeros((2, 2))).shape == (2, 0)


@pytest.mark.parametrize("exact", [10, 1])
def test_the_same_kernel_gives_the_same_vectors(exact):
    kernel = np.corrcoef(np.random.default_rng(0).normal(size=(5, 9)))
    assert np.array_equal(factor(kernel, exact, 3), factor(kernel, exact, 3))
