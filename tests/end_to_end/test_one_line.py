"""A screen of one cell line, without a column that says so: folds by perturbation, from the raw file to the report."""

import os
import subprocess
import sys
from pathlib import Path

import anndata
import pandas as pd
import pytest

from state_rag.datasets.splitting.split_toml import read_split
from tests.end_to_end import commands
from tests.end_to_end.commands import Project, run

pytestmark = pytest.mark.slow

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
STEPS = ("training.max_steps=4", "training.val_freq=2")


def ours(folder, *words):
    """What a `state-rag` command prints, as words with single spaces."""
    done = run([str(word) for word in words], folder, via=commands.OURS, env={"COLUMNS": "200"})
    return " ".join((done.stdout + done.stderr).split())


def trained_on(folder, name, split, *overrides):
    """Train and predict in a few seconds; return the predictions' folder."""
    project = Project(folder)
    run(project.train(name, *STEPS, f"data.kwargs.toml_config_path={split}", *overrides), folder)
    run(["tx", "predict", "--output-dir", f"runs/{name}", "--predict-only"], folder)
    return folder / "runs" / name / "eval_last.ckpt"


def held_out_in(*splits):
    """The tested perturbations of each file, of all lines."""
    return [[name for lists in read_split(split).fewshot.values() for name in lists["test"]] for split in splits]


@pytest.fixture(scope="module")
def one_line(build_once, project):
    """A folder with `raw.h5ad`, one line of the screen without columns of line and batch, and its embeddings."""

    def make(folder):
        cells = anndata.read_h5ad(project.h5ad)
        cells = cells[cells.obs["cell_line"] == "k562"].copy()
        del cells.obs["cell_line"], cells.obs["gem_group"]
        cells.write_h5ad(folder / "raw.h5ad")
        (folder / "embeddings.safetensors").symlink_to(project.embeddings)

    return build_once("one-line", make)


@pytest.mark.timeout(600)
def test_folds_by_perturbation_of_a_screen_without_a_line(one_line):
    said = ours(one_line, "data", "prepare", "raw.h5ad", "-o", "ready.h5ad")
    assert "added obs column 'cell_line': no column names the cell line, so all cells are of one, 'one_line'" in said
    assert "added obs column 'gem_group': no batch column was found" in said
    assert "next: state-rag data split ready.h5ad --held-out-perturbations 0.2" in said
    said = ours(one_line, "data", "split", "ready.h5ad", "--folds", 5, "-o", "split.toml")
    folds = [one_line / f"split_fold{number}.toml" for number in range(5)]
    tested = held_out_in(*folds)
    cells = anndata.read_h5ad(one_line / "ready.h5ad")
    assert sorted(name for fold in tested for name in fold) == sorted(set(cells.obs["gene"]) - {"non-targeting"})
    asks = f"asks unseen perturbation: {len(tested[0])} test conditions ({len(tested[0])} perturbations in one_line)"
    assert asks in ours(one_line, "data", "check", "split_fold0.toml")

    source = f"training.genept_path={one_line / 'embeddings.safetensors'}"
    for name in ("none", "ptrag"):
        found = trained_on(one_line, name, folds[0], f"rag={name}", "training.topk_rag=8", source)
        predicted = anndata.read_h5ad(found / "adata_pred.h5ad")
        assert set(predicted.obs["gene"]) == {*tested[0], "non-targeting"}
        assert set(predicted.obs["cell_line"]) == {"one_line"}
    said = ours(one_line, "evaluate", "runs/none", "--embeddings", "embeddings.safetensors")
    assert "not applicable: same pert., other lines (no test perturbation has training cells in another" in said
    folder = one_line / "runs" / "none" / "eval_last.ckpt" / "gge"
    assert sorted(pd.read_csv(folder / "results.csv")["perturbation"]) == sorted(tested[0])
    naive = pd.read_csv(folder / "baselines.csv").groupby("predictor")["pearson_delta"].mean()
    assert set(naive.index) == {"no effect", "mean effect", "embedding ridge", "evidence, controls scaled"}
    said = ours(one_line, "compare", "runs/none", "runs/ptrag", "-o", "tables")
    assert "Baseline that does not apply here: same pert., other lines" in said
    rows = pd.read_csv(one_line / "tables" / "comparison.csv")
    assert {"none", "ptrag", "mean effect", "embedding ridge"} <= set(rows["predictor"])
    ours(one_line, "report", "runs/none", "--metrics", "pearson_delta", "mse", "-o", "report")
    assert (one_line / "report" / "index.html").is_file()


@pytest.mark.timeout(300)
def test_what_quickstart_prints_for_one_line_holds_perturbations_out(one_line, tmp_path):
    printed = run(["quickstart", str(one_line / "raw.h5ad")], tmp_path, via=commands.OURS).stdout
    before_training, mark, _ = printed.partition("state tx train")
    assert mark
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    script = before_training.rpartition("#")[0]
    done = subprocess.run(["sh", "-ec", script], cwd=tmp_path, env={**os.environ, "PATH": path}, capture_output=True)
    assert done.returncode == 0, f"{script}\n{done.stderr.decode()}"
    (split,) = tmp_path.glob("*.toml")
    assert split.name == "split_perturbations.toml"
    assert b"asks    unseen perturbation: 5 test conditions (5 perturbations in one_line)" in done.stdout


@pytest.mark.timeout(300)
def test_several_lines_tested_at_once_are_evaluated_line_by_line(project, tmp_path):
    (tmp_path / "screen").symlink_to(project.folder / "screen")
    words = ["data", "split", "screen/screen.h5ad", "--held-out", "hepg2", "--held-out-perturbations", 0.2]
    ours(tmp_path, *words, "-o", "both.toml")
    said = ours(tmp_path, "data", "check", "both.toml")
    assert "asks unseen perturbation: 10 test conditions (5 perturbations in k562, rpe1)" in said
    assert "asks unseen perturbation in a zero-shot line: 5 test conditions (5 perturbations in hepg2)" in said
    trained_on(tmp_path, "none", tmp_path / "both.toml", "rag=none")
    said = ours(tmp_path, "evaluate", "runs/none", "--no-evidence")
    assert "different questions: 10 unseen perturbation (k562, rpe1); 5 unseen perturbation in a zero-shot line" in said
    table = pd.read_csv(tmp_path / "runs" / "none" / "eval_last.ckpt" / "gge" / "results.csv")
    assert table.groupby("cell_line").size().to_dict() == {"hepg2": 5, "k562": 5, "rpe1": 5}


@pytest.mark.timeout(600)
def test_one_line_of_real_cells_with_pairs(tmp_path):
    if not (SHARED / "perturbench_devel.h5ad").is_file():
        pytest.skip(f"{SHARED} is absent: real data were not tried")
    cells = anndata.read_h5ad(SHARED / "perturbench_devel.h5ad")
    cells = cells[cells.obs["cell_type"] == "k562"].copy()
    cells.obs = cells.obs[["condition"]]
    cells.write_h5ad(tmp_path / "k562.h5ad")
    ours(tmp_path, "data", "prepare", "k562.h5ad", "-o", "ready.h5ad", "--replogle-names", "--one-line", "k562")
    ours(tmp_path, "data", "split", "ready.h5ad", "--held-out-pairs", "both-seen", "-o", "pairs.toml")
    assert "by the members that train as singles: 1 both-seen" in ours(tmp_path, "data", "check", "pairs.toml")
    said = ours(tmp_path, "data", "split", "ready.h5ad", "--folds", 5, "-o", "split.toml")
    assert "that contain a held-out one for validation" in said
    folds = [tmp_path / f"split_fold{number}.toml" for number in range(5)]
    assert len({name for fold in held_out_in(*folds) for name in fold}) == sum(map(len, held_out_in(*folds))) == 33
    assert "NOT wholly unseen" not in ours(tmp_path, "data", "check", "split_fold0.toml")

    trained_on(tmp_path, "none", folds[0], "rag=none")
    ours(tmp_path, "compare", "runs/none", "--embeddings", SHARED / "gene_summaries.json", "-o", "tables")
    results = pd.read_csv(tmp_path / "runs" / "none" / "eval_last.ckpt" / "gge" / "results.csv")
    assert sorted(results["perturbation"]) == sorted(held_out_in(folds[0])[0])
    assert results["pearson_delta"].notna().all()
    rows = pd.read_csv(tmp_path / "tables" / "comparison.csv")
    assert {"none", "mean effect"} <= set(rows["predictor"])
    assert "same pert., other lines" not in set(rows["predictor"])
