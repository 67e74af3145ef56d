import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from state_rag.contract.feature_names import FileMatrices, MemoryMatrices, column_names
from state_rag.errors import StateRagError
from state_rag.h5ad import open_h5ad

HVG = "obsm/X_hvg"
CHOSEN = np.arange(30) % 3 == 0


def cells(hvg=CHOSEN, declared=CHOSEN, n_cells=300, dense=False):
    """Cells of 30 genes; `X_hvg` has the genes `hvg`, and var says `declared`."""
    rng = np.random.default_rng(0)
    values = np.log1p(rng.poisson(0.6, (n_cells, 30)) * rng.uniform(0.5, 2, (n_cells, 1))).astype(np.float32)
    var = pd.DataFrame({"highly_variable": declared}, index=[f"G{number}" for number in range(30)])
    made = ad.AnnData(values if dense else sparse.csr_matrix(values), var=var)
    made.obsm["X_hvg"] = values[:, hvg]
    return made


NAMES = tuple(f"G{number}" for number in np.flatnonzero(CHOSEN))


def test_declared_names_that_the_values_bear_out_are_taken():
    found = column_names(MemoryMatrices(cells()), HVG)
    assert (found.names, found.origin, found.note) == (NAMES, "var/highly_variable", "")


def test_names_of_uns_are_taken_where_var_has_none():
    made = cells()
    del made.var["highly_variable"]
    made.uns["hvg_names"] = np.array(NAMES)
    found = column_names(MemoryMatrices(made), HVG)
    assert (found.names, found.origin) == (NAMES, "uns/hvg_names")


@settings(max_examples=20, deadline=None)
@given(st.permutations(np.flatnonzero(CHOSEN).tolist()))
def test_columns_in_another_order_than_declared_are_found_by_their_values(order):
    found = column_names(MemoryMatrices(cells(hvg=np.array(order))), HVG)
    assert found.names == tuple(f"G{number}" for number in order)
    moved = order != sorted(order)
    assert found.origin == ("values of X" if moved else "var/highly_variable")
    assert ("not those of X" in found.note) == moved


def test_columns_without_declared_names_are_found_by_their_values_whatever_the_scale_of_x():
    made = cells()
    del made.var["highly_variable"]
    assert column_names(MemoryMatrices(made), HVG).names == NAMES
    made.X = made.X.expm1()
    found = column_names(MemoryMatrices(made), HVG)
    assert (found.names, found.origin) == (NAMES, "values of X")


def test_columns_that_are_not_in_x_are_unknown_and_a_wrong_declaration_is_told():
    made = cells()
    made.obsm["X_hvg"] = np.random.default_rng(1).poisson(0.6, made.obsm["X_hvg"].shape).astype(np.float32)
    found = column_names(MemoryMatrices(made), HVG)
    assert found.names is None
    assert "10 of 10 columns of obsm['X_hvg'] are not those of X that var/highly_variable says" in found.note


def test_values_without_zeros_leave_the_declaration_as_it_is():
    made = cells(dense=True)
    made.X = made.X - 1.5
    assert column_names(MemoryMatrices(made), HVG).names == NAMES


def test_other_spaces_have_no_names_and_frames_have_theirs():
    made = cells()
    made.obsm["X_state"] = np.ones((300, 4))
    made.obsm["table"] = pd.DataFrame(np.ones((300, 2)), index=made.obs_names, columns=["a", "b"])
    assert column_names(MemoryMatrices(made), "obsm/X_state").names is None
    assert column_names(MemoryMatrices(made), "obsm/table").names == ("a", "b")


@pytest.mark.parametrize("column", [True, False])
def test_a_file_and_memory_say_the_same(tmp_path, column):
    made = cells(hvg=np.flatnonzero(CHOSEN)[::-1])
    if column:
        made.var["gene_name"] = [f"name {number}" for number in range(30)]
    made.write_h5ad(tmp_path / "cells.h5ad")
    with open_h5ad(tmp_path / "cells.h5ad") as file:
        for matrix in ("X", HVG):
            found = column_names(FileMatrices(file), matrix)
            assert found == column_names(MemoryMatrices(made), matrix)
            assert found.names[0].startswith("name" if column else "G")


def test_a_file_whose_genes_were_not_written_to_the_end_is_called_damaged(tmp_path):
    cells().write_h5ad(tmp_path / "cells.h5ad")
    with h5py.File(tmp_path / "cells.h5ad", "r+") as file:
        del file["var"]
        file.create_group("var")
    with (
        open_h5ad(tmp_path / "cells.h5ad") as file,
        pytest.raises(StateRagError, match=r"cells\.h5ad: 'var' is no table"),
    ):
        FileMatrices(file)
