"""Run one job: train, predict and evaluate with the real commands, each in a process of its own."""

import json
import os
import shlex
import shutil
import signal
import struct
import subprocess
import sys
import time
import traceback
import zipfile
import zlib
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import IO

from state_rag.errors import StateRagError
from state_rag.experiments.jobs import Job, read_job, record_path, write_job
from state_rag.experiments.lock import job_lock
from state_rag.experiments.plan import Plan
from state_rag.files import atomic_path

STATE = (sys.executable, "-m", "state_rag")
OURS = (sys.executable, "-m", "state_rag.cli")
SUMMARY = Path("gge", "summary.json")
"""Where an evaluation's means lie below the predictions; written last."""

DAMAGED = (OSError, EOFError, ValueError, RuntimeError, struct.error, zlib.error, zipfile.BadZipFile)
"""What `zipfile` raises for files that are no archives or were damaged, depending on where."""


def run_job(plan: Plan, folder: Path, *, wait: bool = False) -> Job | None:
    """Bring a job to its end, from wherever it stands.

    Parameters
    ----------
    plan
        The job.
    folder
        The sweep.
    wait
        Whether to wait for a process that works on the same job.

    Returns
    -------
    Job or None
        Its record, finished or failed; None where another process works on it.
    """
    with job_lock(folder, plan.job.name, wait=wait) as lock:
        if lock is None:
            return None
        job = current(plan, folder)
        if is_finished(job):
            return job
        job = replace(job, status="running", error=None)
        write_job(folder, job)
        started, before = time.monotonic(), job.seconds or 0.0
        ended = replace(job, status="waiting")
        try:
            with open(job.log, "a", encoding="utf-8") as log:
                steps = Steps(plan, job, folder, log, lock)
                steps.train()
                job = steps.predict()
                steps.evaluate()
            ended = replace(job, status="finished")
        except Exception as error:  # noqa: BLE001  whatever goes wrong with one job, the others must go on
            job = read_job(folder, job.name)
            reason = " ".join(str(error).split())
            if not isinstance(error, StateRagError | OSError):
                reason = f"{type(error).__name__}: {reason}"
                with suppress(OSError), open(job.log, "a", encoding="utf-8") as log:
                    traceback.print_exc(file=log)
            ended = replace(job, status="failed", error=reason)
        finally:
            # After an interruption the job is left as "waiting".
            ended = replace(ended, predictions=job.predictions, seconds=before + time.monotonic() - started)
            write_job(folder, ended)
        return ended


def current(plan: Plan, folder: Path) -> Job:
    """Return the job's record with the configuration as it is now, or the new job where there is none.

    Raises
    ------
    StateRagError
        If the record of that name is of another configuration.
    """
    if not record_path(folder, plan.job.name).is_file():
        return plan.job
    found = read_job(folder, plan.job.name)
    if found.fingerprint != plan.job.fingerprint:
        raise StateRagError(
            f"{record_path(folder, plan.job.name)} is of another configuration, although its name is the same. Use "
            "another sweep_dir."
        )
    predictions = found.predictions if found.predictions and found.predictions.is_dir() else None
    return replace(plan.job, status=found.status, predictions=predictions, seconds=found.seconds, error=found.error)


def is_finished(job: Job) -> bool:
    """Whether a job has ended well and its evaluation is still there."""
    return job.status == "finished" and job.predictions is not None and (job.predictions / SUMMARY).is_file()


def score(job: Job, metric: str) -> float:
    """Return the mean of a metric over the test conditions; NaN where the evaluation does not have it."""
    if job.predictions is None or not (job.predictions / SUMMARY).is_file():
        return float("nan")
    splits = json.loads((job.predictions / SUMMARY).read_text(encoding="utf-8"))["splits"]
    means = [part["aggregates"].get(f"{metric}_mean") for part in splits.values()]
    return float(means[0]) if means and means[0] is not None else float("nan")


def is_whole(checkpoint: Path) -> bool:
    """Whether a checkpoint is complete: torch writes ZIP archives, with a checksum for each member."""
    try:
        with zipfile.ZipFile(checkpoint) as archive:
            return archive.testzip() is None
    except DAMAGED:
        return False


def validation_loss(checkpoint: Path) -> float:
    """Return the validation loss that a best checkpoint was kept for; infinity where it does not say."""
    from state_rag.upstream.run_folder import read_checkpoint

    states = read_checkpoint(checkpoint).get("callbacks", {}).values()
    scores = [state["current_score"] for state in states if state.get("current_score") is not None]
    return float(scores[0]) if scores else float("inf")


class Steps:
    """The steps of a job, each of which does only what is left of it.

    Parameters
    ----------
    plan, job, folder
        The job, its record and the sweep.
    log
        Takes what the commands print.
    lock
        Descriptor of the job's lock, which the commands keep open.
    """

    def __init__(self, plan: Plan, job: Job, folder: Path, log: IO[str], lock: int) -> None:
        self.plan, self.job, self.folder, self.log, self.lock = plan, job, folder, log, lock
        self.checkpoints = job.run_folder / "checkpoints"

    def train(self) -> None:
        """Train, or train on from the last checkpoint; nothing where training has ended.

        STATE writes ``final.ckpt`` when training has ended, and does not write it again.
        """
        final = self.checkpoints / "final.ckpt"
        if is_whole(final):
            self._say("training has ended before")
        else:
            self._train_to(final)
        # Also where it has ended before: the process that trained may have outlived the sweep that would have done it.
        self._usual_names()

    def _train_to(self, final: Path) -> None:
        if final.is_file():
            self._say(f"{final} is damaged: removed, to be written again")
            final.unlink()
        if self.plan.resume:
            self._mend_last()
        elif self.checkpoints.is_dir():
            self._say("job.resume=false: the training that was not finished starts anew")
        self._command(
            "train",
            *STATE, "tx", "train", *self.job.overrides, f"output_dir={_text(self.job.run_folder.parent)}",
            f"name={_text(self.job.name)}", f"overwrite={str(not self.plan.resume).lower()}",
        )  # fmt: skip
        if not is_whole(final):
            raise StateRagError(f"train ended without {final}.")

    def predict(self) -> Job:
        """Predict with the chosen checkpoint and return the record, which now names the predictions."""
        if self.job.predictions is not None:
            self._say("predictions are there")
            return self.job
        plan, run = self.plan, self.job.run_folder
        checkpoint = self._checkpoint()
        arguments = ["--output-dir", str(run), "--checkpoint", checkpoint, "--toml", str(plan.split)]
        arguments += ["--profile", plan.cell_eval] if plan.cell_eval else ["--predict-only"]
        arguments += ["--eval-genept-pert"] if plan.only_with_embedding else []
        arguments += ["--genept-path", str(plan.embeddings)] if plan.embeddings else []
        arguments += self._evidence
        self._command("predict", *STATE, "tx", "predict", *arguments)
        self.job = replace(self.job, predictions=run / f"eval_{checkpoint}")
        write_job(self.folder, self.job)
        return self.job

    def evaluate(self) -> None:
        """Evaluate, unless `predict` has."""
        predictions = self.job.predictions
        assert predictions is not None
        if not (predictions / SUMMARY).is_file():
            embeddings = ["--embeddings", str(self.plan.embeddings)] if self.plan.embeddings else []
            toml = ["--toml", str(self.plan.split)]
            self._command(
                "evaluate", *OURS, "evaluate", str(predictions), "--quiet", *toml, *embeddings, *self._evidence
            )
        if not (predictions / SUMMARY).is_file():
            raise StateRagError(f"evaluate ended without {predictions / SUMMARY}.")

    @property
    def _evidence(self) -> list[str]:
        """Return the option of `predict` and `evaluate` that says whether there is a row of the evidence engine."""
        return {None: [], True: ["--evidence"], False: ["--no-evidence"]}[self.plan.evidence]

    def _mend_last(self) -> None:
        """Have training start from a checkpoint that is whole, or anew."""
        last = self.checkpoints / "last.ckpt"
        if not last.is_file() or is_whole(last):
            return
        whole = [path for path in self.checkpoints.glob("best*.ckpt") if is_whole(path)]
        if not whole:
            self._say(f"{last} is damaged, and there is no other checkpoint: training starts anew")
            last.unlink()
            return
        best = max(whole, key=lambda path: path.stat().st_mtime)
        self._say(f"{last} is damaged: training goes on from {best.name}")
        with atomic_path(last) as temporary:
            shutil.copyfile(best, temporary)

    def _usual_names(self) -> None:
        """Give the newest of several last checkpoints, and the best of several best ones, the usual name.

        Lightning counts up (``last-v1.ckpt``) where training went on from a checkpoint that did not know of the others.
        """
        for name, rank in (("last", lambda path: -path.stat().st_mtime), ("best", validation_loss)):
            found = [path for path in self.checkpoints.glob(f"{name}*.ckpt") if is_whole(path)]
            chosen = min(found, key=rank) if len(found) > 1 else next(iter(found), None)
            if chosen is not None and chosen.name != f"{name}.ckpt":
                self._say(f"{chosen.name} takes the place of {name}.ckpt")
                chosen.replace(self.checkpoints / f"{name}.ckpt")

    def _checkpoint(self) -> str:
        wanted = self.checkpoints / self.plan.checkpoint
        if is_whole(wanted):
            return wanted.name
        final = self.checkpoints / "final.ckpt"
        if wanted.name == "last.ckpt" and not wanted.exists() and is_whole(final):
            self._say("training ended before its first validation, so there is no last.ckpt: taking final.ckpt")
            return final.name
        found = ", ".join(sorted(path.name for path in self.checkpoints.glob("*.ckpt"))) or "none"
        state = "is damaged" if wanted.exists() else "does not exist"
        raise StateRagError(f"job.checkpoint={self.plan.checkpoint}: {wanted} {state}. In that folder: {found}.")

    def _say(self, text: str) -> None:
        self.log.write(f"[sweep] {time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")
        self.log.flush()

    def _command(self, step: str, *arguments: str) -> None:
        self._say(shlex.join(arguments))
        start = self.log.tell()
        done = subprocess.run(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=subprocess.STDOUT,
            env=self._environment(),
            pass_fds=(self.lock,),
            check=False,
        )
        if done.returncode:
            raise StateRagError(f"{step} {_ending(done.returncode)}: {self._why(start)}")

    def _environment(self) -> dict[str, str]:
        environment = dict(os.environ)
        environment.setdefault("WANDB_RUN_GROUP", self.folder.absolute().name)
        if self.plan.threads is not None:
            environment["OMP_NUM_THREADS"] = str(self.plan.threads)
        return environment

    def _why(self, start: int) -> str:
        """Return our own error message from what a command printed, else its last line."""
        with open(self.job.log, encoding="utf-8", errors="replace") as stream:
            stream.seek(start)
            lines = [line.strip() for line in stream if line.strip()]
        _, mark, own = "\n".join(lines).rpartition("state-rag: error: ")
        return own if mark else lines[-1] if lines else "it printed nothing"


def _ending(status: int) -> str:
    if status > 0:
        return f"ended with status {status}"
    try:
        return f"was ended by {signal.Signals(-status).name}"
    except ValueError:
        return f"was ended by signal {-status}"


def _text(value: Path | str) -> str:
    from state_rag.upstream.overrides import quoted

    return quoted(str(value))
