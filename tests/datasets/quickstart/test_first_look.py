import anndata as ad
import h5py
import numpy as np
import pytest
from scipy import sparse

from state_rag.datasets.quickstart.first_look import look_at
from state_rag.errors import StateRagError
from tests.datasets.helpers import make_adata


@pytest.fixture
def write(tmp_path):
    """Return a function that writes cells and returns the path."""

    def save(adata, name="cells.h5ad"):
        adata.write_h5ad(tmp_path / name)
        return tmp_path / name

    return save


def with_values(values):
    cells = make_adata()
    cells.X = values
    return cells


def test_columns_hold_the_labels_and_their_cells(write):
    column = look_at(write(make_adata())).columns["cell_type"]
    assert column.labels.tolist() == ["T.cell 1", "a549", "k562"]
    assert column.counts.tolist() == [20, 20, 20]
    assert column.is_text


def test_categories_without_cells_are_no_labels(write):
    cells = make_adata()
    cells.obs["cell_type"] = cells.obs["cell_type"].cat.add_categories(["hela"])
    cells.obs.loc[cells.obs_names[:6], "cell_type"] = np.nan
    column = look_at(write(cells)).columns["cell_type"]
    assert "hela" not in column.labels
    assert (column.codes == -1).sum() == 6
    assert column.counts.sum() == 54


@pytest.mark.parametrize(
    ("values", "why"),
    [
        (np.linspace(0, 1, 60), "measurements"),
        (np.arange(60) * 1.5, "measurements"),
        (np.full(60, np.nan), "no values"),
        ([f"barcode{i}" for i in range(60)], "another value in nearly every cell"),
    ],
    ids=["fractions", "halves", "missing", "barcodes"],
)
def test_columns_without_labels_are_passed_over_with_the_reason(write, values, why):
    cells = make_adata()
    cells.obs["other"] = values
    look = look_at(write(cells))
    assert "other" not in look.columns
    assert look.passed_over["other"] == why


def test_whole_numbers_and_truth_values_are_labels_but_no_text(write):
    cells = make_adata()
    cells.obs["lane"] = np.arange(60) % 4
    cells.obs["treated"] = np.arange(60) % 2 == 0
    look = look_at(write(cells))
    assert look.columns["lane"].labels.tolist() == ["0", "1", "2", "3"]
    assert not look.columns["lane"].is_text
    assert len(look.columns["treated"].labels) == 2


@pytest.mark.parametrize("store", [np.asarray, sparse.csr_matrix], ids=["dense", "sparse"])
@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda counts: counts, "counts"),
        (np.log1p, "log"),
        (lambda counts: counts * 10.5, "unlogged"),
        (lambda counts: counts - 1.5, "scaled"),
        (lambda counts: counts * np.nan, "broken"),
        (lambda counts: counts * 0, "empty"),
    ],
    ids=["counts", "log", "unlogged", "scaled", "broken", "empty"],
)
def test_the_kind_of_values_is_told_from_a_sample(write, store, change, kind):
    counts = np.random.default_rng(0).poisson(2.0, (60, 8)).astype(np.float32)
    found = look_at(write(with_values(store(change(counts))))).values["X"]
    assert found.kind == kind
    assert found.words


def test_shape_spaces_and_genes(write):
    cells = make_adata()
    cells.obsm["X_hvg"] = np.ones((60, 5), np.float32)
    cells.obsm["X_umap"] = np.ones((60, 2), np.float32)
    cells.var["gene_symbol"] = [f"Sym{i}" for i in range(8)]
    look = look_at(write(cells))
    assert (look.n_cells, look.n_genes) == (60, 8)
    assert look.spaces == {"X_hvg": 5, "X_umap": 2}
    assert {"G0", "SYM7"} <= look.genes
    assert look.values["X_hvg"].kind == "counts"


def test_a_file_without_X_has_the_shape_of_its_tables(write):
    cells = make_adata()
    cells.X = None
    look = look_at(write(cells))
    assert (look.n_cells, look.n_genes) == (60, 8)
    assert look.values == {}


def test_a_column_that_cannot_be_read_does_not_stop_the_look(write):
    place = write(make_adata())
    with h5py.File(place, "r+") as file:
        del file["obs/batch"]
        file["obs/batch"] = h5py.SoftLink("/nowhere")
    look = look_at(place)
    assert "batch" not in look.columns
    assert "perturbation" in look.columns


def test_large_matrices_are_sampled(write, monkeypatch):
    read = []
    get = h5py.Dataset.__getitem__

    def count(node, *args, **kwargs):
        got = get(node, *args, **kwargs)
        if node.name == "/X/data":
            read.append(np.size(got))
        return got

    wide = sparse.random(60, 20_000, density=0.5, format="csr", dtype=np.float32, rng=0)
    place = write(ad.AnnData(wide, obs=make_adata().obs))
    monkeypatch.setattr(h5py.Dataset, "__getitem__", count)
    look_at(place)
    assert 0 < sum(read) < wide.nnz / 5


def test_what_is_no_h5ad_file_is_refused(tmp_path):
    (tmp_path / "cells.h5ad").write_text("no")
    with pytest.raises(StateRagError, match="cells.h5ad"):
        look_at(tmp_path / "cells.h5ad")
