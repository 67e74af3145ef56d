import json

import pytest
import wandb

from state_rag.engine.fit_facts import fit_numbers, fit_tables
from state_rag.engine.fit_tracking import track
from state_rag.engine.folder import read_run
from state_rag.tracking import fit_run
from state_rag.tracking.run_record import FILE


@pytest.fixture(scope="module")
def folder(evidence_run):
    return evidence_run[1]


@pytest.fixture
def run(folder):
    return read_run(folder)


def test_numbers_are_those_of_the_engine_by_use(run):
    numbers = fit_numbers(run.engine)
    (use,) = run.engine.trained
    learned = run.engine.trained[use]
    assert {numbers[f"{use}/correlation/{name}"] for name in learned.scores} == set(learned.scores.values())
    assert numbers[f"{use}/weight/text"] + numbers[f"{use}/weight/responses"] == pytest.approx(1)
    assert numbers[f"{use}/trust/conditions"] == run.engine.calibrated[use].conditions


def test_tables_say_which_method_is_used_and_what_the_sources_are(run):
    tables = fit_tables(run.engine, run.config["sources"])
    columns, rows = tables["scores"]
    used = [dict(zip(columns, row, strict=True)) for row in rows if row[columns.index("used")]]
    (use,) = run.engine.trained
    learned = run.engine.trained[use]
    assert [one["method"] for one in used] == ["fusion" if learned.fusion is not None else learned.estimate]
    columns, rows = tables["sources"]
    assert {row[columns.index("source")] for row in rows} == {"text", "responses"}
    assert len(tables["trust"][1]) == 1
    for _, rows in tables.values():
        for column in zip(*rows, strict=True):
            assert len({type(value) for value in column if value is not None}) <= 1


def test_a_fit_is_a_run_of_wandb_that_evaluations_go_to(run, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_RUN_GROUP", "paper")
    monkeypatch.delenv("WANDB_DISABLED", raising=False)
    copy = tmp_path / "engine"
    copy.mkdir()
    (copy / "config.yaml").write_text((folder / "config.yaml").read_text())
    assert track(run, copy)
    record = json.loads((copy / FILE).read_text())
    assert (record["job_type"], record["group"], record["project"]) == ("fit", "paper", "state")
    assert record["tags"] == ["method=evidence", "held_out=hepg2"]
    assert (record["config"]["method"], record["config"]["held_out"]) == ("evidence", "hepg2")
    assert set(record["config"]["state_rag"]) == {"config_yaml", "git", "packages", "data", "embeddings"}
    numbers = fit_numbers(run.engine)
    summary = record["summary"]
    assert {name: summary[f"evidence/{name}"] for name in numbers} == pytest.approx(numbers)
    assert {"evidence/scores", "evidence/sources", "evidence/trust"} <= set(summary)


@pytest.mark.parametrize("mode", ["disabled", "broken"])
def test_wandb_never_stops_a_fit(run, folder, monkeypatch, caplog, mode):
    def init(**_):
        if mode == "disabled":
            pytest.fail("W&B was started")
        raise wandb.errors.CommError("no route\nand more")

    monkeypatch.setattr(wandb, "init", init)
    monkeypatch.setattr(fit_run, "is_logged_in", lambda: True)
    monkeypatch.setenv("WANDB_MODE", "disabled" if mode == "disabled" else "online")
    assert track(run, folder) is False
    assert ("was not logged to W&B (no route)" in caplog.text) == (mode == "broken")
