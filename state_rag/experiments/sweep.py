"""List, run and report the jobs of a sweep."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from state_rag.errors import StateRagError
from state_rag.experiments.cost import duration, estimate
from state_rag.experiments.jobs import Job, read_jobs, write_job
from state_rag.experiments.launch import Listing, list_jobs, run_jobs
from state_rag.experiments.lock import is_locked, job_lock
from state_rag.experiments.plan import Plan
from state_rag.experiments.progress import Progress
from state_rag.experiments.run_job import current, is_finished, score

TITLES = {
    "none": "STATE",
    "genept": "STATE+GenePT",
    "vanilla": "vanilla RAG",
    "hidden": "hidden-space RAG",
    "differentiable": "PT-RAG",
}
SHOWN_ELSEWHERE = ("rag", "held_out", "training.topk_rag", "seed")
"""Keys that have a column of their own."""


def sweep(overrides: Sequence[str], *, multirun: bool, dry_run: bool = False, console: Console | None = None) -> None:
    """Run the jobs that the overrides ask for, or list them.

    Parameters
    ----------
    overrides
        Hydra's overrides of the configuration ``sweep_job``.
    multirun
        Whether keys may have several values.
    dry_run
        List the jobs, their state and their cost; nothing is written.
    console
        Where to print to.

    Raises
    ------
    StateRagError
        If a configuration is refused, before any job starts; or, at the end, if jobs failed.
    """
    console = console or Console()
    listing = list_jobs(overrides, multirun=multirun, write=not dry_run)
    _refuse(listing)
    folder = listing.folder
    assert folder is not None
    plans = {plan.job.name: plan for plan in reversed(listing.plans)}
    plans = {name: plans[name] for name in dict.fromkeys(plan.job.name for plan in listing.plans)}
    if dry_run:
        _show_listing(console, listing, plans, folder)
        return
    if not listing.search:
        _enter(plans, folder)
        repeated = len(listing.plans) - len(plans)
        same = f" ({repeated} more are the same as one of these)" if repeated else ""
        console.print(f"{len(plans)} jobs{same} in {folder}", markup=False, highlight=False, soft_wrap=True)
    try:
        with Progress(folder, {} if listing.search else plans, console):
            run_jobs(overrides, multirun=multirun)
    except KeyboardInterrupt:
        raise StateRagError(f"interrupted. The same command goes on with what is left in {folder}.") from None
    names = None if listing.search else set(plans)
    jobs = [job for job in read_jobs(folder) if names is None or job.name in names]
    _show_result(console, jobs, listing, folder)


def _refuse(listing: Listing) -> None:
    if not listing.errors:
        return
    total = len(listing.errors) + len(listing.plans)
    if total == 1:
        raise StateRagError(listing.errors[0])
    causes = Counter(error.partition(": ")[2] for error in listing.errors)
    shown = "".join(
        f"\n  {next(error for error in listing.errors if error.endswith(cause))}"
        + (f" (and {count - 1} more like it)" if count > 1 else "")
        for cause, count in causes.items()
    )
    raise StateRagError(f"{len(listing.errors)} of {total} configurations cannot run, so none was started:{shown}")


def _enter(plans: dict[str, Plan], folder: Path) -> None:
    """Write a record for each new job, and have those of killed processes wait again."""
    for name, plan in plans.items():
        with job_lock(folder, name) as lock:
            if lock is None:
                continue
            job = current(plan, folder)
            if not is_finished(job):
                write_job(folder, replace(job, status="failed" if job.status == "failed" else "waiting"))


def state_of(plan: Plan, folder: Path) -> str:
    """Return where a job stands, in words."""
    if is_locked(folder, plan.job.name):
        return "running elsewhere"
    job = current(plan, folder)
    if is_finished(job):
        return "finished"
    if job.predictions is not None:
        return "resume: evaluate"
    checkpoints = job.run_folder / "checkpoints"
    if (checkpoints / "final.ckpt").is_file():
        return "resume: predict"
    if (checkpoints / "last.ckpt").is_file():
        return "resume: train on"
    return "failed before" if job.status == "failed" else "new"


def _show_listing(console: Console, listing: Listing, plans: dict[str, Plan], folder: Path) -> None:
    table = _table(f"What would run in {folder}", ("#", "job", "method", "line", "K", "seed", "also", "state"))
    first: dict[str, int] = {}
    left = []
    for number, (plan, asked) in enumerate(zip(listing.plans, listing.asked, strict=True)):
        name = plan.job.name
        state = f"same as #{first[name]}" if name in first else state_of(plan, folder)
        if name not in first and state != "finished":
            left.append(plan)
        first.setdefault(name, number)
        table.add_row(str(number), *_columns(plan.job), _also(asked, listing.asked), state)
    console.print(table)
    if listing.search:
        count = f"up to {listing.trials}" if listing.trials else "an unknown number of"
        console.print(f"A search chooses the values: {count} jobs, of which only the first are known.", markup=False)
    records = read_jobs(folder) if (folder / "jobs").is_dir() else []
    for line in estimate(left, records).lines():
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _show_result(console: Console, jobs: list[Job], listing: Listing, folder: Path) -> None:
    metric = listing.plans[0].objective
    table = _table("Jobs", ("job", "method", "line", "K", "seed", "status", metric, "time"))
    elsewhere = []
    for job in jobs:
        status = job.status
        if status in ("running", "waiting"):
            elsewhere.append(job)
            status = "running elsewhere" if is_locked(folder, job.name) else "not run"
        value = score(job, metric)
        time = duration(job.seconds) if job.seconds is not None else "-"
        table.add_row(*_columns(job), status, "-" if math.isnan(value) else f"{value:.3f}", time)
    console.print(table)
    for label, place in (
        ("runs and predictions", folder / "runs"),
        ("records and logs", folder / "jobs"),
        ("splits", folder / "splits"),
    ):
        if place.is_dir():
            console.print(f"{label:21} {place}", markup=False, highlight=False, soft_wrap=True)
    console.print(f"next: state-rag table1 {folder}", markup=False, highlight=False, soft_wrap=True)
    if elsewhere:
        console.print(
            f"{len(elsewhere)} of {len(jobs)} jobs have not ended: another process works on them, or did when it was "
            "their turn. The same command goes on with what is left.",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    failed = [job for job in jobs if job.status == "failed"]
    if failed:
        shown = "".join(f"\n  {job.name}: {job.error}\n    log: {job.log}" for job in failed)
        raise StateRagError(f"{len(failed)} of {len(jobs)} jobs failed; the same command tries them again.{shown}")


def _table(title: str, columns: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE)
    for name in columns:
        table.add_column(
            name,
            overflow="fold",
            no_wrap=name == "job",
            justify="right" if name in ("#", "K", "seed", "time") else "left",
        )
    return table


def _columns(job: Job) -> tuple[str, str, str, str, str]:
    topk = "-" if job.topk is None else str(job.topk)
    return job.name, TITLES[job.method], job.held_out, topk, str(job.seed)


def _also(asked: Sequence[str], everything: Sequence[Sequence[str]]) -> str:
    """Return the overrides of one configuration that not all have, less those with a column of their own."""
    shared = set.intersection(*(set(each) for each in everything))
    kept = [text for text in asked if text not in shared and text.partition("=")[0] not in SHOWN_ELSEWHERE]
    return " ".join(kept)
