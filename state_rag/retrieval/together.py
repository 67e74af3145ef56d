"""What retrieval reckons over a whole batch, where several processes each have a share of it.

Data-parallel training averages the gradients of the processes. A mean over what each of them has is only the mean over
all where they have equally much, and a deviation never is; so these are made of sums over the processes, with gradient.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed


class Together:
    """The processes that train one model together.

    They have a process group of their own: in the backward pass, data-parallel training sends gradients in an order
    that these sums must not get into.

    Parameters
    ----------
    timeout
        How long a process waits for the others; None as long as by default.
    """

    def __init__(self, timeout: timedelta | None = None) -> None:
        self.world: Any = distributed.group.WORLD
        self.group = distributed.new_group(timeout=timeout)
        self.rank, self.size = distributed.get_rank(), distributed.get_world_size()

    @staticmethod
    def is_needed() -> bool:
        """Whether more than one process trains."""
        return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1

    def rows(self, own: Tensor) -> Tensor:
        """Return every process's row of numbers [size, L], of which `own` [L] is this one's, with gradient.

        All processes must ask, as often and in the same order, and all must go backward through the answer.
        """
        mine = torch.zeros(self.size, 1, device=own.device, dtype=own.dtype)
        mine[self.rank] = 1
        return _Sum.apply(mine * own, self.group)


def moments(values: Tensor, together: Together, anchor: Tensor) -> tuple[Tensor, Tensor]:
    """Return what is known of numbers that are spread over processes, of which every process has some or none.

    Parameters
    ----------
    values
        This process's numbers, of any shape.
    together
        Who has the others.
    anchor
        A scalar 0 with gradient, for a process without numbers: it has to go backward with the others.

    Returns
    -------
    deviation, share
        Scalars: the standard deviation over all, with gradient, NaN of fewer than two; and what this process's mean
        is multiplied by, so that the mean over processes is the mean over all.
    """
    count = values.numel()
    mean = values.mean() if count else anchor.to(values.dtype)
    squares = (values - mean).square().sum()
    own = torch.stack((torch.full_like(mean, count), mean + anchor.to(mean.dtype), squares))
    # counts, means and squares around one's own mean: sums of raw squares would lose digits in float32
    counts, means, squares = together.rows(own).unbind(1)
    total = counts.sum()
    overall = (counts * means).sum() / total.clamp_min(1)
    variance = (squares + counts * (means - overall).square()).sum() / (total - 1)
    deviation = torch.where(total > 1, variance, torch.nan).sqrt()
    return deviation, together.size * count / total.detach().clamp_min(1)


class _Sum(torch.autograd.Function):
    """The sum over processes; its gradient is the sum of theirs, since each process goes on with it in its own way."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, group: Any) -> Tensor:
        ctx.group = group
        return _summed(values, group)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return _summed(grad, ctx.group), None


def _summed(values: Tensor, group: Any) -> Tensor:
    total = values.detach().contiguous().clone()
    distributed.all_reduce(total, group=group)
    return total
