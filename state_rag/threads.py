"""How many threads numerical libraries take."""

from __future__ import annotations

import os
from collections.abc import MutableMapping

OPENMP, NUMBA = "OMP_NUM_THREADS", "NUMBA_NUM_THREADS"


def numba_follows_openmp(environment: MutableMapping[str, str] = os.environ) -> None:
    """Let Numba take no more threads than `OMP_NUM_THREADS` says, unless `NUMBA_NUM_THREADS` says something itself.

    Numba does not read that variable, and its OpenMP layer sets the number of threads for the whole process: after the
    first parallel function of scanpy, PyTorch takes all cores whatever it was told. Where other processes have these,
    threads that wait for each other made small solves a hundred times slower.

    Parameters
    ----------
    environment
        In which variables are looked up and set; it counts where Numba has not been imported yet.
    """
    threads = environment.get(OPENMP, "").split(",")[0].strip()
    if threads.isdecimal() and int(threads) > 0:
        environment.setdefault(NUMBA, threads)
