"""A training that W&B tracked offline, and its evaluation, read back by W&B's own reader."""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from state_rag.files import sample_digest
from state_rag.tracking.run_record import RunRecord
from tests.end_to_end import commands, wandb_log

pytestmark = pytest.mark.slow

OFFLINE = {"WANDB_MODE": "offline", "WANDB_RUN_GROUP": "paper", "WANDB_DATA_DIR": "data", "WANDB_CACHE_DIR": "cache"}
LINES = ("hepg2", "k562", "rpe1")
SCALARS = {
    "train_loss",
    "val_loss",
    "train/gumbel_active_ratio",
    "train/gumbel_sparsity",
    "train/gradient_norm_selector",
    "train/gradient_norm_backbone",
    "train/gradient_norm_ratio",
    "retrieval/n_selected",
    *(f"retrieval/n_selected_by_cell_type/{line}" for line in LINES),
    *(f"retrieval/inclusion/rank_{band}" for band in ("01", "02", "03-04", "05-08")),
    "retrieval/score_mean",
    "retrieval/score_std",
    "retrieval/score_scale",
    "retrieval/temperature",
    "val_retrieval/n_selected",
    *(f"val_retrieval/n_selected_by_cell_type/{line}" for line in LINES),
    "val_retrieval/jaccard_mean",
    "gradients/selector",
    "gradients/transformer_backbone",
}


@pytest.fixture(scope="module")
def watched(project):
    """One perturbation of the validation list and one of the test list of the held-out line."""
    split = project.split.read_text()
    return [split.split(f"{part} = [")[1].split('"')[1] for part in ("val", "test")]


@pytest.fixture(scope="module")
def tracked(build_once, project, watched) -> Path:
    """A folder with `runs/tracked`, trained offline, predicted and evaluated."""

    def make(folder: Path) -> None:
        flags = ["check_gradients=true", "gradient_check_interval=4", f"rag_watch=[{','.join(watched)}]"]
        arguments = project.train_rag(
            "tracked", *(f"training.{flag}" for flag in flags), "use_wandb=true", "+wandb.notes=kept"
        )
        for given in (arguments, ["tx", "predict", "--output-dir", "runs/tracked", "--eval-genept-pert"]):
            finished = commands.run(given, folder, env=OFFLINE)
            (folder / f"{given[1]}.txt").write_text(finished.stderr)

    return build_once("tracked", make)


@pytest.fixture(scope="module")
def logs(tracked):
    """What W&B recorded: of the training and of the evaluation."""
    return [wandb_log.read(path) for path in sorted((tracked / "wandb").glob("offline-run-*"))]


def test_the_training_has_every_series(logs):
    missing = SCALARS - logs[0].names()
    assert not missing
    for name in SCALARS - {name for name in SCALARS if name.startswith(("retrieval/n_selected_by", "gradients/"))}:
        steps = list(logs[0].series(name))
        assert steps == ([5, 11] if name.startswith("val") else [1, 3, 5, 7, 9, 11]), name
    assert list(logs[0].series("gradients/selector")) == [0, 4, 8]


def test_the_csv_logger_has_the_same_scalars(logs, tracked):
    with open(tracked / "runs" / "tracked" / "version_0" / "metrics.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    for name in SCALARS:
        in_csv = {int(row["step"]): float(row[name]) for row in rows if row.get(name)}
        assert in_csv == pytest.approx(logs[0].series(name)), name


def test_inclusion_by_rank_is_a_histogram_at_every_logging_step(logs):
    rows = [row for row in logs[0].history.values() if row.get("retrieval/inclusion_by_rank._type") == "histogram"]
    assert len(rows) == 6
    for row in rows:
        assert len(row["retrieval/inclusion_by_rank.values"]) == 8
        assert row["retrieval/inclusion_by_rank.bins"][:2] == [0.5, 1.5]


def test_diversity_is_a_heat_map_and_a_table_of_all_pairs_of_lines(logs):
    pictures = logs[0].pictures("val_retrieval/jaccard_heatmap")
    assert len(pictures) == 2
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in pictures)
    for table, mean in zip(
        logs[0].tables("val_retrieval/jaccard"), logs[0].series("val_retrieval/jaccard_mean").values(), strict=True
    ):
        pairs = {(row[0], row[1]) for row in table["data"]}
        assert pairs == {("hepg2", "k562"), ("hepg2", "rpe1"), ("k562", "rpe1")}
        assert sum(row[2] for row in table["data"]) / 3 == pytest.approx(mean, rel=1e-5)


def test_watched_perturbations_have_their_neighbours_in_each_line_over_time(logs, tracked, watched):
    table = logs[0].tables("val_retrieval/watched")[-1]
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    seen = [(row["step"], row["perturbation"], row["cell_type"]) for row in rows]
    assert seen == [(step, name, line) for step in (5, 11) for name in watched for line in LINES]
    assert all(row["retrieved_perturbations"].count("(w=") == 8 for row in rows)
    with open(tracked / "runs" / "tracked" / "version_0" / "watched_neighbours.csv", newline="") as stream:
        in_file = [{**row, "step": int(row["step"])} for row in csv.DictReader(stream)]
    assert in_file == [{**row, "n_selected": str(row["n_selected"])} for row in rows]


def test_one_filter_finds_the_run_by_method_line_and_k(logs):
    run, config = logs[0].run, logs[0].config
    assert (run["run_group"], run["job_type"]) == ("paper", "train")
    assert run["project"] == "state"
    assert "entity" not in run
    assert set(run["tags"]) == {"method=differentiable", "held_out=hepg2", "topk=8"}
    assert (config["method"], config["held_out"], config["topk"]) == ("differentiable", "hepg2", 8)


def test_the_configuration_says_where_the_run_comes_from(logs, project):
    facts = logs[0].config["state_rag"]
    assert facts["embeddings"] == {"embeddings.safetensors": sample_digest(project.embeddings)}
    assert facts["data"] == {
        "split": sample_digest(project.split),
        "files": {"screen.h5ad": sample_digest(project.h5ad)},
    }
    assert {"torch", "arc-state", "state-rag", "cell-load"} <= set(facts["packages"])
    assert facts["settings"]["topk_rag"] == 8
    assert facts["git"] is None


def test_the_configuration_restores_the_runs_own(logs, tracked, tmp_path, compose):
    command = [sys.executable, "-m", "state_rag.cli", "wandb-config", str(logs[0].folder), "-o", "config.yaml"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    original = tracked / "runs" / "tracked" / "config.yaml"
    assert (tmp_path / "config.yaml").read_bytes() == original.read_bytes()
    config = yaml.safe_load(original.read_text())
    assert config["wandb"]["notes"] == "kept"
    printed = subprocess.run([*command[:-2], "--overrides"], check=True, capture_output=True, text=True).stdout
    assert compose(*printed.splitlines()) == config


def test_the_evaluation_is_in_the_same_run_after_the_training(logs, tracked):
    training, evaluation = logs
    for key in ("run_id", "project", "display_name", "run_group", "job_type"):
        assert evaluation.run[key] == training.run[key], key
    assert set(evaluation.run["tags"]) == set(training.run["tags"])
    assert evaluation.run["resume"] is True
    own = {key: value for key, value in training.config.items() if key != "_wandb"}
    assert {key: value for key, value in evaluation.config.items() if key != "_wandb"} == own
    assert min(evaluation.history) > max(training.history)
    # When both folders are synchronised, the later summary replaces the first.
    assert evaluation.summary["val_loss"] == training.summary["val_loss"]
    latest = max(step for step, row in training.history.items() if "val_retrieval/watched.path" in row)
    path = training.history[latest]["val_retrieval/watched.path"]
    assert evaluation.summary["val_retrieval/watched"]["path"] == path
    assert (tracked / "runs" / "tracked" / "wandb_path.txt").read_text().endswith(training.run["run_id"])


def test_the_evaluation_brings_its_table_conditions_plot_and_means(logs, tracked):
    evaluation, results = logs[1], tracked / "runs" / "tracked" / "eval_last.ckpt" / "gge"
    summary = json.loads((results / "summary.json").read_text())
    (table,), (conditions,) = evaluation.tables("evaluation/table"), evaluation.tables("evaluation/conditions")
    rows = {row[0]: dict(zip(table["columns"], row, strict=True)) for row in table["data"]}
    assert "tracked" in rows
    assert len(rows) > 1
    model = rows["tracked"]
    assert model["conditions"] == len(conditions["data"])
    assert model["pearson_delta"] == pytest.approx(evaluation.summary["evaluation/pearson_delta"])
    assert model["mse"] == pytest.approx(_aggregate(summary, "mse_mean"))
    assert evaluation.summary["evaluation/checkpoint"] == "last.ckpt"
    assert len(evaluation.pictures("evaluation/distributions")) == 1


def test_disabled_leaves_no_trace_and_predicts_the_same(tracked, tmp_path):
    copy = Path(shutil.copytree(tracked / "runs" / "tracked", tmp_path / "runs" / "tracked"))
    command = [sys.executable, "-m", "state_rag.cli", "evaluate", str(copy), "--quiet", "--metrics", "mse"]
    environment = {"WANDB_MODE": "disabled"}
    finished = commands.run([], tmp_path, via=command, env=environment)
    assert "W&B" not in finished.stderr
    assert not (tmp_path / "wandb").exists()
    assert RunRecord.read(copy) == RunRecord.read(tracked / "runs" / "tracked")


def _aggregate(summary: dict, name: str) -> float:
    """Find an aggregate wherever the summary keeps it."""
    if name in summary:
        return summary[name]
    found = [_aggregate(value, name) for value in summary.values() if isinstance(value, dict)]
    return next((value for value in found if value is not None), None)  # type: ignore[return-value]
