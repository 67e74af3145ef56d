import anndata as ad
import numpy as np
import pytest

from state_rag.contract.scale import TOTAL_RATIO
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


def test_common_genes_of_several_files_keep_their_scale_and_one_order(tmp_path):
    cells = screen(n_genes=40)
    rng = np.random.default_rng(0)
    counts = rng.gamma(2.0, 1.0, 40) * rng.uniform(0.95, 1.05, cells.shape)  # so alike that genes left have one total
    files = []
    for number, (first, last) in enumerate(((0, 36), (2, 38), (4, 40))):
        genes = np.random.default_rng(number).permutation(np.arange(first, last))
        part = cells[:, genes].copy()
        own = counts[:, genes]
        part.X = np.log1p(own / own.sum(axis=1, keepdims=True) * 1e3).astype(np.float32)
        del part.obsm["X_hvg"], part.var["highly_variable"]
        part.write_h5ad(tmp_path / f"{number}.h5ad")
        files.append(tmp_path / f"{number}.h5ad")
    found = [
        ad.read_h5ad(prepare(file, tmp_path / f"out_{file.name}", like=files, common=True, control="ctrl").path)
        for file in files
    ]
    before = ad.read_h5ad(files[0])
    assert len({tuple(one.var_names) for one in found}) == 1
    assert set(found[0].var_names) == {f"G{number}" for number in range(4, 36)}
    assert np.allclose(found[0].X, before[:, found[0].var_names].X)
    totals = [np.median(np.expm1(one.X).sum(axis=1)) for one in found]
    assert max(totals) / min(totals) < TOTAL_RATIO  # not 1,000 for genes that have 800 of them


def test_counts_come_to_the_total_that_the_other_files_counts_will_have(tmp_path):
    for name, depth in (("first", 4), ("second", 1)):
        cells = screen()
        cells.X = np.rint(np.expm1(cells.X.toarray()) * depth).astype(np.float32)
        cells.write_h5ad(tmp_path / f"{name}.h5ad")
    first, second = (tmp_path / f"{name}.h5ad" for name in ("first", "second"))
    names = {"control": "ctrl", "like": [first]}
    alone = ad.read_h5ad(prepare(first, tmp_path / "alone.h5ad", control="ctrl").path)
    for file in (first, second):
        found = ad.read_h5ad(prepare(file, tmp_path / "out.h5ad", **names).path)
        totals = [np.expm1(one.X).sum(axis=1) for one in (found, alone)]
        assert np.allclose(totals[0], totals[1], rtol=1e-4)


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
