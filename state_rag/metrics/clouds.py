"""Batches of point clouds of different sizes, and how they are computed on."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one thread for a while.

    The operations on clouds are so small that a second thread hardly helps, and where other work keeps the cores
    busy, threads that wait for each other make them ten times slower.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def pad(clouds: list[np.ndarray], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Stack clouds `[n_i, D]` into `[B, max n, D]` with zeros behind, and return their sizes."""
    sizes = [len(cloud) for cloud in clouds]
    out = torch.zeros(len(clouds), max(sizes), clouds[0].shape[1], dtype=torch.float64)
    for row, cloud in enumerate(clouds):
        out[row, : len(cloud)] = torch.from_numpy(cloud)
    return out.to(device), torch.tensor(sizes, device=device)
