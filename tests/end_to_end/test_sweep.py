"""`state-rag sweep` with the real commands: killed, resumed, and spread over processes it ends with the same table."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from state_rag.experiments.jobs import Job, read_jobs
from tests.end_to_end import commands

SWEEP = (sys.executable, "-m", "state_rag.cli", "sweep", "-m")
LIMIT = 400
"""Seconds after which a sweep that is waited for has failed."""


def arguments(project, folder: Path, *more: str) -> list[str]:
    """Two methods, one line, K = 4, six steps: a plain job and one that retrieves."""
    size = [text for text in commands.SHORT if not text.startswith(("training.max_steps", "training.val_freq"))]
    given = ["rag=none,ptrag", "held_out=k562", "training.topk_rag=4", "training.max_steps=6", "training.val_freq=6"]
    files = [f"data_file={project.h5ad}", f"training.genept_path={project.embeddings}"]
    return [*SWEEP, *given, *files, *size, *commands.TINY_MODEL, "--sweep-dir", str(folder), *more]


def run(command: list[str], cwd: Path) -> str:
    finished = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert finished.returncode == 0, f"{finished.stdout[-3000:]}\n{finished.stderr[-3000:]}"
    return finished.stdout


def results(folder: Path) -> dict[str, pd.DataFrame]:
    """The evaluation of every job, by the job's name."""
    jobs = read_jobs(folder)
    assert [job.status for job in jobs] == ["finished"] * len(jobs)
    return {job.name: pd.read_csv(job.predictions / "gge" / "results.csv") for job in jobs if job.predictions}


def assert_same_table(one: Path, other: Path) -> None:
    first, second = results(one), results(other)
    assert list(first) == list(second)
    for name in first:
        assert len(first[name]) > 5
        pd.testing.assert_frame_equal(first[name], second[name], check_exact=True)


def with_first_job_of(done: Path, folder: Path) -> None:
    """Make a sweep of which the first job has ended, for time: a copy."""
    job, _ = read_jobs(done)
    shutil.copytree(job.run_folder, folder / "runs" / job.name)
    (folder / "jobs").mkdir()
    shutil.copy(done / "jobs" / f"{job.name}.json", folder / "jobs")


def wait_until(found, process: subprocess.Popen) -> None:
    until = time.monotonic() + LIMIT
    while not found():
        assert process.poll() is None, "the sweep ended before it could be killed"
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.fixture(scope="session")
def serial(build_once, project) -> Path:
    """A sweep that ran undisturbed, one job after the other."""

    def make(folder: Path) -> None:
        (folder / "printed.txt").write_text(run(arguments(project, folder / "a sweep"), folder))

    return build_once("serial-sweep", make) / "a sweep"


@pytest.mark.slow
def test_a_sweep_ends_with_every_job_evaluated_and_every_place_named(serial):
    printed = (serial.parent / "printed.txt").read_text()

    plain, retrieving = read_jobs(serial)
    assert (plain.method, plain.topk, plain.held_out) == ("none", None, "k562")
    assert (retrieving.method, retrieving.topk, retrieving.held_out) == ("differentiable", 4, "k562")
    assert "2 of 2 done, 0 running, 0 failed" in printed
    for job in (plain, retrieving):
        assert job.seconds
        assert job.seconds > 1
        assert f"finished {job.name}" in printed
    table = results(serial)[retrieving.name]
    assert set(table["cell_line"]) == {"k562"}
    assert table["pearson_delta"].notna().any()
    for place in ("runs", "jobs", "splits"):
        assert str(serial / place) in printed
    baselines = [pd.read_csv(job.predictions / "gge" / "baselines.csv") for job in (plain, retrieving)]
    engine = [rows[rows["predictor"] == "evidence, controls scaled"] for rows in baselines]
    assert len(engine[0]) == len(table)
    pd.testing.assert_frame_equal(*engine, check_exact=True)


@pytest.mark.slow
def test_a_killed_sweep_that_joblib_ends_does_only_what_is_left_and_has_the_same_table(serial, project, tmp_path):
    folder = tmp_path / "killed"
    with_first_job_of(serial, folder)
    process = subprocess.Popen(arguments(project, folder), cwd=tmp_path, stdout=subprocess.PIPE, start_new_session=True)

    def jobs() -> list[Job]:
        return read_jobs(folder) if (folder / "jobs").is_dir() else []

    try:
        wait_until(lambda: [job.status for job in jobs()] == ["finished", "running"], process)
        second = jobs()[1]
        wait_until((second.run_folder / "config.yaml").is_file, process)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    first, second = jobs()
    assert (first.status, second.status) == ("finished", "running")
    untouched = {path: path.stat().st_mtime_ns for path in first.run_folder.rglob("*")}

    printed = run(arguments(project, folder, "hydra/launcher=two_at_once"), tmp_path)

    assert f"started {second.name}" in printed
    assert f"started {first.name}" not in printed
    assert {path: path.stat().st_mtime_ns for path in first.run_folder.rglob("*")} == untouched
    assert_same_table(folder, serial)


@pytest.mark.slow
def test_submitit_evaluates_again_what_was_removed(serial, project, tmp_path):
    """The trained runs are those of the serial sweep, for time; the job itself runs in submitit's process."""
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    folder = tmp_path / "moved"
    shutil.copytree(serial, folder)
    first, second = read_jobs(folder)
    assert second.predictions is not None
    (second.predictions / "gge" / "summary.json").unlink()

    printed = run(arguments(project, folder, "hydra/launcher=local_queue"), tmp_path)

    assert f"started {second.name}" in printed
    assert f"started {first.name}" not in printed
    assert "state_rag.cli evaluate" in second.log.read_text()
    assert list((folder / "hydra" / ".submitit").iterdir())
    assert_same_table(folder, serial)
