import io
import re
from dataclasses import replace

import pytest
from rich.console import Console

from state_rag.cli import main
from state_rag.errors import StateRagError
from state_rag.experiments import lock
from state_rag.experiments.jobs import read_jobs, write_job
from state_rag.experiments.lock import job_lock
from state_rag.experiments.sweep import state_of, sweep
from tests.experiments.stand_in import write_checkpoint
from tests.experiments.test_cost import a_plan


@pytest.fixture
def start(in_screen, stand_in, tmp_path, monkeypatch):
    """Return a function that runs a sweep in `tmp_path` / x and returns what it printed."""
    monkeypatch.setattr(lock, "GLANCE", 0.05)

    def run(*overrides, fails=None, width=200, **options):
        stream = io.StringIO()
        arguments = [*in_screen, f"sweep_dir={tmp_path}/x", *overrides]
        console = Console(file=stream, width=width)
        if fails is None:
            sweep(arguments, multirun=True, console=console, **options)
        else:
            with pytest.raises(StateRagError, match=fails):
                sweep(arguments, multirun=True, console=console, **options)
        return stream.getvalue()

    run.orders = stand_in
    return run


def test_every_combination_is_run_and_equal_jobs_once(start, tmp_path):
    grid = ("held_out=k562", "rag=none,ptrag", "training.topk_rag=2,4")
    listed = start(*grid, dry_run=True)
    assert not (tmp_path / "x").exists()
    assert (listed.count("new"), listed.count("same as #0")) == (3, 1)
    assert "3 to run: no job of this size has finished" in listed
    assert f"{3 * 400_000 * 16 * 512:,} cells" in listed

    printed = start(*grid)
    jobs = read_jobs(tmp_path / "x")
    assert [(job.method, job.topk, job.status) for job in jobs] == [
        ("none", None, "finished"),
        ("differentiable", 2, "finished"),
        ("differentiable", 4, "finished"),
    ]
    assert "topk_rag=" not in printed
    assert "3 jobs (1 more are the same as one of these)" in printed
    assert "3 of 3 done, 0 running, 0 failed" in printed
    assert all(re.search(rf"{re.escape(job.name)} in \d+ s, pearson_delta 0\.250", printed) for job in jobs)
    assert all(str(tmp_path / "x" / place) in printed for place in ("runs", "jobs", "splits"))
    assert all(job.run_folder.is_dir() and job.log.is_file() for job in jobs)

    logs = {job.log: job.log.read_text() for job in jobs}
    assert "started" not in start(*grid)
    assert {log: log.read_text() for log in logs} == logs

    listed = start("held_out=k562", "rag=ptrag", "training.topk_rag=4,6", dry_run=True)
    assert [line.split()[-1] for line in listed.splitlines() if "ptrag-" in line] == ["finished", "new"]
    assert re.search(r"1 to run: \d+ s one after the other, going by finished jobs", listed)


def test_a_listing_goes_unbroken_into_a_pipe(in_screen, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("COLUMNS", raising=False)
    sweep([*in_screen, f"sweep_dir={tmp_path}/x", "held_out=k562", "rag=none"], multirun=True, dry_run=True)
    (row,) = [line.split() for line in capsys.readouterr().out.splitlines() if " none-k562-" in line]
    assert row[2:] == ["STATE", "k562", "-", "0", "new"]


def test_a_failing_job_is_reported_with_its_log_and_does_not_stop_the_others(start, tmp_path):
    start("held_out=k562", "rag=genept")
    (first,) = read_jobs(tmp_path / "x")
    start.orders("fail=train")

    printed = start(
        "held_out=k562", "rag=none,genept,ptrag", fails=r"2 of 3 jobs failed[\s\S]*told to fail[\s\S]*log: "
    )

    status = {job.preset: job.status for job in read_jobs(tmp_path / "x")}
    assert status == {"none": "failed", "genept": "finished", "ptrag": "failed"}
    assert "2 failed" in printed
    assert f"Log: {first.log}" not in printed


def test_a_failed_job_gives_status_one_and_goes_on_the_next_time(in_screen, stand_in, tmp_path, capsys):
    arguments = ["sweep", *in_screen, "held_out=k562", "--sweep-dir", str(tmp_path / "a b")]
    stand_in("fail=predict")
    assert main(arguments) == 1
    assert "1 of 1 jobs failed" in capsys.readouterr().err
    stand_in("")
    assert main(arguments) == 0
    (job,) = read_jobs(tmp_path / "a b")
    assert job.log.read_text().count("tx train") == 2  # the command in the log, and what it said
    assert job.status == "finished"


def test_a_job_that_another_sweep_runs_is_left_to_it(start, tmp_path):
    start("held_out=k562", "rag=none")
    (job,) = read_jobs(tmp_path / "x")
    write_job(tmp_path / "x", replace(job, status="running", predictions=None))
    with job_lock(tmp_path / "x", job.name):
        printed = start("held_out=k562", "rag=none,genept")
    assert "running elsewhere" in printed
    assert "1 of 2 jobs have not ended" in printed
    assert {job.status for job in read_jobs(tmp_path / "x")} == {"running", "finished"}


def test_where_a_job_stands_is_told_from_its_files(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "GLANCE", 0.05)
    plan = a_plan(tmp_path, "a")
    checkpoints = plan.job.run_folder / "checkpoints"
    assert state_of(plan, tmp_path) == "new"
    write_job(tmp_path, replace(plan.job, status="failed"))
    assert state_of(plan, tmp_path) == "failed before"
    write_checkpoint(checkpoints / "last.ckpt", "")
    assert state_of(plan, tmp_path) == "resume: train on"
    write_checkpoint(checkpoints / "final.ckpt", "")
    assert state_of(plan, tmp_path) == "resume: predict"
    predictions = plan.job.run_folder / "eval_last.ckpt"
    (predictions / "gge").mkdir(parents=True)
    write_job(tmp_path, replace(plan.job, status="finished", predictions=predictions))
    assert state_of(plan, tmp_path) == "resume: evaluate"
    (predictions / "gge" / "summary.json").touch()
    assert state_of(plan, tmp_path) == "finished"
    with job_lock(tmp_path, "a"):
        assert state_of(plan, tmp_path) == "running elsewhere"


def test_nothing_starts_if_one_configuration_is_refused_and_equal_reasons_are_told_once(start, tmp_path):
    start(
        "held_out=k562,mars", "seed=0,1", fails=r"2 of 4 configurations cannot run(?s:.*)\(seed=0, and 1 more like it\)"
    )
    assert not (tmp_path / "x" / "jobs").exists()


def test_a_sweep_has_one_folder(start, tmp_path):
    start("held_out=k562", f"sweep_dir={tmp_path}/a,{tmp_path}/b", fails=r"1 of 2 .*(?s:.*)a sweep has one folder")
    assert list(tmp_path.glob("*/jobs")) == []


def test_what_differs_besides_has_a_column_and_a_narrow_terminal_keeps_names_whole(start):
    grid = ("held_out=k562", "rag=ptrag", "training.rag_fusion=replace,residual")
    wide, narrow = (start(*grid, dry_run=True, width=width) for width in (200, 80))
    for printed in (wide, narrow):
        assert printed.count("rag_fusion=residual") == 1
    assert "PT-RAG" in wide
    assert "PT-RAG" not in narrow
    assert all(word in narrow for word in wide.split() if word.startswith("ptrag-k562-k32-"))


@pytest.mark.parametrize("at", [0, 1, 2])
def test_options_may_stand_anywhere_on_the_command_line(monkeypatch, at):
    called = []
    monkeypatch.setattr("state_rag.experiments.sweep.sweep", lambda *given, **options: called.append((given, options)))
    overrides = ["rag=none,ptrag", "~wandb.tags"]

    assert main(["sweep", *overrides[:at], "-m", "--dry-run", "--sweep-dir", "a b", *overrides[at:]]) == 0

    assert called == [(([*overrides, "sweep_dir='a b'"],), {"multirun": True, "dry_run": True})]


def test_help_names_the_axes(capsys):
    with pytest.raises(SystemExit):
        main(["sweep", "--help"])
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("held_out=", "hydra/launcher=", "--dry-run"))


def test_a_search_is_told_the_scores(start, tmp_path):
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    printed = start("sweep=tune", "held_out=k562", "hydra.sweeper.n_trials=2", "hydra.sweeper.sampler.seed=1")
    jobs = read_jobs(tmp_path / "x")
    assert [job.status for job in jobs] == ["finished", "finished"]
    assert "up to 2 jobs" in printed
    assert "2 of 2 done" in printed
    assert "best_value: 0.25" in (tmp_path / "x" / "hydra" / "optimization_results.yaml").read_text()
