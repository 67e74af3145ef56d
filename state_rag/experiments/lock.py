"""One job, one process: a lock that the operating system frees when its holder is gone."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import lock_descriptor

GLANCE = 0.5
"""Seconds to keep trying for a lock that is held, before another process is taken to work on the job."""


@contextmanager
def job_lock(folder: Path, name: str, *, wait: bool = False) -> Iterator[int | None]:
    """Hold the lock of a job.

    A lock belongs to an open file. Child processes that are given the descriptor (``pass_fds``) hold it too, so
    that a job whose parent alone was killed is not started a second time while its training still runs.

    Parameters
    ----------
    folder
        The sweep.
    name
        The job.
    wait
        Whether to wait until the lock is free.

    Yields
    ------
    int or None
        The locked file descriptor; None where another process holds the lock.
    """
    path = lock_path(folder, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        yield descriptor if _taken(descriptor, wait) else None
    finally:
        os.close(descriptor)


def _taken(descriptor: int, wait: bool) -> bool:
    """Take the lock. Without `wait`, try for as long as somebody may hold it who only looks at it (`is_locked`)."""
    if wait:
        return lock_descriptor(descriptor)
    until = time.monotonic() + GLANCE
    while not lock_descriptor(descriptor, blocking=False):
        if time.monotonic() > until:
            return False
        time.sleep(GLANCE / 10)
    return True


def lock_path(folder: Path, name: str) -> Path:
    """Return the file whose lock means that somebody works on the job; it stays when the lock is free."""
    return folder / "jobs" / f"{name}.lock"


def is_locked(folder: Path, name: str) -> bool:
    """Whether a process works on the job. Writes nothing where no lock was ever taken."""
    if not lock_path(folder, name).exists():
        return False
    descriptor = os.open(lock_path(folder, name), os.O_RDWR)
    try:
        return not lock_descriptor(descriptor, blocking=False)
    finally:
        os.close(descriptor)
