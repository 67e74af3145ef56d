import subprocess
import sys
import textwrap
import tracemalloc

import h5py
import numpy as np
import pandas as pd
import pytest

from state_rag.errors import StateRagError
from state_rag.h5ad import CellWriter, is_categorical, obs_columns, open_h5ad, read_column
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


def test_a_full_disk_leaves_the_old_file_and_one_clear_error(tmp_path):
    make_adata().write_h5ad(tmp_path / "a.h5ad")
    before = (tmp_path / "a.h5ad").read_bytes()
    code = f"""
        import resource
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        from state_rag.h5ad import write_h5ad
        from state_rag.errors import StateRagError
        from tests.datasets.helpers import make_adata
        try:
            write_h5ad(make_adata(n_cells=5000), r"{tmp_path / "a.h5ad"}")
        except StateRagError as error:
            print("refused:", error)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False)
    assert "refused:" in done.stdout, done.stderr
    assert "a.h5ad: cannot be written" in done.stdout
    assert [p.name for p in tmp_path.iterdir()] == ["a.h5ad"]
    assert (tmp_path / "a.h5ad").read_bytes() == before


def write_in_blocks(path, cells, width=50):
    """Write that many cells in blocks of 1,000, and return the most memory that Python held meanwhile."""
    with CellWriter(path, cells, ["barcode"]) as writer:
        tracemalloc.start()
        for start in range(0, cells, 1000):
            values = np.full((1000, width), start, np.float32)
            labels = {"gene": ["A", "B"] * 500, "barcode": [f"cell{start + n}" for n in range(1000)]}
            writer.add({"X": values}, labels)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        writer.finish(["gene", "barcode"], pd.DataFrame(index=[str(n) for n in range(width)]))
    return peak


def test_memory_of_writing_in_blocks_does_not_grow_with_the_cells(tmp_path):
    few, many = (write_in_blocks(tmp_path / f"{cells}.h5ad", cells) for cells in (10_000, 80_000))
    assert many - few < 80_000 * 50 * 4 / 20
    with h5py.File(tmp_path / "80000.h5ad") as file:
        assert file["X"][-1, 0] == 79_000
        assert file["obs/barcode"].asstr()[-1] == "cell79999"
        assert read_column(file, "gene", "--x")[0].tolist() == ["A", "B"]


def test_a_disk_that_fills_up_between_blocks_is_one_clear_error(tmp_path):
    code = f"""
        import resource
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        from state_rag.errors import StateRagError
        from tests.test_h5ad import write_in_blocks
        from pathlib import Path
        try:
            write_in_blocks(Path(r"{tmp_path / "a.h5ad"}"), 10_000)
        except StateRagError as error:
            print("refused:", error)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False)
    assert "a.h5ad: cannot be written" in done.stdout, done.stderr
    assert not list(tmp_path.iterdir())
