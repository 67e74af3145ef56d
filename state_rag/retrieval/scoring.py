"""The scorer's hidden layer, [B, S, K, H] in all, in blocks that are recomputed in the backward pass."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

CPU_BLOCK_ELEMENTS = 2**18
"""On a CPU a block that stays in the cache is faster than a large one."""


def score_in_blocks(
    u: Tensor,
    v: Tensor,
    inverse: Tensor,
    constant: Tensor,
    weight: Tensor,
    bias: Tensor,
    *,
    dropout: float = 0.0,
    block_elements: int = 2**24,
) -> Tensor:
    """Return `Linear(Dropout(GELU(inverse * (u + v) + constant)))` for every cell and candidate.

    No tensor of B*S*K*H elements is made or saved for the backward pass.

    Parameters
    ----------
    u
        Cells' part [B, S, H].
    v
        Candidates' part [B, K, H].
    inverse
        Inverse deviations [B, S, K].
    constant
        [H].
    weight, bias
        Of the last layer, [L, H] and [L].
    dropout
        Probability of dropping a hidden value.
    block_elements
        Hidden values that exist at a time; one cell's K*H always do.

    Returns
    -------
    logits
        [B, S, K, L].
    """
    if u.device.type == "cpu":
        block_elements = min(block_elements, CPU_BLOCK_ELEMENTS)
    seed = draw_seed() if dropout > 0 else 0
    return _ScoreInBlocks.apply(u, v, inverse, constant, weight, bias, dropout, seed, block_elements)


def draw_seed() -> int:
    """Return a seed from the CPU's generator, whatever the device: nothing is waited for, and a seeded run repeats."""
    return int(torch.randint(2**62, (), device="cpu"))


class _ScoreInBlocks(torch.autograd.Function):
    """Forward keeps only its arguments; backward computes each block's hidden values again."""

    @staticmethod
    def forward(
        ctx: Any,
        u: Tensor,
        v: Tensor,
        inverse: Tensor,
        constant: Tensor,
        weight: Tensor,
        bias: Tensor,
        dropout: float,
        seed: int,
        block_elements: int,
    ) -> Tensor:
        ctx.save_for_backward(u, v, inverse, constant, weight)
        ctx.dropout, ctx.seed, ctx.block_elements = dropout, seed, block_elements
        logits = u.new_empty(*inverse.shape, len(weight))
        masks = _Masks(u, dropout, seed)
        kept_weight = weight / masks.keep
        for number, (sets, cells) in enumerate(_blocks(inverse.shape, u.shape[-1], block_elements)):
            hidden = u[sets, cells].unsqueeze(2) + v[sets].unsqueeze(1)
            torch.addcmul(constant, hidden, inverse[sets, cells].unsqueeze(-1), out=hidden)
            hidden = masks.apply(functional.gelu(hidden), number)
            found = functional.linear(hidden, kept_weight, bias)
            if found.shape == logits.shape:
                return found
            logits[sets, cells] = found
        return logits

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        u, v, inverse, constant, weight = ctx.saved_tensors
        masks = _Masks(u, ctx.dropout, ctx.seed)
        kept_weight = weight / masks.keep
        grad_u, grad_v, grad_inverse = torch.empty_like(u), torch.zeros_like(v), torch.empty_like(inverse)
        grad_constant, grad_weight = torch.zeros_like(constant), torch.zeros_like(weight)
        for number, (sets, cells) in enumerate(_blocks(inverse.shape, u.shape[-1], ctx.block_elements)):
            total = u[sets, cells].unsqueeze(2) + v[sets].unsqueeze(1)
            scale = inverse[sets, cells].unsqueeze(-1)
            before = torch.addcmul(constant, total, scale)
            of_logits = grad[sets, cells]
            after = masks.apply(functional.gelu(before), number)
            grad_weight += of_logits.flatten(0, 2).T @ after.flatten(0, 2)
            hidden = masks.apply(of_logits @ kept_weight, number)
            hidden = torch.ops.aten.gelu_backward(hidden, before)
            grad_constant += hidden.sum((0, 1, 2))
            grad_inverse[sets, cells] = torch.mul(hidden, total, out=total).sum(-1)
            hidden *= scale
            grad_u[sets, cells] = hidden.sum(2)
            grad_v[sets] += hidden.sum(1)
        grad_weight /= masks.keep
        return grad_u, grad_v, grad_inverse, grad_constant, grad_weight, grad.sum((0, 1, 2)), None, None, None


class _Masks:
    """The dropout masks of the blocks: block `number` has the same mask whenever it is asked for.

    Each hidden value spends 16 random bits, several times cheaper on a CPU than a Bernoulli draw each, which would
    dominate the whole layer. The probability is therefore a multiple of 2**-16, and `keep` is what it comes to.
    """

    def __init__(self, like: Tensor, dropout: float, seed: int) -> None:
        dropped = min(round(dropout * 2**16), 2**16 - 1)
        self.keep, self.seed = 1 - dropped / 2**16, seed
        self.lowest = dropped - 2**15
        self.generator = torch.Generator(like.device) if dropped else None
        self.number, self.mask = -1, like.new_empty(0)

    def apply(self, hidden: Tensor, number: int) -> Tensor:
        """Set the dropped values of block `number` to zero, in place; the others are left unscaled."""
        if self.generator is None:
            return hidden
        if number != self.number:
            self.generator.manual_seed(self.seed + number)
            words = torch.empty(-(-hidden.numel() // 4), dtype=torch.int64, device=hidden.device)
            bits = words.random_(-(2**63), None, generator=self.generator).view(torch.int16)
            self.mask = (bits[: hidden.numel()] < self.lowest).view_as(hidden)
            self.number = number
        return hidden.masked_fill_(self.mask, 0.0)


def _blocks(shape: torch.Size, width: int, block_elements: int) -> Iterator[tuple[slice, slice]]:
    """Yield (sets, cells) slices that cover `shape` [B, S, K]: several whole sets, or some cells of one set."""
    n_sets, n_cells, n_candidates = shape
    cells_a_block = max(1, block_elements // max(n_candidates * width, 1))
    if cells_a_block >= n_cells:
        step = cells_a_block // max(n_cells, 1)
        for first in range(0, n_sets, step):
            yield slice(first, first + step), slice(0, n_cells)
        return
    for number in range(n_sets):
        for first in range(0, n_cells, cells_a_block):
            yield slice(number, number + 1), slice(first, first + cells_a_block)
