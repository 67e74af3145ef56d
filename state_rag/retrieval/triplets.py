"""Linear layers of normalised triplets (cell, query, candidate) that are never built.

With mean mu and inverse deviation r of a triplet, W' = W * gamma, its three parts W'x, W'p, W'k, and s = W' 1,

    W LayerNorm([x ; p ; k]) + b = r (u + v_k) + c0,
    u = W'x x - mean(x)/3 s,  v_k = W'p p + W'k k - (mean(p) + mean(k))/3 s,  c0 = W beta + b,

so that one product for each cell, set and distinct candidate replaces one for each (cell, candidate). Several layers
are stacked to one, and what is known of a candidate is gathered once: on an accelerator it is the number of operations
that costs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

SMALLEST_NORM = 1e-12


@dataclass(frozen=True)
class Triplets:
    """B sets of S cells with a query and K candidates each, and L stacked outputs of layers on them.

    Attributes
    ----------
    u, of_query, of_candidate, constant
        [B, S, L], [B, L], [B, K, L] and [L]; the layers' outputs are
        `inverse * (u + of_query + of_candidate) + constant`.
    cells, query, candidates
        Mean, and share in the triplet's variance, of each part: [B, S, 2], [B, 2] and [B, K, 2].
    cosine
        Of query and candidate [B, K]; None where it was not asked for.
    epsilon
        Of the normalisation.
    """

    u: Tensor
    of_query: Tensor
    of_candidate: Tensor
    constant: Tensor
    cells: Tensor
    query: Tensor
    candidates: Tensor
    cosine: Tensor | None
    epsilon: float

    def inverse(self, told: Tensor | None = None) -> Tensor:
        """Return 1 / sqrt(variance + eps) of every triplet [B, S, K], or [T, B, S, K] of T versions of the queries.

        Parameters
        ----------
        told
            [T, B, 1]: each version's queries are so many times themselves.
        """
        query = self.query if told is None else self.query * told
        mean, variance = query.split(1, -1)
        others, spread = self.candidates.unbind(-1)
        own, scatter = self.cells.split(1, -1)
        # of three means m the sum of (m - mean)^2 is (p - k)^2 / 2 + (x - (p + k) / 2)^2 * 2/3: no digits are lost
        apart = others - mean
        within = torch.addcmul(spread + variance + self.epsilon, apart, apart, value=1 / 6)
        middle = torch.add(mean, apart, alpha=0.5)
        apart = own - middle.unsqueeze(-2)
        return torch.addcmul(scatter + within.unsqueeze(-2), apart, apart, value=2 / 9).rsqrt()

    def v(self) -> Tensor:
        """Return the part of the set and its candidates [B, K, L]."""
        return self.of_candidate + self.of_query.unsqueeze(1)

    def told(self, told: Tensor) -> Tensor:
        """Return `v` where queries are `told` times themselves [B, 1]."""
        return torch.addcmul(self.of_candidate, self.of_query.unsqueeze(1), told.unsqueeze(1))


def triplets(
    cells: Tensor,
    query: Tensor,
    candidates: Tensor,
    index: Tensor,
    norm: nn.LayerNorm,
    layers: Sequence[nn.Linear],
    *,
    cosine: bool = False,
) -> Triplets:
    """Apply layers to the normalised triplets of a batch.

    Parameters
    ----------
    cells, query, candidates
        Of one type: [B, S, H], [B, H], and the N distinct candidates [N, H].
    index
        Each set's candidates, long [B, K] into `candidates`.
    norm
        Of triplets, 3 H wide.
    layers
        From 3 H to any width; their outputs are stacked to L.
    cosine
        Whether the cosine of query and candidate is wanted.
    """
    dtype, width = cells.dtype, cells.shape[-1]
    rows = torch.cat((cells.flatten(0, 1), query, candidates))
    counts = (cells.shape[0] * cells.shape[1], len(query), len(candidates))
    # a correction of -2 H has the sum of squares divided by 3 H: the part's share in the triplet's variance
    variance, mean = torch.var_mean(rows, -1, correction=-2 * width, keepdim=True)
    centred = torch.cat((rows - mean, mean), -1).split(counts)
    moments = torch.cat((mean, variance), -1).split(counts)
    weight = torch.cat([layer.weight for layer in layers]).to(dtype)
    bias = torch.cat([layer.bias for layer in layers]).to(dtype)
    scaled = (weight * norm.weight.to(dtype)).unflatten(1, (3, width))
    sums = scaled.sum(-1, keepdim=True)
    scaled = torch.cat((scaled, sums - sums.mean(1, keepdim=True)), -1)
    u, of_query, of_candidates = (F.linear(*pair) for pair in zip(centred, scaled.unbind(1), strict=True))
    known, unit = [of_candidates, moments[2]], None
    if cosine:
        pair = rows[counts[0] :]
        unit = pair / torch.linalg.vector_norm(pair, dim=-1, keepdim=True).clamp_min(SMALLEST_NORM)
        known.append(unit[counts[1] :])
    of_candidate, of_moments, *of_unit = torch.cat(known, -1)[index].split([part.shape[-1] for part in known], -1)
    return Triplets(
        u.unflatten(0, cells.shape[:2]),
        of_query,
        of_candidate,
        torch.addmv(bias, weight, norm.bias.to(dtype)),
        moments[0].unflatten(0, cells.shape[:2]),
        moments[1],
        of_moments,
        torch.bmm(of_unit[0], unit[: counts[1], :, None]).squeeze(-1) if unit is not None else None,
        norm.eps,
    )


class HardGate(torch.autograd.Function):
    """1 where a difference of logits is above 0, else 0; backward as sigmoid(difference / temperature)."""

    @staticmethod
    def forward(ctx, difference: Tensor, temperature: float) -> Tensor:
        """Decide."""
        ctx.save_for_backward(difference)
        ctx.temperature = temperature
        return torch.gt(difference, 0, out=torch.empty_like(difference))

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        """Pass the soft gate's gradient."""
        (difference,) = ctx.saved_tensors
        soft = torch.sigmoid(difference / ctx.temperature)
        return torch.ops.aten.sigmoid_backward(grad, soft) / ctx.temperature, None
