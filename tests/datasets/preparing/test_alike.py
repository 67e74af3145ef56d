import anndata as ad
import numpy as np
import pytest

from state_rag.datasets.preparing.prepare import prepare
from state_rag.errors import StateRagError
from tests.contract.helpers import reordered, screen


@pytest.fixture
def first(tmp_path):
    screen().write_h5ad(tmp_path / "first.h5ad")
    return tmp_path / "first.h5ad"


@pytest.fixture
def alike(first, tmp_path):
    """Return a function that prepares cells like the first file and reads them back."""

    def make(cells, like=None, **more):
        cells.write_h5ad(tmp_path / "other.h5ad")
        names = {"pert_col": "gene", "cell_type_col": "cell_line", "batch_col": "gem_group", "control": "ctrl"}
        done = prepare(tmp_path / "other.h5ad", tmp_path / "out.h5ad", like=like or [first], **names, **more)
        return ad.read_h5ad(done.path), done.changes

    return make


def test_genes_come_into_the_order_of_the_other_file_and_extra_ones_go(alike):
    cells = screen(n_genes=34, seed=3)[:, np.random.default_rng(0).permutation(34)].copy()
    found, changes = alike(cells)
    assert found.var_names.tolist() == screen().var_names.tolist()
    assert np.array_equal(found.X.toarray(), cells[:, found.var_names].X.toarray())
    assert np.array_equal(found.obsm["X_hvg"], found[:, found.var["highly_variable"]].X.toarray())
    assert any("took the genes of" in change and "4 more" in change for change in changes)


def test_an_order_of_x_hvg_that_is_not_that_of_x_is_kept_by_name(alike, tmp_path):
    model = reordered(screen(), np.arange(30), np.arange(15)[::-1])
    model.write_h5ad(tmp_path / "model.h5ad")
    found, _ = alike(screen(seed=3), [tmp_path / "model.h5ad"])
    assert found.uns["hvg_names"].tolist() == model.uns["hvg_names"].tolist()
    assert "highly_variable" not in found.var
    assert np.array_equal(found.obsm["X_hvg"], screen(seed=3).obsm["X_hvg"][:, ::-1])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda values: np.rint(np.expm1(values)), "scaled each cell to 1,000 and took log1p"),
        (lambda values: np.log1p(np.expm1(values) * 5), "scaled each cell from 5,000 to 1,000"),
        (lambda values: values / np.log(2), "turned the logarithm of X to base 2 into the natural one"),
    ],
)
def test_cells_come_to_the_total_of_the_other_file(alike, change, said):
    cells = screen(seed=3)
    values = cells.X.toarray()
    cells.X = change(values)
    found, changes = alike(cells)
    assert any(said in text for text in changes)
    assert np.allclose(
        np.expm1(found.X.toarray() if hasattr(found.X, "toarray") else found.X).sum(axis=1), 1e3, rtol=2e-2
    )


def test_missing_genes_are_refused_unless_common_ones_will_do(alike, first, tmp_path):
    cells = screen(seed=3)[:, 2:].copy()
    with pytest.raises(StateRagError, match=r"2 of the 30 genes of .*first.h5ad are not .*\(G0, G1\).*--common"):
        alike(cells)
    found, _ = alike(cells, common=True)
    assert found.var_names.tolist() == screen().var_names[2:].tolist()
    back = prepare(
        first,
        tmp_path / "cut.h5ad",
        like=[tmp_path / "out.h5ad"],
        pert_col="gene",
        cell_type_col="cell_line",
        control="ctrl",
    )
    cut = ad.read_h5ad(back.path)
    assert cut.var_names.tolist() == found.var_names.tolist()
    assert cut.obsm["X_hvg"].shape[1] == found.obsm["X_hvg"].shape[1] == 14


def test_what_contradicts_itself_is_refused(alike, tmp_path):
    with pytest.raises(StateRagError, match="name them with --like"):
        prepare(tmp_path / "x.h5ad", common=True)
    with pytest.raises(StateRagError, match="Leave one out"):
        alike(screen(), n_hvgs=4)
    (tmp_path / "run").mkdir()
    with pytest.raises(StateRagError, match="no data_contract.json in it"):
        alike(screen(), [tmp_path / "run"])


def test_an_x_hvg_that_is_not_what_x_is_is_made_anew(tmp_path):
    cells = screen()
    expected = cells.obsm["X_hvg"].copy()
    for fault in (
        np.expm1(expected).round(),
        np.where(expected == expected[3, 3], np.nan, expected),
        expected[:, ::-1],
    ):
        cells.obsm["X_hvg"] = fault
        cells.write_h5ad(tmp_path / "cells.h5ad")
        done = prepare(tmp_path / "cells.h5ad", tmp_path / "out.h5ad", control="ctrl")
        assert np.array_equal(ad.read_h5ad(done.path).obsm["X_hvg"], expected)
        assert any("left out obsm['X_hvg'] as it was" in change for change in done.changes)
