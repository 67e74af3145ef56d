"""Two processes train one run: one is killed, and the same command goes on, also in W&B."""

import csv
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch
import yaml

from tests.end_to_end import commands, wandb_log

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks for a process in /proc"),
]

STEPS = 80
KEPT = 6
"""Step of the first checkpoint."""


def second_process(parent: int) -> int:
    """Return the process that Lightning has started as the second of the training."""
    for number in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
        if b"LOCAL_RANK=1" in Path(f"/proc/{number}/environ").read_bytes().split(b"\0"):
            return int(number)
    raise AssertionError("there is one process only")


@pytest.fixture(scope="module")
def killed(build_once, project):
    """A folder with a run that lost a process after its first checkpoint, and then went on."""

    def make(folder):
        arguments = project.train_rag(
            "two",
            "training.devices=2",
            "training.batch_size=4",
            f"training.max_steps={STEPS}",
            f"training.val_freq={KEPT}",
            "use_wandb=true",
        )
        environment = {**commands.own_environment(), "WANDB_MODE": "offline"}
        last = folder / "runs" / "two" / "checkpoints" / "last.ckpt"
        with open(folder / "first.txt", "w") as log:
            first = subprocess.Popen([*commands.STATE, *arguments], cwd=folder, env=environment, stderr=log, stdout=log)
            until = time.monotonic() + commands.LIMIT
            while not last.exists() and first.poll() is None and time.monotonic() < until:
                time.sleep(0.02)
            os.kill(second_process(first.pid), signal.SIGKILL)
            start = time.monotonic()
            (folder / "status.txt").write_text(f"{first.wait(120)}")
            (folder / "seconds.txt").write_text(f"{time.monotonic() - start}")
        kept = torch.load(last, weights_only=True)["global_step"]
        (folder / "kept.txt").write_text(str(kept))
        # the same command; a shorter one, for time
        shorter = [f"training.max_steps={kept + 6}" if "max_steps" in one else one for one in arguments]
        done = commands.run(shorter, folder, via=commands.STATE_MODULE, env={"WANDB_MODE": "offline"})
        (folder / "second.txt").write_text(done.stdout + done.stderr)

    return build_once("several-processes", make)


def test_a_killed_process_ends_the_training_soon_with_one_clear_message(killed):
    assert int((killed / "status.txt").read_text()) != 0
    assert float((killed / "seconds.txt").read_text()) < 60
    said = (killed / "first.txt").read_text()
    assert said.count("Another process of this training ended") == 1
    assert "last.ckpt is whole: the same command (without overwrite=true) goes on from it" in said


def test_the_same_command_goes_on_from_the_last_checkpoint(killed):
    kept = int((killed / "kept.txt").read_text())
    assert "Training goes on from" in (killed / "second.txt").read_text()
    checkpoint = torch.load(killed / "runs" / "two" / "checkpoints" / "final.ckpt", weights_only=True)
    assert checkpoint["global_step"] == kept + 6
    with open(killed / "runs" / "two" / "version_0" / "metrics.csv", newline="") as stream:
        steps = [int(row["step"]) for row in csv.DictReader(stream) if row.get("train_loss")]
    assert steps == sorted(set(steps))
    assert min(steps) >= kept
    assert max(steps) == kept + 5


def test_the_run_folder_is_written_by_one_process_and_says_each_thing_once(killed):
    assert (killed / "second.txt").read_text().count("[state-rag] Run folder") == 1
    written = {path.name for path in (killed / "runs" / "two").iterdir()}
    assert {"config.yaml", "data_contract.json", "split.toml", "checkpoints", "version_0"} <= written
    assert {path.name for path in (killed / "runs").iterdir()} == {"two"}
    # another process's configuration has no W&B
    assert yaml.safe_load((killed / "runs" / "two" / "config.yaml").read_text())["use_wandb"] is True


def test_the_wandb_run_goes_on_under_the_same_id_without_a_step_twice(killed):
    logs = [wandb_log.read(path) for path in sorted((killed / "wandb").glob("offline-run-*"))]
    assert len(logs) == 2
    assert len({log.run["run_id"] for log in logs}) == 1
    assert min(logs[1].history) > max(logs[0].history)
    kept = int((killed / "kept.txt").read_text())
    assert min(logs[1].series("train_loss")) >= kept
