import numpy as np
import pytest
from scipy import sparse

from state_rag.datasets.preparing.prepare import prepare
from state_rag.errors import StateRagError
from tests.datasets.helpers import make_adata
from tests.datasets.preparing.readings import readable, run, said


@pytest.mark.parametrize("kind", [sparse.csc_matrix, sparse.csr_matrix, np.asarray])
def test_values_survive_every_storage(kind, tmp_path):
    adata = make_adata()
    expected = adata.X.toarray()
    adata.X = kind(expected)
    done, result = run(adata, tmp_path)
    stored = result.X.toarray() if sparse.issparse(result.X) else result.X
    assert result.X.dtype == np.float32
    assert not sparse.issparse(result.X) or result.X.format == "csr"
    np.testing.assert_allclose(stored, expected, rtol=1e-6)
    np.testing.assert_allclose(result.obsm["X_hvg"], expected, rtol=1e-6)
    assert said(done, "stored X as float32 (was float64)") == 1


def test_counts_are_scaled_to_the_median_depth_and_logged(tmp_path):
    adata = make_adata(counts=True)
    counts = adata.X.toarray()
    depth = counts.sum(axis=1, keepdims=True)
    expected = np.log1p(counts / np.where(depth > 0, depth, 1) * np.median(depth[depth > 0]))
    done, result = run(adata, tmp_path)
    np.testing.assert_allclose(result.X.toarray(), expected, rtol=1e-5)
    assert "log1p" in result.uns
    assert said(done, "X held counts") == 1


def test_scaled_values_without_log_only_get_the_log(tmp_path):
    adata = make_adata()
    adata.X = adata.X * 100
    expected = np.log1p(adata.X.toarray())
    done, result = run(adata, tmp_path)
    np.testing.assert_allclose(result.X.toarray(), expected, rtol=1e-5)
    assert said(done, "took log1p") == 1


def test_log_normalised_values_are_marked_only(tmp_path):
    adata = readable(tmp_path)
    del adata.uns["log1p"]
    done, result = run(adata, tmp_path)
    np.testing.assert_array_equal(result.X.toarray(), adata.X.toarray())
    assert said(done, "marked X as log1p-transformed") == len(done.changes) == 1


@pytest.mark.parametrize(("value", "message"), [(np.nan, "1 NaN or infinite"), (-1.5, "negative values .least -1.5")])
def test_values_that_are_no_expression_are_refused(value, message, tmp_path):
    adata = make_adata()
    dense = adata.X.toarray()
    dense[3, 2] = value
    adata.X = dense
    adata.write_h5ad(tmp_path / "in.h5ad")
    with pytest.raises(StateRagError, match=message):
        prepare(tmp_path / "in.h5ad")
    assert [p.name for p in tmp_path.iterdir()] == ["in.h5ad"]
