import anndata as ad
import numpy as np
import pandas as pd
import pytest

from state_rag.datasets.data_files import find_data_files
from state_rag.datasets.splitting.split_check import check_split
from state_rag.errors import StateRagError

pytestmark = pytest.mark.filterwarnings("ignore:Writing zarr v2")
NAMES = {"pert_col": "gene", "cell_type_key": "line", "batch_col": "batch", "control_pert": "ctrl"}


def write(path, labels):
    obs = pd.DataFrame({"gene": labels, "line": "k562", "batch": "1"}, index=[str(n) for n in range(len(labels))])
    cells = ad.AnnData(np.ones((len(labels), 2), dtype=np.float32), obs=obs.astype("category"))
    cells.write_zarr(path) if path.suffix == ".zarr" else cells.write_h5ad(path)
    return path


def split_of(place, path):
    path.write_text(f'[datasets]\na = "{place}"\n[training]\na = "train"\n')
    return path


def test_stores_are_found_alone_in_a_folder_and_by_a_pattern(tmp_path):
    stores = [write(tmp_path / f"{name}.zarr", ["ctrl"]) for name in "ab"]
    for place in (
        tmp_path,
        f"{tmp_path}/*.zarr",
        f"{tmp_path}/{{a,b}}.zarr",
        f"{tmp_path.parent}/{tmp_path.name[:-1]}?",
    ):
        assert find_data_files(str(place), "x") == stores
    assert find_data_files(str(stores[1]), "x") == stores[1:]


def test_a_folder_of_both_kinds_gives_what_upstream_reads_and_says_so(tmp_path, caplog):
    write(tmp_path / "a.zarr", ["ctrl"])
    file = write(tmp_path / "b.h5ad", ["ctrl"])
    assert find_data_files(str(tmp_path), "x") == [file]
    assert "1 zarr stores" in caplog.text


def test_a_folder_without_cells_says_what_it_holds(tmp_path):
    (tmp_path / "cells.loom").write_text("")
    with pytest.raises(StateRagError, match=r"no .zarr store \(it holds cells.loom\)"):
        find_data_files(str(tmp_path), "x")


def test_zarr_stores_are_refused_for_upstream_only(tmp_path):
    split = split_of(write(tmp_path / "a.zarr", ["ctrl", "A", "A"]), tmp_path / "a.toml")
    with pytest.raises(StateRagError, match="upstream reads h5ad files only"):
        check_split(split, **NAMES, require=("train",))
    summary = check_split(split, **NAMES, require=("train",), upstream=False)
    assert summary.cells == {"train": 2, "val": 0, "test": 0, "control": 1}


def test_controls_may_lie_in_any_shard_where_upstream_does_not_read_them(tmp_path):
    folder = tmp_path / "shards"
    folder.mkdir()
    write(folder / "a.h5ad", ["A", "A"])
    write(folder / "b.h5ad", ["ctrl", "B"])
    split = split_of(folder, tmp_path / "a.toml")
    with pytest.raises(StateRagError, match="control 'ctrl'"):
        check_split(split, **NAMES, require=("train",))
    assert check_split(split, **NAMES, require=("train",), upstream=False).cells["control"] == 1
    (folder / "b.h5ad").unlink()
    with pytest.raises(StateRagError, match="control 'ctrl'"):
        check_split(split, **NAMES, require=("train",), upstream=False)
