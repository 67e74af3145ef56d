import logging
import shutil

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from state_rag.cli import main
from state_rag.evaluation.baselines.naive import ADDITIVE, NAMES, STRONGER
from state_rag.evaluation.compare import KEY
from state_rag.evaluation.evaluate import Settings
from state_rag.evaluation.results import load_tables
from state_rag.evaluation.runs import find_run
from state_rag.evaluation.same_footing import _metric, on_same_footing, uneven

SHOWN = [name for name in NAMES if name not in (ADDITIVE, STRONGER)]
"""Of a screen without combinations."""
TESTS = ["p_mann_whitney", "p_wilcoxon"]


@pytest.fixture(scope="module")
def pair(runs, screen, tmp_path_factory):
    """The same predictions twice, the second time of half of the conditions, and evaluations of both."""
    folder = tmp_path_factory.mktemp("pair")
    for name in ("whole", "cut"):
        shutil.copytree(runs["good"], folder / name, ignore=shutil.ignore_patterns("gge"))
    for path in (folder / "cut" / "eval_last.ckpt").glob("*.h5ad"):
        cells = ad.read_h5ad(path)
        kept = cells[cells.obs["gene"].isin(["non-targeting", *screen.test[:6]])].copy()
        path.unlink()
        kept.write_h5ad(path)
    np.savez(folder / "vectors.npz", **screen.embeddings)
    return folder


def compared(pair, reference):
    """Return the table of `compare`, by predictor and metric."""
    runs = [str(pair / name) for name in ("whole", "cut")]
    told = ["--names", "whole", "cut", "--reference", reference, "--embeddings", str(pair / "vectors.npz"), "--quiet"]
    assert main(["compare", *runs, *told, "-o", str(pair / reference)]) == 0
    return pd.read_csv(pair / reference / "comparison.csv").set_index(["predictor", "metric"])


def test_predictions_and_a_part_of_them_have_equal_values(pair, caplog, capsys):
    caplog.set_level(logging.INFO)
    rows = compared(pair, "whole")
    assert "runs cover different conditions: evaluated again on the 6 shared ones" in caplog.text
    shown = " ".join(capsys.readouterr().out.split())
    assert "Runs cover different conditions: evaluated again on the 6 shared ones." in shown
    assert "whole: 6 conditions not shared by all, left out." in shown
    assert len(rows.loc["cut"]) == 21
    columns = ["mean", "sd", "n"]
    pd.testing.assert_frame_equal(rows.loc["cut"][columns], rows.loc["whole"][columns], check_exact=True)
    assert (rows.loc["cut"].dropna(subset=["mean"])[TESTS] == 1).all().all()


def test_baselines_do_not_depend_on_the_reference(pair):
    first, second = (compared(pair, name).loc[SHOWN]["mean"] for name in ("whole", "cut"))
    pd.testing.assert_series_equal(first, second, check_exact=True)


def test_finished_evaluations_stay_as_they_are(pair):
    compared(pair, "whole")
    folder = pair / "whole" / "eval_last.ckpt" / "gge"
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    compared(pair, "cut")
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    assert len(pd.read_csv(folder / "results.csv")) == 12


def test_what_a_finished_evaluation_was_made_with_is_taken_again(pair):
    compared(pair, "whole")
    done = {name: (run := find_run(pair / name), run.results) for name in ("whole", "cut")}
    covered = {name: set(load_tables(folder)[0][KEY].itertuples(index=False)) for name, (_, folder) in done.items()}
    with on_same_footing(done, covered, progress=False) as folders:
        assert folders["cut"] == done["cut"][1]
        tables = [load_tables(folders[name]) for name in ("whole", "cut")]
    for part in range(2):
        pd.testing.assert_frame_equal(tables[0][part], tables[1][part], check_exact=True)
    assert set(tables[0][1]["predictor"]) == set(SHOWN)
    assert not folders["whole"].exists()


def test_further_cell_lines_need_no_new_evaluation_and_further_conditions_do():
    alone, more = {("x", "P")}, {("x", "P"), ("y", "P")}
    assert uneven({"a": alone, "b": more}) == (alone, [])
    assert uneven({"a": more, "b": more | {("y", "Q")}}) == (more, ["b"])
    assert uneven({"a": alone, "b": {("y", "P")}}) == (set(), [])


@pytest.mark.parametrize("name", ["mse", "gge_pearson", "gge_mmd_pca", "gge_pearson_deg"])
def test_metrics_are_found_again_by_the_names_in_a_summary(name):
    assert _metric(name, Settings()).name == name
