import logging

import pytest
import wandb

from state_rag.tracking import evaluation_run
from state_rag.tracking.evaluation_run import log_evaluation
from state_rag.tracking.run_record import PATH_FILE

WHAT = {"means": {"mse": 1.0}, "tables": {"table": (["a"], [[1]])}, "pictures": {}}


@pytest.fixture
def run_folder(tmp_path, monkeypatch):
    """A run that was tracked."""
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.delenv("WANDB_DISABLED", raising=False)
    monkeypatch.setattr(evaluation_run, "is_logged_in", lambda: True)
    (tmp_path / PATH_FILE).write_text("team/state/abc")
    return tmp_path


@pytest.fixture
def forbidden(monkeypatch):
    monkeypatch.setattr(wandb, "init", lambda **_: pytest.fail("W&B was started"))


def test_a_run_that_wandb_did_not_track_is_left_alone(tmp_path, monkeypatch, forbidden):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    assert log_evaluation(tmp_path, **WHAT) is False


@pytest.mark.parametrize(("name", "value"), [("WANDB_MODE", "disabled"), ("WANDB_DISABLED", "true")])
def test_disabled_means_disabled(name, value, run_folder, monkeypatch, forbidden):
    monkeypatch.setenv(name, value)
    assert log_evaluation(run_folder, **WHAT) is False


def test_whatever_goes_wrong_in_wandb_is_one_line_of_warning(run_folder, monkeypatch, caplog):
    def init(**_):
        raise wandb.errors.CommError("no route to host\nand many more lines")

    monkeypatch.setattr(wandb, "init", init)
    with caplog.at_level(logging.INFO):
        assert log_evaluation(run_folder, **WHAT) is False
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "no route to host" in record.getMessage()
    assert "\n" not in record.getMessage()


def test_without_a_login_nobody_is_asked_for_one(run_folder, monkeypatch, caplog, forbidden):
    monkeypatch.setattr(evaluation_run, "is_logged_in", lambda: False)
    assert log_evaluation(run_folder, **WHAT) is False
    assert "wandb login" in caplog.text


def test_a_damaged_record_is_a_warning_too(run_folder, caplog, forbidden):
    (run_folder / PATH_FILE).write_text("")
    assert log_evaluation(run_folder, **WHAT) is False
    assert PATH_FILE in caplog.text


def test_the_run_is_resumed_by_its_id(run_folder, monkeypatch):
    asked = {}

    class Run:
        step, offline, url, summary = 3, False, "https://w", {}

        def log(self, values, step=None):
            asked["logged"] = set(values), step

        def finish(self):
            asked["finished"] = True

    monkeypatch.setattr(wandb, "init", lambda **given: asked.update(given) or Run())
    assert log_evaluation(run_folder, **WHAT) is True
    assert (asked["entity"], asked["project"], asked["id"], asked["resume"]) == ("team", "state", "abc", "allow")
    assert asked["logged"] == ({"evaluation/table"}, None)
    assert asked["finished"]
    assert Run.summary == {"evaluation/mse": 1.0}


def test_an_evaluation_that_is_only_shown_again_is_not_logged_again(run_folder, monkeypatch):
    logged = []

    class Run:
        step, offline, url = 3, False, "https://w"

        def __init__(self):
            self.summary = {}

        def log(self, values, step=None):
            logged.append(self.summary["evaluation/mse"])

        def finish(self):
            pass

    monkeypatch.setattr(wandb, "init", lambda **_: Run())
    for mse, digest in ((1.0, "a"), (1.0, "a"), (2.0, "b"), (2.0, "b"), (1.0, "a")):
        log_evaluation(run_folder, means={"mse": mse}, tables={}, pictures={}, digest=digest)
    assert logged == [1.0, 2.0, 1.0]
    log_evaluation(run_folder, means={"mse": 3.0}, tables={}, pictures={})
    log_evaluation(run_folder, means={"mse": 3.0}, tables={}, pictures={})
    assert logged[3:] == [3.0, 3.0]
