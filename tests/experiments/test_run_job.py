import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from state_rag.errors import StateRagError
from state_rag.experiments import lock, run_job
from state_rag.experiments.jobs import read_job, write_job
from state_rag.experiments.lock import job_lock
from state_rag.experiments.plan import Plan
from state_rag.experiments.run_job import current, is_finished, is_whole, score
from tests.experiments.stand_in import read_checkpoint, write_checkpoint
from tests.experiments.test_jobs import a_job


@pytest.fixture
def plan(tmp_path) -> Plan:
    job = a_job(tmp_path, "ptrag", status="waiting", predictions=None, seconds=None)
    return Plan(
        job=job,
        split=tmp_path / "split.toml",
        embeddings=tmp_path / "embeddings.npz",
        checkpoint="last.ckpt",
        only_with_embedding=True,
        cell_eval=None,
        objective="pearson_delta",
        threads=3,
    )


def run(plan: Plan, folder: Path):
    job = run_job.run_job(plan, folder)
    assert job is not None
    assert read_job(folder, job.name) == job
    return job


def commands(plan: Plan) -> list[str]:
    """What the stand-in was called with, one word for each call."""
    said = [line.split() for line in plan.job.log.read_text().splitlines() if line.startswith("stand-in:")]
    return [words[2] if words[1] == "tx" else words[1] for words in said]


def test_a_job_trains_predicts_and_evaluates(stand_in, plan, tmp_path):
    job = run(plan, tmp_path)

    assert (job.status, job.error) == ("finished", None)
    assert job.predictions == job.run_folder / "eval_last.ckpt"
    assert is_finished(job)
    assert score(job, "pearson_delta") == 0.25
    assert score(job, "mse") != score(job, "mse")
    assert job.seconds is not None
    assert job.seconds > 0
    assert commands(plan) == ["train", "predict"]
    log = job.log.read_text()
    assert "rag=ptrag training.topk_rag=8" in log
    assert "overwrite=false" in log
    assert "--checkpoint last.ckpt" in log
    assert "--predict-only --eval-genept-pert" in log
    assert f"threads 3 group {tmp_path.name}" in log


def test_a_prediction_that_does_not_evaluate_is_evaluated(stand_in, plan, tmp_path):
    job = run(replace(plan, only_with_embedding=False, embeddings=None, cell_eval="minimal"), tmp_path)

    assert job.status == "finished"
    assert commands(plan) == ["train", "predict", "evaluate"]
    assert "--profile minimal" in job.log.read_text()


@pytest.mark.parametrize(("evidence", "said"), [(None, ""), (True, " --evidence"), (False, " --no-evidence")])
def test_commands_are_told_whether_there_is_a_row_of_the_engine(stand_in, plan, tmp_path, evidence, said):
    log = run(replace(plan, only_with_embedding=False, evidence=evidence), tmp_path).log.read_text()
    calls = [line for line in log.splitlines() if line.startswith("stand-in:") and " train " not in line]
    assert len(calls) == 2
    for line in calls:
        assert f" {line} ".count("evidence") == bool(said)
        assert said in line


def test_a_group_that_the_user_chose_is_kept(stand_in, plan, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_RUN_GROUP", "mine")
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert "threads 7 group mine" in run(replace(plan, threads=None), tmp_path).log.read_text()


def test_a_finished_job_is_not_run_again(stand_in, plan, tmp_path):
    first = run(plan, tmp_path)
    assert run(plan, tmp_path) == first
    assert commands(plan) == ["train", "predict"]


def test_a_finished_job_whose_evaluation_was_removed_is_evaluated_again(stand_in, plan, tmp_path):
    first = run(plan, tmp_path)
    (first.predictions / "gge" / "summary.json").unlink()
    assert not is_finished(current(plan, tmp_path))

    assert run(plan, tmp_path).status == "finished"
    assert commands(plan) == ["train", "predict", "evaluate"]


@pytest.mark.parametrize("step", ["train", "predict"])
def test_a_failed_job_says_which_step_and_why_and_goes_on_from_there(stand_in, plan, tmp_path, step):
    stand_in(f"fail={step}")
    failed = run(plan, tmp_path)
    assert (failed.status, failed.error) == ("failed", f"{step} ended with status 3: told to fail")

    stand_in("")
    job = run(plan, tmp_path)

    assert (job.status, job.error) == ("finished", None)
    assert job.seconds > failed.seconds
    assert commands(plan) == {"train": ["train", "train", "predict"], "predict": ["train", "predict", "predict"]}[step]


def test_a_command_that_was_killed_is_a_failure_with_the_signal(stand_in, plan, tmp_path, monkeypatch):
    monkeypatch.setattr(run_job, "STATE", ("sh", "-c", "echo so far; kill -9 $$"))
    job = run(plan, tmp_path)
    assert (job.status, job.error) == ("failed", "train was ended by SIGKILL: so far")


def test_an_interrupted_job_is_left_to_be_run(stand_in, plan, tmp_path, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(run_job.subprocess, "run", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_job.run_job(plan, tmp_path)
    assert read_job(tmp_path, plan.job.name).status == "waiting"


def test_a_killed_training_goes_on_from_its_last_checkpoint(stand_in, plan, tmp_path):
    checkpoints = plan.job.run_folder / "checkpoints"
    write_checkpoint(checkpoints / "last.ckpt", "step 6")
    write_job(tmp_path, replace(plan.job, status="running"))

    assert run(plan, tmp_path).status == "finished"
    assert read_checkpoint(checkpoints / "final.ckpt") == "trained on from step 6"


def test_without_resume_a_killed_training_starts_anew(stand_in, plan, tmp_path):
    checkpoints = plan.job.run_folder / "checkpoints"
    write_checkpoint(checkpoints / "last.ckpt", "step 6")
    write_job(tmp_path, replace(plan.job, status="running"))

    job = run(replace(plan, resume=False), tmp_path)
    assert job.status == "finished"
    assert read_checkpoint(checkpoints / "final.ckpt") == "trained"
    assert "starts anew" in job.log.read_text()


@pytest.mark.parametrize(("best", "text"), [(True, "trained on from step 4"), (False, "trained")])
def test_a_truncated_last_checkpoint_is_replaced_by_the_best_or_a_new_start(stand_in, plan, tmp_path, best, text):
    checkpoints = plan.job.run_folder / "checkpoints"
    write_checkpoint(checkpoints / "last.ckpt", "step 6")
    with open(checkpoints / "last.ckpt", "r+b") as stream:
        stream.truncate(50)
    if best:
        write_checkpoint(checkpoints / "best.ckpt", "step 4")
    stand_in("count up" if best else "")

    job = run(plan, tmp_path)

    assert job.status == "finished"
    assert read_checkpoint(checkpoints / "last.ckpt") == text
    assert f"{checkpoints / 'last.ckpt'} is damaged" in job.log.read_text()


@pytest.mark.parametrize(("losses", "kept"), [((0.5, 0.7), 6), ((0.7, 0.5), 24)])
def test_of_two_best_checkpoints_the_better_one_keeps_the_name(stand_in, plan, tmp_path, losses, kept):
    checkpoints = plan.job.run_folder / "checkpoints"
    checkpoints.mkdir(parents=True)
    for name, step, loss in (("best", 6, losses[0]), ("best-v1", 24, losses[1])):
        states = {"BatchSpeed": {}, "ModelCheckpoint": {"current_score": torch.tensor(loss)}}
        torch.save({"state_dict": {}, "global_step": step, "callbacks": states}, checkpoints / f"{name}.ckpt")

    job = run(replace(plan, checkpoint="best.ckpt"), tmp_path)

    assert job.predictions == job.run_folder / "eval_best.ckpt"
    assert torch.load(checkpoints / "best.ckpt", weights_only=True)["global_step"] == kept


def test_training_that_has_ended_goes_on_to_predict(stand_in, plan, tmp_path):
    for name in ("last.ckpt", "final.ckpt"):
        write_checkpoint(plan.job.run_folder / "checkpoints" / name, "step 8")
    run(plan, tmp_path)
    assert commands(plan) == ["predict"]


def test_training_that_ended_after_its_sweep_was_killed_predicts_with_the_newest_last_checkpoint(
    stand_in, plan, tmp_path
):
    checkpoints = plan.job.run_folder / "checkpoints"
    for age, (name, text) in enumerate([("last", "step 8"), ("last-v1", "step 24"), ("final", "step 24")]):
        write_checkpoint(checkpoints / f"{name}.ckpt", text)
        os.utime(checkpoints / f"{name}.ckpt", (age, age))
    run(plan, tmp_path)
    assert commands(plan) == ["predict"]
    assert read_checkpoint(checkpoints / "last.ckpt") == "step 24"


def test_a_damaged_best_checkpoint_does_not_stop_a_job(stand_in, plan, tmp_path):
    checkpoints = plan.job.run_folder / "checkpoints"
    write_checkpoint(checkpoints / "best-v1.ckpt", "step 6")
    (checkpoints / "best.ckpt").write_bytes(b"PK")
    run(replace(plan, checkpoint="best.ckpt"), tmp_path)
    assert read_checkpoint(checkpoints / "best.ckpt") == "step 6"


def test_an_error_that_nobody_foresaw_fails_the_job_and_is_in_its_log(stand_in, plan, tmp_path, monkeypatch):
    def odd(*_):
        raise KeyError("odd")

    monkeypatch.setattr(run_job.Steps, "predict", odd)
    job = run(plan, tmp_path)
    assert (job.status, job.error) == ("failed", "KeyError: 'odd'")
    assert "Traceback" in job.log.read_text()


def test_a_damaged_final_checkpoint_is_made_again(stand_in, plan, tmp_path):
    checkpoints = plan.job.run_folder / "checkpoints"
    write_checkpoint(checkpoints / "last.ckpt", "step 8")
    (checkpoints / "final.ckpt").write_bytes(b"PK")
    run(plan, tmp_path)
    assert commands(plan) == ["train", "predict"]
    assert is_whole(checkpoints / "final.ckpt")


def test_a_training_shorter_than_its_validation_interval_predicts_with_the_final_checkpoint(stand_in, plan, tmp_path):
    stand_in("no last")
    job = run(plan, tmp_path)
    assert job.predictions == job.run_folder / "eval_final.ckpt"
    assert "taking final.ckpt" in job.log.read_text()


def test_a_missing_checkpoint_that_was_asked_for_is_a_failure(stand_in, plan, tmp_path):
    job = run(replace(plan, checkpoint="best.ckpt"), tmp_path)
    assert job.status == "failed"
    assert "best.ckpt does not exist. In that folder: final.ckpt, last.ckpt" in job.error


def test_a_changed_byte_inside_a_checkpoint_is_noticed(tmp_path):
    path = tmp_path / "a.ckpt"
    write_checkpoint(path, "x" * 1000)
    assert is_whole(path)
    content = bytearray(path.read_bytes())
    content[500] ^= 1
    path.write_bytes(content)
    assert not is_whole(path)
    assert not is_whole(tmp_path / "none.ckpt")


def test_a_checkpoint_with_any_byte_changed_is_read_or_refused_and_nothing_is_raised(tmp_path):
    path = tmp_path / "a.ckpt"
    write_checkpoint(path, "x")
    content = path.read_bytes()
    found = set()
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :])
        found.add(is_whole(path))
    assert found == {True, False}


def test_a_job_that_another_process_holds_is_left_alone(stand_in, plan, tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "GLANCE", 0.05)
    with job_lock(tmp_path, plan.job.name):
        assert run_job.run_job(plan, tmp_path) is None
    assert not plan.job.log.exists()


def test_a_record_of_another_configuration_is_not_taken_for_this_one(plan, tmp_path):
    write_job(tmp_path, replace(plan.job, fingerprint="cd" * 32))
    with pytest.raises(StateRagError, match="another configuration"):
        run_job.run_job(plan, tmp_path)


def test_the_means_are_those_of_the_summary(plan, tmp_path):
    folder = tmp_path / "eval_last.ckpt"
    (folder / "gge").mkdir(parents=True)
    aggregates = {"pearson_delta_mean": None, "mse_mean": 2.0}
    (folder / "gge" / "summary.json").write_text(json.dumps({"splits": {"test": {"aggregates": aggregates}}}))
    job = replace(plan.job, predictions=folder)
    assert score(job, "mse") == 2.0
    assert str(score(job, "pearson_delta")) == "nan"
