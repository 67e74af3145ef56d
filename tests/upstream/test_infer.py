from argparse import Namespace

import anndata
import numpy as np
import pandas as pd
import pytest
import torch

from state_rag.errors import StateRagError
from state_rag.settings import RagSettings
from state_rag.upstream.infer import names_as_written, requested_names, use_the_runs_column
from state_rag.upstream.run_folder import Run
from state_rag.upstream.swap import whole_npy_files


@pytest.fixture
def request_of(tmp_path):
    """Return a function that asks which names a request for a small h5ad is about."""
    obs = pd.DataFrame({"gene": pd.Categorical(["AARS", "ctrl", "KARS", "ctrl"])}, index=list("abcd"))
    data = anndata.AnnData(np.ones((4, 2), np.float32), obs=obs)
    data.obsm["X_hvg"] = np.ones((4, 2), np.float32)
    data.write_h5ad(tmp_path / "cells.h5ad")
    found = Run(tmp_path, {"data": {"kwargs": {"control_pert": "ctrl"}}}, RagSettings())
    usual = {"adata": tmp_path / "cells.h5ad", "pert_col": "gene", "embed_key": "X_hvg", "control_pert": None}

    def ask(**changes):
        return requested_names(found, Namespace(**{**usual, "tsv": None, "all_perts": False, **changes}))

    return ask


def test_the_names_of_the_cells_are_asked_for(request_of):
    assert request_of() == {"AARS", "KARS", "ctrl"}


def test_the_names_of_a_table_and_of_the_run_are_asked_for_too(request_of, tmp_path):
    (tmp_path / "more.tsv").write_text("perturbation\tnum_cells\nWARS\t3\n7\t2\n")
    torch.save({"ctrl": torch.ones(1), np.str_("HARS"): torch.ones(1)}, tmp_path / "pert_onehot_map.pt")
    assert request_of(tsv=tmp_path / "more.tsv", all_perts=True) == {"AARS", "KARS", "ctrl", "WARS", "7", "HARS"}


def test_names_of_a_table_that_look_like_numbers_or_nothing_are_taken_as_written_by_us_and_by_state(
    request_of, tmp_path
):
    (tmp_path / "odd.tsv").write_text("perturbation\tnum_cells\nNA\t3\n1e5\t2\nnull\t1\n")
    assert request_of(tsv=tmp_path / "odd.tsv") == {"AARS", "KARS", "ctrl", "NA", "1e5", "null"}
    with names_as_written():
        read = pd.read_csv(tmp_path / "odd.tsv", sep="\t")  # as STATE does
    assert read["perturbation"].tolist() == ["NA", "1e5", "null"]
    assert read["num_cells"].tolist() == [3, 2, 1]


def test_all_perturbations_of_a_run_without_their_list_cannot_be_asked_for(request_of):
    with pytest.raises(StateRagError, match=r"pert_onehot_map\.pt.*missing"):
        request_of(all_perts=True)


def test_cells_without_the_control_are_refused(request_of):
    with pytest.raises(StateRagError, match=r"no cells of the control 'DMSO'.*--control-pert"):
        request_of(control_pert="DMSO")


def test_a_space_that_the_file_lacks_is_refused(request_of):
    with pytest.raises(StateRagError, match=r"X_pca.*it has X_hvg"):
        request_of(embed_key="X_pca")
    assert request_of(embed_key=None)


def test_arrays_are_saved_whole_or_not_at_all(tmp_path, monkeypatch):
    save = np.save
    with whole_npy_files():
        np.save(tmp_path / "a", np.arange(3))
        with open(tmp_path / "stream.npy", "wb") as stream:
            np.save(stream, np.arange(4))
        with pytest.raises(ValueError, match="Object arrays"):
            np.save(tmp_path / "a.npy", np.array([object()]), allow_pickle=False)
    assert np.save is save
    assert np.load(tmp_path / "a.npy").tolist() == [0, 1, 2]
    assert np.load(tmp_path / "stream.npy").tolist() == [0, 1, 2, 3]
    assert {path.name for path in tmp_path.iterdir()} == {"a.npy", "stream.npy"}


def test_the_runs_column_of_perturbations_is_read_where_states_default_is_not_there(tmp_path):
    cells = anndata.AnnData(np.ones((2, 2), np.float32), obs=pd.DataFrame({"target": ["A", "ctrl"]}, index=["a", "b"]))
    cells.write_h5ad(tmp_path / "cells.h5ad")
    run = Run(tmp_path, {"data": {"kwargs": {"pert_col": "target"}}}, RagSettings())
    asked = {name: Namespace(adata=tmp_path / "cells.h5ad", pert_col=name) for name in ("drugname_drugconc", "pert")}
    for args in asked.values():
        use_the_runs_column(run, args)
    assert asked["drugname_drugconc"].pert_col == "target"
    assert asked["pert"].pert_col == "pert"  # which a user named
    cells.obs["drugname_drugconc"] = "A"
    cells.write_h5ad(tmp_path / "cells.h5ad")
    args = Namespace(adata=tmp_path / "cells.h5ad", pert_col="drugname_drugconc")
    use_the_runs_column(run, args)
    assert args.pert_col == "drugname_drugconc"
