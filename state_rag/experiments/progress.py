"""Show how far a sweep is, by reading the jobs' records; where the jobs run makes no difference."""

import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.text import Text

from state_rag.errors import StateRagError
from state_rag.experiments.cost import SecondsOf, duration
from state_rag.experiments.jobs import Job, read_job
from state_rag.experiments.run_job import score

DONE = ("finished", "failed")


class Progress:
    """Report every change of the jobs' records while the `with` block runs.

    Parameters
    ----------
    folder
        The sweep.
    jobs
        The jobs as they stand now.
    metric
        What to say of a finished job.
    console
        A terminal also gets a line that is kept up to date.
    total
        Number of jobs, where a search makes them one by one; None for the jobs given.
    interval
        Seconds between two looks.
    """

    def __init__(
        self,
        folder: Path,
        jobs: Iterable[Job],
        metric: str,
        console: Console,
        total: int | None = None,
        interval: float = 0.5,
    ) -> None:
        self.folder, self.metric, self.console, self.interval = folder, metric, console, interval
        self.jobs = {job.name: job for job in jobs}
        self.total = total
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
        for job in self._read():
            before = self.jobs.get(job.name)
            if job == before:
                continue
            self.jobs[job.name] = job
            if job.status == "running" and job.name not in self.since:
                self.since[job.name] = time.monotonic()
                self._print("started", job)
            elif job.status in DONE and (before is None or before.status != job.status):
                self.since.pop(job.name, None)
                self._print(job.status, job)
        if self._live is not None:
            self._live.update(Text(self.line()))

    def line(self) -> str:
        """Return the counts and the time left."""
        counts = {status: sum(job.status == status for job in self.jobs.values()) for status in (*DONE, "running")}
        done = f"{counts['finished']} of {self.total or len(self.jobs)} done"
        text = f"{done}, {counts['running']} running, {counts['failed']} failed"
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
        if not known and self.total is not None:
            known = [job.seconds for job in self.jobs.values() if job.seconds is not None]
        if not known:
            return None
        coming = len(left) + max(0, (self.total or 0) - len(self.jobs))
        total = sum(known) * coming / len(known)
        gone = sum(time.monotonic() - self.since[job.name] for job in left if job.name in self.since)
        return max(total - gone, 0.0) / max(1, sum(job.status == "running" for job in left))

    def _read(self) -> list[Job]:
        """Read the records of the jobs; of a search, of all that the folder has."""
        names = list(self.jobs)
        if self.total is not None:
            names = sorted(path.stem for path in (self.folder / "jobs").glob("[!.]*.json"))
        found = []
        for name in names:
            # A record that somebody removes meanwhile, or damages, is no reason to end the sweep.
            with suppress(StateRagError):
                found.append(read_job(self.folder, name))
        return found

    def _print(self, what: str, job: Job) -> None:
        details = ""
        if what == "finished":
            details = f" in {duration(job.seconds or 0.0)}, {self.metric} {score(job, self.metric):.3f}"
        elif what == "failed":
            details = f": {job.error} Log: {job.log}"
        self.console.print(
            f"{time.strftime('%H:%M:%S')} {what} {job.name}{details} ({self.line()})",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
