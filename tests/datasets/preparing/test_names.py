import anndata
import pytest

from state_rag.datasets.preparing.prepare import prepare
from state_rag.errors import StateRagError
from tests.datasets.helpers import make_adata
from tests.datasets.preparing.readings import readable, run, said


def test_a_missing_batch_column_is_added_and_a_given_one_is_used(tmp_path):
    adata = readable(tmp_path)
    adata.obs = adata.obs.rename(columns={"batch": "lane"})
    done, result = run(adata, tmp_path)
    assert done.batch_col == "gem_group"
    assert set(result.obs["gem_group"]) == {"1"}
    assert said(done, "added obs column 'gem_group'") == 1
    done, result = run(adata, tmp_path, batch_col="lane")
    assert done.batch_col == "lane"
    assert "gem_group" not in result.obs


def test_replogle_names_are_given_on_request(tmp_path):
    adata = readable(tmp_path)
    adata.obs["gene"] = adata.obs["batch"]
    done, result = run(adata, tmp_path, pert_col="perturbation", replogle_names=True)
    assert (done.pert_col, done.cell_type_col, done.batch_col) == ("gene", "cell_line", "gem_group")
    assert done.control == "non-targeting"
    assert "non-targeting" in result.obs["gene"].cat.categories
    assert "gene_original" in result.obs
    assert (result.obs["gene"] == "AARS").sum() == (adata.obs["perturbation"] == "AARS").sum()


def test_a_line_that_no_column_names_is_added_by_itself_and_said(tmp_path):
    adata = make_adata()
    del adata.obs["cell_type"]
    adata.write_h5ad(tmp_path / "in.h5ad")
    done = prepare(tmp_path / "in.h5ad")
    assert (done.cell_type_col, done.cell_types) == ("cell_line", ("one_line",))
    assert any("all cells are of one, 'one_line' (--one-line NAME" in change for change in done.changes)
    assert set(anndata.read_h5ad(done.path).obs["cell_line"]) == {"one_line"}


def test_a_column_that_looks_like_the_line_is_not_passed_over(tmp_path):
    adata = make_adata()
    adata.obs = adata.obs.rename(columns={"cell_type": "CellLine.name"})
    adata.write_h5ad(tmp_path / "in.h5ad")
    with pytest.raises(StateRagError, match="'CellLine.name' looks like one .*--cell-type-key CellLine.name"):
        prepare(tmp_path / "in.h5ad")
    assert prepare(tmp_path / "in.h5ad", cell_type_col="CellLine.name").cell_types == ("T.cell 1", "a549", "k562")
    assert prepare(tmp_path / "in.h5ad", one_line="mine").cell_types == ("mine",)
