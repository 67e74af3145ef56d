import numpy as np
import pytest

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
