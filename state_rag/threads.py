"""How many threads PyTorch takes beside libraries that set the number for the whole process."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def torch_threads_kept() -> Iterator[None]:
    """Give PyTorch back the number of threads that it had, whatever is called within.

    The first parallel function of Numba, and so of scanpy, sets OpenMP's number of threads to that of all cores, and
    PyTorch takes it from there, `OMP_NUM_THREADS` or not. Where other processes have these cores, threads that wait
    for each other make small solves a hundred times slower. (Numba's own `NUMBA_NUM_THREADS` is no way out: with
    fewer than all cores pdex, and so cell-eval, ends in an error.)
    """
    if "torch" not in sys.modules and "OMP_NUM_THREADS" not in os.environ:
        yield
        return
    import torch

    before = torch.get_num_threads()
    try:
        yield
    finally:
        if torch.get_num_threads() != before:
            torch.set_num_threads(before)
