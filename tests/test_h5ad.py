import h5py
import numpy as np
import pandas as pd
import pytest

from state_rag.errors import StateRagError
from state_rag.h5ad import is_categorical, obs_columns, open_h5ad, read_column
from tests.datasets.helpers import make_adata


@pytest.fixture
def adata():
    return make_adata()


def fails(path, match):
    with pytest.raises(StateRagError, match=match), open_h5ad(path):
        pass


def test_an_empty_file_and_a_folder_are_named(adata, tmp_path):
    (tmp_path / "empty.h5ad").touch()
    fails(tmp_path / "empty.h5ad", "empty.h5ad: the file is empty")
    fails(tmp_path, r"is a folder; expected an h5ad file \(.h5ad, .h5\). It holds empty.h5ad")


def test_a_missing_file_is_named(tmp_path):
    fails(tmp_path / "none.h5ad", "none.h5ad: no such file")


@pytest.mark.parametrize("kept", [3, 1000, 20_000])
def test_a_truncated_file_is_named_with_its_size(kept, adata, tmp_path):
    adata.write_h5ad(tmp_path / "whole.h5ad")
    (tmp_path / "cut.h5ad").write_bytes((tmp_path / "whole.h5ad").read_bytes()[:kept])
    fails(tmp_path / "cut.h5ad", f"{kept:,} bytes that cannot be read as HDF5")


def test_hdf5_without_cells_is_refused_and_its_contents_listed(tmp_path):
    with h5py.File(tmp_path / "x.h5ad", "w") as file:
        file["weights"] = [1]
    fails(tmp_path / "x.h5ad", "no `obs` table inside .found: weights")


def test_columns_of_every_storage_read_as_names_and_codes(adata, tmp_path):
    n = adata.n_obs
    adata.obs["text"] = [f"t{i % 3}" for i in range(n)]
    adata.obs["number"] = np.arange(n) % 4
    adata.obs["real"] = np.where(np.arange(n) == 1, np.nan, 2.0)
    adata.obs["nullable"] = pd.array([None if i == 2 else i % 2 for i in range(n)], dtype="Int64")
    adata.obs["partial"] = pd.Categorical([None if i == 3 else "a" for i in range(n)])
    adata.strings_to_categoricals()
    adata.write_h5ad(tmp_path / "a.h5ad")
    with open_h5ad(tmp_path / "a.h5ad") as file:
        assert obs_columns(file) == sorted(adata.obs.columns)
        for column in obs_columns(file):
            categories, codes = read_column(file, column, "--x")
            values = adata.obs[column].tolist()
            for value, code in zip(values, codes, strict=True):
                assert code == -1 if pd.isna(value) else categories[code] == str(value)
        assert is_categorical(file, "perturbation")
        assert not is_categorical(file, "number")


def test_categoricals_of_old_files_read_as_names(tmp_path):
    with h5py.File(tmp_path / "old.h5ad", "w") as file:
        file["obs/__categories/gene"] = np.array([b"AARS", b"ctrl"])
        file["obs/gene"] = np.array([1, 0, -1], dtype=np.int8)
        file["obs/gene"].attrs["categories"] = file["obs/__categories/gene"].ref
    with open_h5ad(tmp_path / "old.h5ad") as file:
        categories, codes = read_column(file, "gene", "--x")
        assert obs_columns(file) == ["gene"]
        assert not is_categorical(file, "gene")
    assert categories.tolist() == ["AARS", "ctrl"]
    assert codes.tolist() == [1, 0, -1]


def test_an_absent_column_lists_those_present(adata, tmp_path):
    adata.write_h5ad(tmp_path / "a.h5ad")
    with open_h5ad(tmp_path / "a.h5ad") as file:
        for wrong in ("gene", "_index"):
            with pytest.raises(StateRagError, match="--pert-col.*batch, cell_type, perturbation"):
                read_column(file, wrong, "--pert-col")
