import anndata as ad
import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from state_rag.contract.matrices import ArrayRows, open_rows, row_blocks, runs, without_repeats
from state_rag.errors import StateRagError
from state_rag.h5ad import open_h5ad


def matrix():
    rng = np.random.default_rng(0)
    return (rng.random((40, 9)) * (rng.random((40, 9)) < 0.4)).astype(np.float32)


def written(path, kind):
    values = matrix()
    stored = {"csr": sparse.csr_matrix, "csc": sparse.csc_matrix}.get(kind, np.asarray)(values)
    stored = stored.astype(np.float64) if kind == "double" else stored
    extra = {"compression": "gzip"} if kind == "gzip" else {}
    ad.AnnData(stored, obsm={"X_hvg": values[:, :4]}).write_h5ad(path, **extra)
    return values


@pytest.mark.parametrize("kind", ["dense", "double", "gzip", "csr"])
def test_rows_come_back_in_the_order_asked_for_whatever_the_storage(tmp_path, kind):
    values = written(tmp_path / "a.h5ad", kind)
    rows = np.array([7, 8, 9, 0, 39, 38, 2, 2, 3, 7])
    with open_h5ad(tmp_path / "a.h5ad") as file:
        np.testing.assert_array_equal(open_rows(file, "X").read(rows), values[rows])
        np.testing.assert_array_equal(open_rows(file, "obsm/X_hvg").read(rows), values[rows, :4])


def test_rows_in_memory_may_be_sparse():
    values = matrix()
    np.testing.assert_array_equal(ArrayRows(sparse.csc_matrix(values)).read(np.array([3, 1])), values[[3, 1]])


def in_halves(values):
    """CSR whose every value is stored as two halves, apart from each other and out of order."""
    whole = sparse.csr_matrix(values)
    rows, columns = np.repeat(np.arange(len(values)), np.diff(whole.indptr)), whole.indices
    order = np.lexsort((np.tile(np.arange(whole.nnz) % 5, 2), np.tile(rows, 2)))
    data, indices = np.tile(whole.data / 2, 2)[order], np.tile(columns, 2)[order]
    return sparse.csr_matrix((data, indices, 2 * whole.indptr), shape=values.shape)


def test_values_that_share_a_place_are_added_up_and_stand_once_in_a_block(tmp_path):
    values, rows = matrix(), np.array([7, 8, 9, 0, 2, 2])
    assert not in_halves(values).has_sorted_indices
    ad.AnnData(in_halves(values)).write_h5ad(tmp_path / "a.h5ad")
    with open_h5ad(tmp_path / "a.h5ad") as file:
        for matrix_rows in (open_rows(file, "X"), ArrayRows(in_halves(values))):
            np.testing.assert_array_equal(matrix_rows.read(rows), values[rows])
            block = matrix_rows.block(3, 31)
            np.testing.assert_array_equal(block.toarray(), values[3:31])
            assert block.nnz == np.count_nonzero(values[3:31])


def test_rows_out_of_order_are_left_as_they_are():
    rows = sparse.csr_matrix(([1.0, 2.0, 3.0], [2, 0, 1], [0, 3]), shape=(1, 3))
    assert without_repeats(rows) is rows


@given(st.sets(st.integers(0, 60)))
def test_runs_cover_every_row_once_and_are_consecutive(rows):
    ordered = np.array(sorted(rows), dtype=np.int64)
    pieces = [ordered[start:stop] for start, stop in runs(ordered)]
    assert [value for piece in pieces for value in piece] == sorted(rows)
    assert all((np.diff(piece) == 1).all() for piece in pieces)


@pytest.mark.parametrize("kind", [np.int32, np.int64])
def test_blocks_of_sparse_rows_are_as_long_as_their_values_allow_wherever_they_start(kind):
    values = sparse.random(200, 30, 0.3, format="csr", random_state=1)
    values.indptr = values.indptr.astype(kind)
    stored = np.diff(values.indptr)
    for start, stop in ((0, 200), (37, 151), (5, 5)):
        expected, row = [], start
        while row < stop:
            end = row + 1
            while end < stop and stored[row : end + 1].sum() <= 40:
                end += 1
            expected.append((row, end))
            row = end
        assert list(row_blocks(ArrayRows(values), start, stop, 40)) == expected


def test_a_matrix_stored_by_columns_is_refused_with_the_remedy(tmp_path):
    written(tmp_path / "a.h5ad", "csc")
    with open_h5ad(tmp_path / "a.h5ad") as file, pytest.raises(StateRagError, match="tocsr"):
        open_rows(file, "X")


def test_a_missing_matrix_is_reported_with_those_there_are(tmp_path):
    written(tmp_path / "a.h5ad", "dense")
    with open_h5ad(tmp_path / "a.h5ad") as file, pytest.raises(StateRagError, match="'obsm/X_state'.*obsm/X_hvg"):
        open_rows(file, "obsm/X_state")


def test_missing_and_broken_files_are_user_errors(tmp_path):
    with pytest.raises(StateRagError, match="no such file"):
        open_h5ad(tmp_path / "none.h5ad")
    (tmp_path / "half.h5ad").write_bytes(b"\x89HDF\r\n\x1a\n" + b"\0" * 40)
    with pytest.raises(StateRagError, match="truncated"):
        open_h5ad(tmp_path / "half.h5ad")


def test_a_data_set_that_ends_early_is_reported(tmp_path):
    written(tmp_path / "a.h5ad", "dense")
    with h5py.File(tmp_path / "a.h5ad") as file:
        rows = open_rows(file, "X")
        rows.offset = (tmp_path / "a.h5ad").stat().st_size - 8
        with pytest.raises(StateRagError, match="truncated"):
            rows.read(np.arange(3))
