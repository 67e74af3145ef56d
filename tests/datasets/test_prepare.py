import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from state_rag.datasets.prepare import prepare
from state_rag.datasets.splits import check_split, write_split
from state_rag.errors import StateRagError
from state_rag.files import sha256
from tests.datasets.helpers import load_batches, make_adata


def run(adata, tmp_path, **options):
    adata.write_h5ad(tmp_path / "in.h5ad")
    done = prepare(tmp_path / "in.h5ad", **options)
    return done, anndata.read_h5ad(done.path)


def said(done, text):
    return sum(text in change for change in done.changes)


def readable(tmp_path):
    adata = make_adata()
    adata.X = adata.X.astype(np.float32)
    adata.uns["log1p"] = {}
    adata.obsm["X_hvg"] = adata.X.toarray()
    return adata


def test_a_readable_file_needs_no_change_and_no_copy(tmp_path):
    done, _ = run(readable(tmp_path), tmp_path)
    assert done.changes == ()
    assert done.path == tmp_path / "in.h5ad"
    assert not (tmp_path / "in.prepared.h5ad").exists()


def test_an_output_that_was_asked_for_is_written_in_any_case(tmp_path):
    done, _ = run(readable(tmp_path), tmp_path, output=tmp_path / "out.h5ad")
    assert done.changes == ()
    assert done.path == tmp_path / "out.h5ad"


def test_the_input_is_left_as_it_is(tmp_path):
    make_adata().write_h5ad(tmp_path / "in.h5ad")
    before = sha256(tmp_path / "in.h5ad")
    prepare(tmp_path / "in.h5ad")
    assert sha256(tmp_path / "in.h5ad") == before


def test_index_names_are_removed(tmp_path):
    adata = readable(tmp_path)
    adata.var.index.name, adata.obs.index.name = "symbol", "barcode"
    done, result = run(adata, tmp_path)
    assert result.var.index.name is None
    assert result.obs.index.name is None
    assert said(done, "removed the name 'symbol' of the var index") == 1
    assert len(done.changes) == 2


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


@pytest.mark.parametrize("kind", [sparse.csc_matrix, sparse.csr_matrix, np.asarray])
def test_values_survive_every_storage(kind, tmp_path):
    adata = make_adata()
    expected = adata.X.toarray()
    adata.X = kind(expected)
    done, result = run(adata, tmp_path)
    stored = result.X.toarray() if sparse.issparse(result.X) else result.X
    assert result.X.dtype == np.float32
    assert not sparse.issparse(result.X) or result.X.format == "csr"
    np.testing.assert_allclose(stored, expected, rtol=1e-6)
    np.testing.assert_allclose(result.obsm["X_hvg"], expected, rtol=1e-6)
    assert said(done, "stored X as float32 (was float64)") == 1


def test_counts_are_scaled_to_the_median_depth_and_logged(tmp_path):
    adata = make_adata(counts=True)
    counts = adata.X.toarray()
    depth = counts.sum(axis=1, keepdims=True)
    expected = np.log1p(counts / np.where(depth > 0, depth, 1) * np.median(depth[depth > 0]))
    done, result = run(adata, tmp_path)
    np.testing.assert_allclose(result.X.toarray(), expected, rtol=1e-5)
    assert "log1p" in result.uns
    assert said(done, "X held counts") == 1


def test_scaled_values_without_log_only_get_the_log(tmp_path):
    adata = make_adata()
    adata.X = adata.X * 100
    expected = np.log1p(adata.X.toarray())
    done, result = run(adata, tmp_path)
    np.testing.assert_allclose(result.X.toarray(), expected, rtol=1e-5)
    assert said(done, "took log1p") == 1


def test_log_normalised_values_are_marked_only(tmp_path):
    adata = readable(tmp_path)
    del adata.uns["log1p"]
    done, result = run(adata, tmp_path)
    np.testing.assert_array_equal(result.X.toarray(), adata.X.toarray())
    assert said(done, "marked X as log1p-transformed") == len(done.changes) == 1


@pytest.mark.parametrize(("value", "message"), [(np.nan, "1 NaN or infinite"), (-1.5, "negative values .least -1.5")])
def test_values_that_are_no_expression_are_refused(value, message, tmp_path):
    adata = make_adata()
    dense = adata.X.toarray()
    dense[3, 2] = value
    adata.X = dense
    adata.write_h5ad(tmp_path / "in.h5ad")
    with pytest.raises(StateRagError, match=message):
        prepare(tmp_path / "in.h5ad")
    assert [p.name for p in tmp_path.iterdir()] == ["in.h5ad"]


def test_highly_variable_genes_are_those_of_the_file_or_chosen_or_all(tmp_path):
    adata = readable(tmp_path)
    del adata.obsm["X_hvg"]
    done, result = run(adata, tmp_path)
    assert done.n_hvgs == 8
    assert said(done, "all genes, since there are no more") == 1
    adata.var["highly_variable"] = np.arange(8) < 3
    done, result = run(adata, tmp_path)
    assert done.n_hvgs == 3
    np.testing.assert_array_equal(result.obsm["X_hvg"], adata.X.toarray()[:, :3])
    done, result = run(adata, tmp_path, n_hvgs=5)
    assert result.obsm["X_hvg"].shape[1] == result.var["highly_variable"].sum() == 5


def test_replogle_names_are_given_on_request(tmp_path):
    adata = readable(tmp_path)
    adata.obs["gene"] = adata.obs["batch"]
    done, result = run(adata, tmp_path, pert_col="perturbation", replogle_names=True)
    assert (done.pert_col, done.cell_type_col, done.batch_col) == ("gene", "cell_line", "gem_group")
    assert done.control == "non-targeting"
    assert "non-targeting" in result.obs["gene"].cat.categories
    assert "gene_original" in result.obs
    assert (result.obs["gene"] == "AARS").sum() == (adata.obs["perturbation"] == "AARS").sum()


def test_missing_damaged_and_own_files_are_refused(tmp_path):
    with pytest.raises(StateRagError, match="none.h5ad: no such file"):
        prepare(tmp_path / "none.h5ad")
    make_adata(n_cells=600).write_h5ad(tmp_path / "in.h5ad")
    with pytest.raises(StateRagError, match="is the input itself"):
        prepare(tmp_path / "in.h5ad", tmp_path / "in.h5ad")
    (tmp_path / "cut.h5ad").write_bytes((tmp_path / "in.h5ad").read_bytes()[:9000])
    with pytest.raises(StateRagError, match="cut.h5ad: 9,000 bytes"):
        prepare(tmp_path / "cut.h5ad")
    with pytest.raises(StateRagError, match="--n-hvgs 0"):
        prepare(tmp_path / "in.h5ad", n_hvgs=0)


def test_a_file_with_every_fault_loads_upstream_once_prepared(tmp_path):
    adata = make_adata(n_cells=300, counts=True)
    adata.var.index.name = "symbol"
    adata.X = sparse.csc_matrix(adata.X)
    del adata.obs["batch"]
    adata.obs["cell_type"] = pd.Categorical(adata.obs["cell_type"]).codes
    done, _ = run(adata, tmp_path)
    check_then_load(done, "2", tmp_path)


def test_real_data_load_upstream_once_prepared(shared_data, tmp_path):
    done = prepare(shared_data / "perturbench_devel.h5ad", tmp_path / "devel.h5ad")
    assert done.control == "control"
    assert done.n_hvgs == 500
    check_then_load(done, "A172", tmp_path)


def check_then_load(done, line, tmp_path):
    split = write_split(
        done.path, line, output=tmp_path / "split.toml", pert_col=done.pert_col, cell_type_col=done.cell_type_col
    )
    names = {
        "pert_col": done.pert_col,
        "cell_type_key": done.cell_type_col,
        "batch_col": done.batch_col,
        "control_pert": done.control,
    }
    summary = check_split(split, **names, embed_key="X_hvg")
    for embed_key in ("X_hvg", None):
        module, batches = load_batches(split.path, **names, embed_key=embed_key)
        assert all(np.isfinite(batch["pert_cell_emb"].numpy()).all() for batch in batches)
        assert set(batches[2]["pert_name"]) <= {*summary.test_perturbations, done.control}
        dims = module.get_var_dims()
        assert len(dims["gene_names"]) == dims["hvg_dim"]


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
    with pytest.raises(StateRagError, match="'CellLine.name' looks like one .*--cell-type-col CellLine.name"):
        prepare(tmp_path / "in.h5ad")
    assert prepare(tmp_path / "in.h5ad", cell_type_col="CellLine.name").cell_types == ("T.cell 1", "a549", "k562")
    assert prepare(tmp_path / "in.h5ad", one_line="mine").cell_types == ("mine",)
