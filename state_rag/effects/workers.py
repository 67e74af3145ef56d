"""Who does independent pieces of work: threads of this process, or the workers of a Dask scheduler."""

import logging
import os
from argparse import ArgumentParser
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from state_rag.errors import StateRagError

Shared = TypeVar("Shared")
Task = TypeVar("Task")
Result = TypeVar("Result")

_THREADS = 4
"""At most so many: HDF5 reads one thread at a time, so that more would wait for it."""


@dataclass(frozen=True)
class Workers:
    """Where work is done.

    Attributes
    ----------
    scheduler
        Address of a Dask scheduler, such as `tcp://10.0.0.1:8786`, whose workers see the same files at the same places.
    count
        So many Dask workers of its own on this machine, a process each. Without either, threads of this process.
    """

    scheduler: str | None = None
    count: int | None = None

    def __post_init__(self) -> None:
        if self.scheduler is not None and self.count is not None:
            raise StateRagError(
                "--scheduler names workers that run already, and --workers starts its own; give one of the two."
            )
        if self.count is not None and self.count < 1:
            raise StateRagError(f"--workers {self.count}: expected 1 or more.")

    def run(
        self,
        function: Callable[..., Result],
        shared: Shared,
        tasks: Sequence[Task],
        told: Callable[[Task, int | None], object],
    ) -> Generator[Result, None, None]:
        """Yield `function(shared, task, told)` of each task, in their order.

        Parameters
        ----------
        function
            Of a module; it gets `told` as `function(shared, task, told)`, or None where it runs in another process.
        shared
            What all tasks need, sent to each worker once.
        tasks
            Few are begun before their turn, so that results do not pile up.
        told
            Called with a task and how much of it is done; with None for all of it.

        Raises
        ------
        StateRagError
            If Dask is asked for and not there, or does not answer; and what `function` raises.
        """
        if self.scheduler is None and self.count is None:
            yield from _threads(function, shared, tasks, told)
            return
        with _dask(self) as client:
            threads = max(1, sum(client.nthreads().values()))
            common = client.scatter(shared, broadcast=True)

            def submit(task: Task) -> Any:
                return client.submit(function, common, task, None, pure=False)

            for task, future in _in_turn(submit, tasks, 2 * threads + 2):
                try:
                    result = future.result()
                except StateRagError:
                    raise
                except Exception as error:
                    said = (str(error) or type(error).__name__).splitlines()[0]
                    raise StateRagError(
                        f"{task}: a Dask worker failed ({type(error).__name__}: {said}). The workers need the same "
                        "state-rag, the same files at the same places, and memory for a block of cells; what is done "
                        "is kept, so start again."
                    ) from error
                told(task, None)
                yield result


def add_worker_options(parser: ArgumentParser) -> None:
    """Add who reads cells."""
    parser.add_argument(
        "--scheduler",
        metavar="ADDRESS",
        help="read cells by the workers of this Dask scheduler (tcp://HOST:8786), which see the same files; needs the "
        "extra `dask`",
    )
    parser.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="read cells by N Dask workers of this machine, a process each (default: threads)",
    )


def _threads(
    function: Callable[..., Result],
    shared: Shared,
    tasks: Sequence[Task],
    told: Callable[[Task, int | None], object],
) -> Iterator[Result]:
    if len(tasks) < 2:
        for task in tasks:
            yield function(shared, task, lambda done, task=task: told(task, done))
        return
    from concurrent.futures import ThreadPoolExecutor

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    count = min(len(tasks), _THREADS, cores)
    executor = ThreadPoolExecutor(count)

    def submit(task: Task) -> Any:
        return executor.submit(function, shared, task, lambda done: told(task, done))

    try:
        for _, future in _in_turn(submit, tasks, count + 2):
            yield future.result()
    finally:
        executor.shutdown(cancel_futures=True)


def _in_turn(submit: Callable[[Task], Any], tasks: Iterable[Task], at_once: int) -> Iterator[tuple[Task, Any]]:
    """Yield tasks and what stands for their results, in order, with few begun before their turn."""
    begun: deque[tuple[Task, Any]] = deque()
    for task in tasks:
        begun.append((task, submit(task)))
        if len(begun) >= at_once:
            yield begun.popleft()
    yield from begun


@contextmanager
def _dask(workers: Workers) -> Iterator[Any]:
    """Connect to a scheduler, or start one."""
    option = f"--scheduler {workers.scheduler}" if workers.scheduler else f"--workers {workers.count}"
    try:
        from distributed import Client, LocalCluster
    except ImportError as error:
        raise StateRagError(
            f"{option} needs Dask, which is not installed: pip install 'state-rag[dask]'. Without the option, threads "
            "of this process do the work."
        ) from error
    if workers.scheduler is None:
        with (
            LocalCluster(
                n_workers=workers.count, threads_per_worker=1, dashboard_address=None, silence_logs=logging.ERROR
            ) as cluster,
            Client(cluster) as client,
        ):
            yield client
        return
    try:
        client = Client(workers.scheduler, timeout="10s")
    except (OSError, ValueError, TimeoutError) as error:
        raise StateRagError(
            f"{option}: no Dask scheduler answers there ({type(error).__name__}). Start one with `dask scheduler` and "
            "workers with `dask worker ADDRESS`, or leave the option out."
        ) from error
    with client:
        if not client.nthreads():
            raise StateRagError(f"{option}: the scheduler has no workers. Start some: `dask worker ADDRESS`.")
        yield client
