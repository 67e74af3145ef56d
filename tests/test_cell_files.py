import hashlib

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from state_rag.cell_files import is_group, n_cells, text_at
from state_rag.contract.feature_names import FileMatrices, column_names
from state_rag.contract.identity import fingerprint
from state_rag.contract.matrices import open_rows
from state_rag.datasets.preparing.prepare import prepare
from state_rag.datasets.quickstart.first_look import look_at
from state_rag.embeddings.signatures import read_signatures
from state_rag.errors import StateRagError
from state_rag.files import data_size, sample_digest
from state_rag.h5ad import obs_columns, open_cells, open_h5ad, read_column

pytestmark = pytest.mark.filterwarnings("ignore:Writing zarr v2", "ignore:.*Zarr format 3")


@pytest.fixture(params=["zarr2", "zarr3", "h5ad"])
def stored(request, tmp_path):
    """One object in a file, and in stores of both formats."""
    obs = pd.DataFrame(
        {
            "gene": pd.Categorical(["é", "b", None, "b"]),
            "text": ["x", "y", "x", "z"],
            "number": [2.0, np.nan, 1.0, 2.0],
            "whole": pd.array([3, None, 1, 3], dtype="Int64"),
        },
        index=["one", "two", "three", "four"],
    )
    adata = ad.AnnData(np.arange(12, dtype=np.float32).reshape(4, 3), obs=obs, var=pd.DataFrame(index=list("ABC")))
    adata.obsm["X_hvg"] = adata.X[:, [2, 0]]
    adata.uns["hvg_names"] = np.array(["C", "A"])
    if request.param == "h5ad":
        adata.write_h5ad(tmp_path / "one.h5ad")
        return tmp_path / "one.h5ad"
    if not hasattr(ad.settings, "zarr_write_format"):
        pytest.skip("this anndata writes one format of zarr")
    with ad.settings.override(zarr_write_format=int(request.param[-1])):
        adata.write_zarr(tmp_path / "one.zarr")
    return tmp_path / "one.zarr"


def test_columns_of_all_kinds_read_alike_whole_and_in_part(stored):
    with open_cells(stored) as file:
        assert n_cells(file) == 4
        assert obs_columns(file) == ["gene", "number", "text", "whole"]
        for column, expected in (
            ("gene", ["é", "b", None, "b"]),
            ("text", ["x", "y", "x", "z"]),
            ("number", ["2.0", None, "1.0", "2.0"]),
            ("whole", ["3", None, "1", "3"]),
        ):
            for start, stop in ((0, None), (1, 3), (2, 2)):
                names, codes = read_column(file, column, "--pert-col", start, stop)
                found = [None if code < 0 else str(names[code]) for code in codes.tolist()]
                assert found == expected[start:stop], column


@pytest.mark.skipif(not hasattr(ad.settings, "allow_write_nullable_strings"), reason="this anndata writes none")
def test_cells_with_names_of_nullable_text_are_counted(tmp_path):
    names = pd.Index(["one", "two", "three"], dtype="string")
    with ad.settings.override(allow_write_nullable_strings=True):
        ad.AnnData(np.ones((3, 2)), obs=pd.DataFrame(index=names)).write_h5ad(tmp_path / "one.h5ad")
    with open_cells(tmp_path / "one.h5ad") as file:
        assert is_group(file["obs/_index"])
        assert n_cells(file) == 3


def test_labels_are_read_in_stretches_alike(stored, monkeypatch):
    with open_cells(stored) as file:
        whole = read_column(file, "text", "--pert-col")
        monkeypatch.setattr("state_rag.h5ad._LABELS_READ", 1)
        for one, other in zip(whole, read_column(file, "text", "--pert-col"), strict=True):
            assert one.tolist() == other.tolist()


def test_matrices_and_the_names_of_their_columns_are_read_alike(stored):
    with open_cells(stored) as file:
        assert open_rows(file, "X").read(np.array([3, 0])).tolist() == [[9, 10, 11], [0, 1, 2]]
        assert open_rows(file, "obsm/X_hvg").block(1, 3).tolist() == [[5, 3], [8, 6]]
        assert text_at(file, "uns/hvg_names").tolist() == ["C", "A"]
        assert column_names(FileMatrices(file), "obsm/X_hvg").names == ("C", "A")
        assert FileMatrices(file).dtype("X") == "float32"
        with pytest.raises(StateRagError, match="no matrix 'obsm/nothing'; the file has X, obsm/X_hvg"):
            open_rows(file, "obsm/nothing")
        with pytest.raises(StateRagError, match="no obs column 'genes'.*gene"):
            read_column(file, "genes", "--pert-col")


def test_the_fingerprint_is_over_padded_names_and_evenly_spaced_cells_in_every_format(stored, monkeypatch):
    with open_cells(stored) as file:
        index = [str(file[table].attrs["_index"]) for table in ("obs", "var")]
    assert index == ["_index", "_index"]
    digest = hashlib.sha256()
    for names in (["one", "two", "three", "four"], ["A", "B", "C"]):
        digest.update(np.array(names).astype("S").tobytes())
    digest.update(b"X" + np.arange(12, dtype=np.float32).tobytes())
    assert fingerprint(stored, ["X"]) == digest.hexdigest()
    monkeypatch.setattr("state_rag.contract.identity._NAMES_AT_ONCE", 2)
    assert fingerprint(stored, ["X"]) == digest.hexdigest()


def test_size_and_digest_of_a_store_are_over_its_files(stored):
    files = [stored] if stored.is_file() else [path for path in stored.rglob("*") if path.is_file()]
    assert data_size(stored) == sum(path.stat().st_size for path in files)
    before = sample_digest(stored)
    assert sample_digest(stored) == before
    with open(files[0], "ab") as stream:
        stream.write(b"more")
    assert sample_digest(stored) != before


def test_a_folder_that_is_no_store_is_named(tmp_path):
    (tmp_path / "empty.zarr").mkdir()
    with pytest.raises(StateRagError, match="empty.zarr: cannot be read as a zarr store"):
        open_cells(tmp_path / "empty.zarr")
    ad.AnnData(np.zeros((2, 2))).write_zarr(tmp_path / "whole.zarr")
    (tmp_path / "whole.zarr").rename(tmp_path / "store")
    with pytest.raises(StateRagError, match="is a folder"):
        open_cells(tmp_path / "store")


def test_what_reads_h5ad_files_only_refuses_a_store(tmp_path):
    store = tmp_path / "one.zarr"
    ad.AnnData(np.ones((2, 2)), obs=pd.DataFrame({"gene": ["a", "b"]}, index=["1", "2"])).write_zarr(store)
    for reads in (open_h5ad, look_at, prepare, read_signatures):
        with pytest.raises(StateRagError, match=r"one.zarr is a folder; expected an h5ad file \(.h5ad, .h5\)"):
            reads(store)
