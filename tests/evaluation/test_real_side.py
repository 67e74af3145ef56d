import shutil

import anndata as ad
import numpy as np
import pytest

from state_rag.cli import main
from state_rag.evaluation.real_side import difference


@pytest.fixture
def pair(runs, tmp_path):
    """Two runs on the same real cells."""
    for name in ("good", "poor"):
        shutil.copytree(runs[name], tmp_path / name, ignore=shutil.ignore_patterns("gge"))
    return tmp_path / "good", tmp_path / "poor"


def change(run, edit, files=("adata_real.h5ad", "adata_pred.h5ad")):
    """Rewrite a run's files as `edit` returns them."""
    for name in files:
        path = run / "eval_last.ckpt" / name
        changed = edit(ad.read_h5ad(path))
        path.unlink()
        changed.write_h5ad(path)


def scaled(cells):
    cells.X = cells.X * 3
    return cells


def shuffled(cells):
    return cells[np.random.default_rng(0).permutation(len(cells))].copy()


def without_cells(cells):
    return cells[~((cells.obs["gene"] == "P03") & (np.arange(len(cells)) % 2 == 0)).to_numpy()].copy()


def compare(pair, *options):
    places = [str(place) for place in pair]
    return main(["compare", *places, "--metrics", "mse", "--no-baselines", "--quiet", *options])


def results(run):
    return run / "eval_last.ckpt" / "gge"


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (scaled, "the real controls of hepg2 have other means"),
        (lambda cells: cells[:, :30].copy(), "30 genes against 60"),
        (without_cells, "P03 in hepg2 has"),
    ],
)
def test_runs_scored_on_other_real_cells_are_refused_and_the_message_says_what_differs(pair, edit, told, capsys):
    change(pair[0], edit)
    assert compare(pair) == 1
    error = capsys.readouterr().err
    assert "good and poor were scored on different real data" in error
    assert told in error


def test_the_order_of_cells_and_conditions_of_one_run_alone_make_no_difference(pair, capsys):
    change(pair[0], shuffled)
    change(pair[1], lambda cells: cells[cells.obs["gene"] != "P01"].copy())
    assert compare(pair) == 0
    assert difference(results(pair[0]), results(pair[1])) == ""


def test_evaluations_of_single_cells_and_of_pseudobulks_are_refused_by_that_name(pair, capsys):
    def means(cells):
        groups = cells.obs.groupby(["gene", "cell_line"], observed=True).indices
        first = cells[[rows[0] for rows in groups.values()]].copy()
        first.X = np.stack([cells.X[rows].mean(axis=0) for rows in groups.values()])
        first.obs["pseudobulk_n_cells"] = [len(rows) for rows in groups.values()]
        return first

    change(pair[0], means)
    assert compare(pair) == 1
    error = capsys.readouterr().err
    assert "pseudobulks (--pseudobulk) against single cells" in error
    assert "real cells against" not in error
