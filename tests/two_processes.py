"""A training by two processes, forked from a test's own."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, multiprocessing, nn

from state_rag.model import RagStateTransition


class Step(nn.Module):
    """A training step as a forward pass, which is what distributed training wraps."""

    def __init__(self, model: RagStateTransition) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: dict) -> Tensor:
        return self.model.training_step(batch, 0)


def run_two(train: Callable[[int], Any], folder: Path) -> None:
    """Call `train` with 0 and 1, each in a process of its own; what it returns is saved for `found_by_two`."""
    # forked, since importing everything twice would take longer than all other tests of the model
    multiprocessing.start_processes(_run, (train, str(folder)), nprocs=2, daemon=True, start_method="fork")


def found_by_two(folder: Path) -> list[Any]:
    """What both processes found."""
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


def _run(rank: int, train: Callable[[int], Any], folder: str) -> None:
    torch.set_num_threads(1)
    store = torch.distributed.FileStore(f"{folder}/store", 2)
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=2)
    torch.save(train(rank), f"{folder}/{rank}.pt")
    store.set(f"done {rank}", "")
    store.wait([f"done {1 - rank}"])
    os._exit(0)  # gloo's own end may wait for ever in a process that was forked
