"""The records of a sweep: one small JSON file for each job, which other processes may read at any time.

::

    SWEEP/
      runs/JOB/           the run folder of `state tx train`, with the predictions and their evaluation
      jobs/JOB.json       the record;  JOB.log  what the job's commands printed;  JOB.lock  who works on it
      splits/*.toml       the splits that were written
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from state_rag.errors import StateRagError
from state_rag.files import atomic_path, close_to_missing
from state_rag.settings import modes

STATUSES = ("waiting", "running", "finished", "failed")
FORMAT = 1
"""Version of the record's layout."""

FOLD = re.compile(r"fold(\d+)")
"""How a fold by perturbation is called where a cell line would stand: `fold0`, `fold1`, ..."""

_FOLDERS = ("run_folder", "predictions", "log")


@dataclass(frozen=True)
class Job:
    """One method, held-out line or fold, K and seed: a split, a training, a prediction and an evaluation.

    Attributes
    ----------
    name
        Name of the run folder and of the record.
    method
        `RagSettings.mode`: none, genept, vanilla, hidden or differentiable.
    preset
        The word given as ``rag=``.
    held_out
        The cell line that was held out, or the fold of perturbations (`FOLD`).
    topk
        Number of candidates K; None where nothing is retrieved.
    seed
        Seed of the training; the split has one of its own.
    status
        One of `STATUSES`. A record that says "running" may be of a process that was killed.
    run_folder
        The run folder, which need not exist yet.
    predictions
        The `eval_<checkpoint>` folder; None until the job has predicted.
    overrides
        The configuration of the job, as overrides of `state tx train`.
    fingerprint
        What the result depends on, as one hexadecimal digest.
    log
        What the job's commands printed.
    seconds
        Wall-clock seconds that the job has taken, without attempts that were killed; None until it has ended once.
    error
        Why a failed job failed, in one line.
    """

    name: str
    method: str
    preset: str
    held_out: str
    topk: int | None
    seed: int
    status: str
    run_folder: Path
    predictions: Path | None
    overrides: tuple[str, ...]
    fingerprint: str
    log: Path
    seconds: float | None = None
    error: str | None = None


def kind_of(held_out: Iterable[str]) -> str:
    """Return what is held out: `fold`, or `line`, or `line or fold` where a sweep has both.

    Examples
    --------
    >>> kind_of(["fold0", "fold1"]), kind_of(["k562"]), kind_of(["k562", "fold0"])
    ('fold', 'line', 'line or fold')
    """
    kinds = {"fold" if FOLD.fullmatch(name) else "line" for name in held_out}
    return " or ".join(sorted(kinds, reverse=True))


def record_path(folder: Path, name: str) -> Path:
    """Return where the record of a job lies."""
    return folder / "jobs" / f"{name}.json"


def read_jobs(folder: Path) -> list[Job]:
    """Return the jobs of a sweep, sorted by name. A sweep that was moved is read with its new place.

    Raises
    ------
    StateRagError
        If the folder is no sweep, or a record cannot be read.
    """
    folder = Path(folder)
    if not (folder / "jobs").is_dir():
        found = "has no folder `jobs`" if folder.exists() else f"does not exist{close_to_missing(folder, folders=True)}"
        raise StateRagError(f"{folder} {found}: it is no sweep. Name the folder that `state-rag sweep` printed.")
    return [read_job(folder, path.stem) for path in sorted((folder / "jobs").glob("[!.]*.json"))]


def read_job(folder: Path, name: str) -> Job:
    """Return one job of a sweep.

    Raises
    ------
    StateRagError
        If there is no record of that name, or it cannot be read.
    """
    path = record_path(Path(folder), name)
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return _from_values(Path(folder), values)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StateRagError(
            f"{path} is not a job's record ({type(error).__name__}: {error}). Remove it to have the job run again."
        ) from error


def write_job(folder: Path, job: Job) -> Path:
    """Write a job's record under its name, whole or not at all; paths below `folder` are kept relative to it."""
    if job.status not in STATUSES:
        raise ValueError(f"status {job.status!r} is none of {STATUSES}")
    values: dict[str, Any] = {"format": FORMAT, **asdict(job)}
    for name in _FOLDERS:
        values[name] = None if values[name] is None else _relative(Path(values[name]), Path(folder))
    path = record_path(Path(folder), job.name)
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    return path


def _from_values(folder: Path, values: Mapping[str, Any]) -> Job:
    if values["format"] != FORMAT:
        raise ValueError(f"format {values['format']}, expected {FORMAT}")
    known = {field.name: values[field.name] for field in fields(Job)}
    if known["status"] not in STATUSES or known["method"] not in modes():
        raise ValueError(f"status {known['status']!r}, method {known['method']!r}")
    for name in _FOLDERS:
        known[name] = None if known[name] is None else folder / known[name]
    known["overrides"] = tuple(known["overrides"])
    return Job(**known)


def _relative(path: Path, folder: Path) -> str:
    path, folder = path.absolute(), folder.absolute()
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else str(path)
