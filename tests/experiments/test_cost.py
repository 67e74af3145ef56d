import io
import time

import pytest
from rich.console import Console

from state_rag.experiments.cost import SecondsOf, duration, estimate
from state_rag.experiments.jobs import write_job
from state_rag.experiments.plan import Plan
from state_rag.experiments.progress import Progress
from tests.experiments.test_jobs import a_job


def a_plan(tmp_path, name, **changes) -> Plan:
    size = {"steps": 10, "cells": 100, "weights": 7}
    job = a_job(tmp_path, name, status="waiting", predictions=None, seconds=None, **changes)
    return Plan(job, tmp_path, None, "last.ckpt", False, None, "mse", None, training=size)


def test_jobs_cost_what_finished_ones_of_their_method_and_size_took(tmp_path):
    small, large = ("training.lr=1", "rag=x"), ("training.lr=1", "model.kwargs.hidden_dim=9")
    records = [
        a_job(tmp_path, "a", overrides=(*small, "training.train_seed=0"), seconds=10.0),
        a_job(tmp_path, "b", overrides=(*small, "training.train_seed=1"), seconds=20.0),
        a_job(tmp_path, "c", overrides=small, method="none", topk=None, seconds=99.0),
        a_job(tmp_path, "d", overrides=small, status="failed", seconds=500.0),
    ]
    times = SecondsOf(records)
    assert times.like(a_plan(tmp_path, "e", overrides=small).job) == 15.0
    assert times.like(a_plan(tmp_path, "e", overrides=small, method="vanilla").job) == pytest.approx(43.0)
    assert times.like(a_plan(tmp_path, "e", overrides=large).job) is None

    cost = estimate([a_plan(tmp_path, "e", overrides=small), a_plan(tmp_path, "f", overrides=large)], records)
    assert (cost.seconds, cost.measured, cost.counted) == (15.0, 1, 1)
    assert (cost.cells, cost.flops) == (1000, 6 * 7 * 1000)
    assert len(cost.lines()) == 2


def test_nothing_left_costs_nothing():
    assert estimate([], []).lines() == ["Nothing is left to run."]


def test_durations_are_said_as_people_do():
    assert [duration(seconds) for seconds in (0.4, 99, 101, 150, 210, 5399, 5401)] == [
        "0 s",
        "99 s",
        "2 min",
        "3 min",
        "4 min",
        "90 min",
        "1.5 h",
    ]


def test_the_time_left_goes_by_finished_jobs_and_by_how_many_run_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(time, "monotonic", lambda: 100.0)
    jobs = [a_job(tmp_path, "a", seconds=10.0)]
    jobs += [a_job(tmp_path, name, status="running", seconds=None) for name in "bc"]
    jobs += [a_job(tmp_path, name, status="waiting", seconds=None) for name in "de"]
    progress = Progress(tmp_path, jobs, "mse", Console(file=io.StringIO()))
    progress.since = {"b": 96.0}
    assert progress.seconds_left() == (40.0 - 4.0) / 2
    assert progress.line() == "1 of 5 done, 2 running, 0 failed, about 18 s left"


def test_no_time_is_given_before_a_job_has_finished(tmp_path):
    progress = Progress(tmp_path, [a_plan(tmp_path, "a").job], "mse", Console(file=io.StringIO()))
    assert progress.line() == "0 of 1 done, 0 running, 0 failed"


def test_changes_of_records_become_lines(tmp_path):
    stream = io.StringIO()
    job = a_plan(tmp_path, "a").job
    progress = Progress(tmp_path, [job], "mse", Console(file=stream, width=50))
    progress.look()
    for status in ("running", "failed", "running", "finished"):
        write_job(tmp_path, a_job(tmp_path, "a", status=status, error="why" if status == "failed" else None))
        progress.look()
        progress.look()
    lines = [line.split(" ", 1)[1] for line in stream.getvalue().splitlines()]
    assert [line.split()[0] for line in lines] == ["started", "failed", "started", "finished"]
    assert lines[1].startswith(f"failed a: why Log: {job.log} (0 of 1 done")
    assert "1 of 1 done" in lines[3]
