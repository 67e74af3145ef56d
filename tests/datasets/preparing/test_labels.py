import anndata as ad
import numpy as np
import pandas as pd
import pytest

from state_rag.datasets.preparing.labels import fix_indices
from tests.datasets.preparing.readings import readable, run, said


def test_index_names_are_removed(tmp_path):
    adata = readable(tmp_path)
    adata.var.index.name, adata.obs.index.name = "symbol", "barcode"
    done, result = run(adata, tmp_path)
    assert result.var.index.name is None
    assert result.obs.index.name is None
    assert said(done, "removed the name 'symbol' of the var index") == 1
    assert len(done.changes) == 2


def test_columns_become_categorical_text_without_unused_values(tmp_path):
    adata = readable(tmp_path)
    adata.obs["batch"] = np.arange(adata.n_obs) % 3
    adata.obs["perturbation"] = adata.obs["perturbation"].cat.add_categories(["GHOST"])
    done, result = run(adata, tmp_path)
    assert result.obs["batch"].cat.categories.tolist() == ["0", "1", "2"]
    assert "GHOST" not in result.obs["perturbation"].cat.categories
    assert said(done, "stored obs column 'batch' as categorical") == 1
    assert said(done, "removed 1 unused categories from obs column 'perturbation'") == 1


def test_cells_without_a_perturbation_are_left_out(tmp_path):
    adata = readable(tmp_path)
    adata.obs["perturbation"] = adata.obs["perturbation"].where(np.arange(adata.n_obs) >= 7)
    done, result = run(adata, tmp_path)
    assert result.n_obs == adata.n_obs - 7
    assert said(done, "left out 7 cells") == 1


def test_repeated_names_become_unique(tmp_path):
    adata = readable(tmp_path)
    adata.obs_names = ["c"] * adata.n_obs
    adata.var_names = ["g"] * adata.n_vars
    with pytest.warns(UserWarning, match="not unique"):
        done, result = run(adata, tmp_path)
    assert result.obs_names.is_unique
    assert result.var_names.is_unique
    assert len(done.changes) == 2


@pytest.mark.filterwarnings("ignore:Variable names are not unique")
def test_genes_of_one_name_are_told_apart_by_their_ids_wherever_they_stand():
    values, names, ids = np.random.default_rng(0).normal(size=(4, 3)), ["A", "TWO", "TWO"], ["E1", "E2", "E3"]
    found = []
    for order in ([0, 1, 2], [2, 1, 0]):
        cells = ad.AnnData(values[:, order], var=pd.DataFrame({"kind": "gene", "gene_ids": np.array(ids)[order]}))
        cells.var_names = np.array(names)[order]
        changes = []
        fix_indices(cells, changes)
        assert changes == ["made the var names unique: those of several genes (TWO) end in var['gene_ids']"]
        found.append(cells[:, ["A", "TWO_E2", "TWO_E3"]].X)
    assert np.array_equal(*found)
    cells = ad.AnnData(values, var=pd.DataFrame(index=names))
    changes = []
    fix_indices(cells, changes)
    assert cells.var_names.tolist() == ["A", "TWO", "TWO-1"]
    assert "in another order, NAME and NAME-1 are others" in changes[0]
