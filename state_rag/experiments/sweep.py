"""List, run and report the jobs of a sweep."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from state_rag.console import make_console
from state_rag.errors import StateRagError
from state_rag.experiments.cost import duration, estimate
from state_rag.experiments.jobs import Job, kind_of, read_jobs, write_job
from state_rag.experiments.launch import Listing, list_jobs, names_several_values, run_jobs
from state_rag.experiments.lock import is_locked, job_lock
from state_rag.experiments.methods import TITLES
from state_rag.experiments.plan import Plan
from state_rag.experiments.progress import Progress
from state_rag.experiments.run_job import current, is_finished, score

SHOWN_ELSEWHERE = ("rag", "held_out", "training.topk_rag", "seed")
"""Keys that have a column of their own."""


WIDE = 110
"""Columns of a terminal that has room for everything."""


def sweep(overrides: Sequence[str], *, multirun: bool, dry_run: bool = False, console: Console | None = None) -> None:
    """Run the jobs that the overrides ask for, or list them.

    Parameters
    ----------
    overrides
        Hydra's overrides of the configuration ``sweep_job``.
    multirun
        Whether Hydra shall sweep; it does without being told when a key has several values.
    dry_run
        List the jobs, their state and their cost; nothing is written.
    console
        Where to print to.

    Raises
    ------
    StateRagError
        If a configuration is refused, before any job starts; or, at the end, if jobs failed.
    """
    console = console or make_console()
    multirun = multirun or names_several_values(overrides)
    with console.status("composing the configurations"):
        listing = list_jobs(overrides, multirun=multirun, write=not dry_run)
    _refuse(listing)
    folder = listing.folder
    assert folder is not None
    plans = {plan.job.name: plan for plan in reversed(listing.plans)}
    plans = {name: plans[name] for name in dict.fromkeys(plan.job.name for plan in listing.plans)}
    if dry_run:
        _show_listing(console, listing, folder)
        return
    try:
        jobs = [] if listing.trials else _enter(plans, folder)
    except OSError as error:
        raise StateRagError(f"sweep_dir={folder} cannot be written to ({error}). Choose another folder.") from error
    repeated = len(listing.plans) - len(plans)
    same = f" ({repeated} more are the same as one of these)" if repeated else ""
    count = f"up to {listing.trials}" if listing.trials else f"{len(plans)}"
    _say(console, f"{count} jobs{same} in {folder}")
    try:
        with Progress(folder, jobs, listing.plans[0].objective, console, total=listing.trials):
            run_jobs(overrides, multirun=multirun)
    except KeyboardInterrupt:
        raise StateRagError(f"interrupted. The same command goes on with what is left in {folder}.") from None
    _show_result(console, [job for job in read_jobs(folder) if listing.trials or job.name in plans], listing, folder)


def _refuse(listing: Listing) -> None:
    if not listing.errors:
        return
    total = len(listing.errors) + len(listing.plans)
    if total == 1:
        raise StateRagError(listing.errors[0][1])
    first = {cause: overrides for overrides, cause in reversed(listing.errors)}
    counts = Counter(cause for _, cause in listing.errors)
    everywhere = set.intersection(*(set(overrides.split()) for overrides, _ in listing.errors))
    shown = ""
    for cause, count in counts.items():
        own = " ".join(word for word in first[cause].split() if word not in everywhere)
        more = f"and {count - 1} more like it" if count > 1 else ""
        where = ", ".join(filter(None, (own, more)))
        shown += f"\n  {cause}" + (f" ({where})" if where else "")
    raise StateRagError(f"{len(listing.errors)} of {total} configurations cannot run, so none was started:{shown}")


def _enter(plans: dict[str, Plan], folder: Path) -> list[Job]:
    """Write a record for each new job, have those of killed processes wait again, and return all."""
    jobs = []
    for name, plan in plans.items():
        with job_lock(folder, name) as lock:
            job = current(plan, folder)
            if lock is not None and not is_finished(job):
                job = replace(job, status="waiting")
                write_job(folder, job)
        jobs.append(job)
    return jobs


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


def _show_listing(console: Console, listing: Listing, folder: Path) -> None:
    rows = []
    first: dict[str, int] = {}
    left = []
    for number, (plan, asked) in enumerate(zip(listing.plans, listing.asked, strict=True)):
        name = plan.job.name
        state = f"same as #{first[name]}" if name in first else state_of(plan, folder)
        if name not in first and state != "finished":
            left.append(plan)
        first.setdefault(name, number)
        rows.append((plan.job, {"#": str(number), "also": _also(asked, listing.asked), "state": state}))
    _print_table(console, f"What would run in {folder}", rows)
    if listing.trials:
        _say(console, f"A search chooses the values: up to {listing.trials} jobs, of which only the first is known.")
        left = [*listing.plans] * listing.trials
    records = read_jobs(folder) if (folder / "jobs").is_dir() else []
    for line in estimate(left, records).lines():
        _say(console, line)


def _show_result(console: Console, jobs: list[Job], listing: Listing, folder: Path) -> None:
    metric = listing.plans[0].objective
    also: dict[str, set[str]] = {}
    for plan, asked in zip(listing.plans, listing.asked, strict=True):
        also.setdefault(plan.job.name, set()).add(_also(asked, listing.asked))
    rows = []
    elsewhere = 0
    for job in jobs:
        status = job.status
        if status in ("running", "waiting"):
            elsewhere += 1
            status = "running elsewhere" if is_locked(folder, job.name) else "not run"
        value = score(job, metric)
        shown = "-" if math.isnan(value) else f"{value:.3f}"
        time = duration(job.seconds) if job.seconds is not None else "-"
        # What a job was asked for with in several ways makes no difference to it.
        differs = also.get(job.name, {""})
        rows.append(
            (
                job,
                {
                    "also": next(iter(differs)) if len(differs) == 1 else "",
                    "status": status,
                    metric: shown,
                    "time": time,
                },
            )
        )
    _print_table(console, "Jobs", rows)
    for label, name in (("runs and predictions", "runs"), ("records and logs", "jobs"), ("splits", "splits")):
        if (folder / name).is_dir():
            _say(console, f"{label:21} {folder / name}")
    _say(console, f"next: state-rag table1 {folder}")
    if elsewhere:
        _say(
            console,
            f"{elsewhere} of {len(jobs)} jobs have not ended: another process works on them, or did when it was their "
            "turn. The same command goes on with what is left.",
        )
    failed = [job for job in jobs if job.status == "failed"]
    if failed:
        shown = "".join(f"\n  {job.name}: {job.error}\n    log: {job.log}" for job in failed)
        raise StateRagError(f"{len(failed)} of {len(jobs)} jobs failed; the same command tries them again.{shown}")


def _print_table(console: Console, title: str, rows: Sequence[tuple[Job, dict[str, str]]]) -> None:
    """Print jobs with further columns; a narrow terminal leaves out what the names say anyway."""
    table = Table(title=title, title_justify="left", box=SIMPLE)
    own: dict[str, Callable[[Job], str]] = {
        "job": lambda job: job.name,
        "method": lambda job: TITLES[job.method],
        kind_of(job.held_out for job, _ in rows) or "line": lambda job: job.held_out,
        "K": lambda job: "-" if job.topk is None else str(job.topk),
        "seed": lambda job: str(job.seed),
    }
    if console.width < WIDE:
        own = {"job": own["job"]}
    further = list(rows[0][1]) if rows else []
    further = [name for name in further if any(extra[name] for _, extra in rows)]
    names = [*(name for name in further if name == "#"), *own, *(name for name in further if name != "#")]
    for name in names:
        table.add_column(name, overflow="fold", no_wrap=name == "job")
    for job, extra in rows:
        table.add_row(*(extra[name] if name in extra else own[name](job) for name in names))
    console.print(table)


def _also(asked: Sequence[str], everything: Sequence[Sequence[str]]) -> str:
    """Return the overrides of one configuration that not all have, less those with a column of their own."""
    shared = set.intersection(*(set(each) for each in everything))
    kept = [text for text in asked if text not in shared and text.partition("=")[0] not in SHOWN_ELSEWHERE]
    return " ".join(text.partition("=")[0].rpartition(".")[2] + "=" + text.partition("=")[2] for text in kept)


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
