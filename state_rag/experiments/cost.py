"""What a sweep will take: measured on finished jobs where there are any like it, else counted."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from state_rag.experiments.jobs import Job
from state_rag.experiments.plan import Plan

VARIES = ("rag", "data.kwargs.toml_config_path", "training.train_seed", "training.topk_rag")
"""Keys that may differ between jobs that take about equally long, the method aside."""


@dataclass(frozen=True)
class Cost:
    """An estimate for jobs that run one after the other.

    Attributes
    ----------
    seconds
        Seconds of the jobs that have finished ones like them.
    measured
        Number of those jobs.
    counted
        Number of jobs without finished ones like them.
    cells
        Cells that these train on, repeats included.
    flops
        Floating-point operations of their training in the transformer's weight matrices: 6 x weights x cells.
    """

    seconds: float
    measured: int
    counted: int
    cells: int
    flops: float

    def lines(self) -> list[str]:
        """Return the estimate in words."""
        found = []
        if self.measured:
            found.append(
                f"{self.measured} to run: {duration(self.seconds)} one after the other, going by finished jobs of the "
                "same size in this folder."
            )
        if self.counted:
            found.append(
                f"{self.counted} to run: no job of this size has finished in this folder, so no time can be given. "
                f"They train on {self.cells:,} cells (steps x sets x cells of a set), {self.flops:.2g} floating-point "
                "operations in the transformer's weight matrices (6 x weights x cells); encoders, decoder, retrieval, "
                "data loading, prediction and evaluation come on top."
            )
        return found or ["Nothing is left to run."]


def estimate(plans: Sequence[Plan], records: Iterable[Job]) -> Cost:
    """Estimate the cost of jobs from finished ones.

    Parameters
    ----------
    plans
        The jobs to run.
    records
        The jobs that the sweep has.
    """
    times = SecondsOf(records)
    known = [(plan, times.like(plan.job)) for plan in plans]
    unknown = [plan.training for plan, seconds in known if seconds is None]
    measured = [seconds for _, seconds in known if seconds is not None]
    cells = [size["steps"] * size["cells"] for size in unknown]
    flops = [6.0 * size["weights"] * count for size, count in zip(unknown, cells, strict=True)]
    return Cost(sum(measured), len(measured), len(unknown), sum(cells), sum(flops))


class SecondsOf:
    """Mean seconds of finished jobs, by what they do."""

    def __init__(self, records: Iterable[Job]) -> None:
        self.exact: dict[tuple[str, frozenset[str]], list[float]] = {}
        self.by_size: dict[frozenset[str], list[float]] = {}
        for job in records:
            if job.status == "finished" and job.seconds is not None:
                size = _size(job)
                self.exact.setdefault((job.method, size), []).append(job.seconds)
                self.by_size.setdefault(size, []).append(job.seconds)

    def like(self, job: Job) -> float | None:
        """Return the mean for jobs of this method and size, else of any method and this size; None for none."""
        found = self.exact.get((job.method, _size(job))) or self.by_size.get(_size(job))
        return fmean(found) if found else None


def duration(seconds: float) -> str:
    """Return a number of seconds as a person says it; halves are rounded up, not to the even number as Python does.

    Examples
    --------
    >>> duration(42.2), duration(150), duration(9000)
    ('42 s', '3 min', '2.5 h')
    """
    if seconds < 100:
        return f"{math.floor(seconds + 0.5)} s"
    return f"{math.floor(seconds / 60 + 0.5)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _size(job: Job) -> frozenset[str]:
    return frozenset(text for text in job.overrides if text.partition("=")[0] not in VARIES)
