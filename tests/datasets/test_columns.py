import h5py
import pytest

from state_rag.datasets.columns import PERTURBATION_COLUMNS, find_column, find_control
from state_rag.errors import StateRagError


def write(adata, path, **columns):
    for name, values in columns.items():
        adata.obs[name] = values
    adata.write_h5ad(path)
    return h5py.File(path)


def test_the_only_usual_name_is_found(adata, tmp_path):
    with write(adata, tmp_path / "a.h5ad") as file:
        assert find_column(file, None, PERTURBATION_COLUMNS, "perturbation", "--pert-col") == "perturbation"


def test_a_column_that_groups_the_cells_alike_is_no_ambiguity(adata, tmp_path):
    renamed = adata.obs["perturbation"].cat.rename_categories({"ctrl": "control"})
    with write(adata, tmp_path / "a.h5ad", gene=renamed) as file:
        assert find_column(file, None, PERTURBATION_COLUMNS, "perturbation", "--pert-col") == "gene"


def test_two_usual_names_that_differ_have_to_be_chosen_from(adata, tmp_path):
    with (
        write(adata, tmp_path / "a.h5ad", gene=adata.obs["batch"]) as file,
        pytest.raises(StateRagError, match="'gene' and 'perturbation'.*--pert-col"),
    ):
        find_column(file, None, PERTURBATION_COLUMNS, "perturbation", "--pert-col")


def test_no_usual_name_lists_the_columns(adata, tmp_path):
    with (
        write(adata, tmp_path / "a.h5ad") as file,
        pytest.raises(StateRagError, match="batch, cell_type, perturbation"),
    ):
        find_column(file, None, ("dose",), "dose", "--dose")


def test_the_given_control_must_be_there():
    with pytest.raises(StateRagError, match="a usual name that is: ctrl"):
        find_control(["ctrl", "A"], "non-targeting", "x.h5ad", "--control")


def test_the_control_is_found_only_if_it_is_the_only_candidate():
    assert find_control(["A", "ctrl"], None, "x.h5ad", "--control") == "ctrl"
    with pytest.raises(StateRagError, match="several names.*control, ctrl"):
        find_control(["control", "ctrl"], None, "x.h5ad", "--control")
    with pytest.raises(StateRagError, match="no name usual"):
        find_control(["A", "B"], None, "x.h5ad", "--control")
    with pytest.raises(StateRagError, match=r"with --control; named like one: NTC\.$"):
        find_control(["A", "NTC"], None, "x.h5ad", "--control")


def test_a_file_without_labels_is_told_apart_from_one_without_the_control():
    with pytest.raises(StateRagError, match=r"x\.h5ad: there is no label, so no cell and no control"):
        find_control([], "ctrl", "x.h5ad", "--control")
