"""Compiled sums by group are those of a plain loop."""

import numpy as np
import pytest
from scipy import sparse

from state_rag.effects import sum_kernels


@pytest.mark.parametrize("density", [0.0, 0.02, 0.6])
@pytest.mark.parametrize("by_group", [True, False])
@pytest.mark.parametrize("buffer", [8, 4096])
def test_sparse_rows(monkeypatch: pytest.MonkeyPatch, density: float, by_group: bool, buffer: int) -> None:
    # a row may be longer than the buffer, and a group may have fewer or more values than there are columns
    rng = np.random.default_rng(0)
    matrix = sparse.random(60, 40, density, format="csr", dtype=np.float32, rng=rng)
    group_of = rng.integers(0, 7, 60)
    order = rng.permutation(60)[:50]
    order = order[np.argsort(group_of[order], kind="stable")] if by_group else order
    start = rng.normal(size=(2, 7, 40))
    expected = start.copy()
    for row in order:
        expected[0, group_of[row]] += matrix[[row]].toarray()[0]
        expected[1, group_of[row]] += matrix[[row]].toarray()[0].astype(float) ** 2
    monkeypatch.setattr(sum_kernels, "BUFFER", buffer)
    add = sum_kernels.add_sparse.py_func if buffer == 8 else sum_kernels.add_sparse  # compiled with its buffer

    add(matrix.data, matrix.indices, matrix.indptr, order, group_of, *start)

    np.testing.assert_allclose(start, expected, rtol=1e-12)


def test_dense_rows() -> None:
    rng = np.random.default_rng(1)
    values, shift = rng.normal(size=(30, 9)).astype(np.float32), rng.normal(size=9)
    group_of, order = rng.integers(0, 4, 30), rng.permutation(30)[:20]
    sums, squares = np.zeros((4, 9)), np.zeros((4, 9))

    sum_kernels.add_dense(values, order, group_of, shift, sums, squares)

    for group in range(4):
        own = values[order][group_of[order] == group].astype(float)
        np.testing.assert_allclose(sums[group], own.sum(0), atol=1e-12)
        np.testing.assert_allclose(squares[group], ((own - shift) ** 2).sum(0), atol=1e-12)
