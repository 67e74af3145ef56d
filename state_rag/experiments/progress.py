"""Show how far a sweep is, by reading the jobs' records; where the jobs run makes no difference."""

import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.text import Text

from state_rag.errors import StateRagError
from state_rag.experiments.cost import SecondsOf, duration
from state_rag.experiments.jobs import Job, read_job, record_path
from state_rag.experiments.plan import Plan
from state_rag.experiments.run_job import score

DONE = ("finished", "failed")


class Progress:
    """Report every change of the jobs' records while the `with` block runs.

    Parameters
    ----------
    folder
        The sweep.
    plans
        The jobs, by name.
    console
        A terminal also gets a line that is kept up to date.
    interval
        Seconds between two looks.
    """

    def __init__(self, folder: Path, plans: Mapping[str, Plan], console: Console, interval: float = 0.5) -> None:
        self.folder, self.plans, self.console, self.interval = folder, plans, console, interval
        self.jobs = {name: self._read(name) for name in plans}
        self.since: dict[str, float] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="sweep progress", daemon=True)
        self._live = Live(console=console, refresh_per_second=2, transient=True) if console.is_terminal else None

    def __enter__(self) -> "Progress":
        if self._live is not None:
            self._live.start()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        if self._live is not None:
            self._live.stop()

    def _watch(self) -> None:
        while True:
            last = self._stop.wait(self.interval)
            self.look()
            if last:
                return

    def look(self) -> None:
        """Read the records once and report what has changed."""
        for name, before in self.jobs.items():
            if before.status in DONE and name not in self.since and before.status == "finished":
                continue
            job = self._read(name)
            if job == before:
                continue
            self.jobs[name] = job
            if job.status == "running" and name not in self.since:
                self.since[name] = time.monotonic()
                self._print("started", job)
            elif job.status in DONE and before.status != job.status:
                self.since.pop(name, None)
                self._print(job.status, job)
        if self._live is not None:
            self._live.update(Text(self.line()))

    def line(self) -> str:
        """Return the counts and the time left."""
        counts = {status: sum(job.status == status for job in self.jobs.values()) for status in (*DONE, "running")}
        text = f"{counts['finished']} of {len(self.jobs)} done, {counts['running']} running, {counts['failed']} failed"
        left = self.seconds_left()
        return text if left is None else f"{text}, about {duration(left)} left"

    def seconds_left(self) -> float | None:
        """Return the seconds left, by finished jobs like those that are left; None where there are none.

        As many jobs are taken to run at once as do now.
        """
        times = SecondsOf(self.jobs.values())
        left = [job for job in self.jobs.values() if job.status in ("waiting", "running")]
        expected = [times.like(job) for job in left]
        known = [seconds for seconds in expected if seconds is not None]
        if not known:
            return None
        total = sum(known) * len(left) / len(known)
        gone = sum(time.monotonic() - self.since[job.name] for job in left if job.name in self.since)
        return max(total - gone, 0.0) / max(1, sum(job.status == "running" for job in left))

    def _read(self, name: str) -> Job:
        plan = self.plans[name]
        if not record_path(self.folder, name).is_file():
            return plan.job
        try:
            return read_job(self.folder, name)
        except StateRagError:
            return plan.job

    def _print(self, what: str, job: Job) -> None:
        details = ""
        if what == "finished":
            metric = self.plans[job.name].objective
            details = f" in {duration(job.seconds or 0.0)}, {metric} {score(job, metric):.3f}"
        elif what == "failed":
            details = f": {job.error} Log: {job.log}"
        self.console.print(
            f"{time.strftime('%H:%M:%S')} {what} {job.name}{details} ({self.line()})",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
