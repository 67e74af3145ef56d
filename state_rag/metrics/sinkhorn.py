r"""Debiased Sinkhorn divergences of many pairs of point clouds at once.

The result for each pair is what `geomloss.SamplesLoss("sinkhorn", p=p, blur=blur, scaling=scaling)` returns for it
alone (balanced, tensorised). GeomLoss' own batches share one temperature schedule, taken from the largest pair, so
that a pair's value depends on its batch-mates; here every pair follows its own schedule, and clouds of different
sizes can share a batch.

Feydy et al., "Interpolating between Optimal Transport and MMD using Sinkhorn Divergences", AISTATS 2019
(arXiv:1810.08278), and Feydy's thesis (2020), algorithm 3.5.
"""

import math

import torch

NOTHING = -1e5


def sinkhorn_divergence(
    x: torch.Tensor,
    y: torch.Tensor,
    n: torch.Tensor,
    m: torch.Tensor,
    *,
    p: int,
    blur: float = 0.01,
    scaling: float = 0.5,
) -> torch.Tensor:
    r"""Return `OT(x, y) - OT(x, x) / 2 - OT(y, y) / 2` for uniform weights and cost `|x_i - y_j|^p / p`.

    Parameters
    ----------
    x, y
        Points `[B, N, D]` and `[B, M, D]`; rows beyond `n` or `m` are padding.
    n, m
        Number of points of each cloud, `[B]`.
    p
        1 or 2. With p = 2 the cost is halved and the result is not rooted, as in the paper's W2.
    blur
        Final temperature is `blur ** p`.
    scaling
        Ratio of two successive blurs.

    Returns
    -------
    torch.Tensor
        `[B]`, in the dtype of `x`.
    """
    if p not in (1, 2):
        raise ValueError(f"p is {p}; expected 1 or 2")
    real_x = torch.arange(x.shape[1], device=x.device) < n[:, None]
    real_y = torch.arange(y.shape[1], device=y.device) < m[:, None]
    # Padding repeats the first point, so that it changes no diameter.
    x = torch.where(real_x[..., None], x, x[:, :1])
    y = torch.where(real_y[..., None], y, y[:, :1])
    a = torch.where(real_x, -torch.log(n.to(x.dtype))[:, None], NOTHING)
    b = torch.where(real_y, -torch.log(m.to(y.dtype))[:, None], NOTHING)
    schedules = [_schedule(value, p, blur, scaling) for value in _diameters(x, y).tolist()]
    result = torch.empty(len(x), dtype=x.dtype, device=x.device)
    for steps in sorted({len(schedule) for schedule in schedules}):
        chosen = [row for row, schedule in enumerate(schedules) if len(schedule) == steps]
        eps = torch.tensor([schedules[row] for row in chosen], dtype=x.dtype, device=x.device)
        rows = torch.tensor(chosen, device=x.device)
        result[rows] = _divergence(x[rows], y[rows], a[rows], b[rows], eps, p)
    return result


def _divergence(x, y, a, b, eps: torch.Tensor, p: int) -> torch.Tensor:
    """Run the symmetric Sinkhorn loop; `eps` is `[B, steps]`."""
    cost_xy, cost_xx, cost_yy = _cost(x, y, p), _cost(x, x, p), _cost(y, y, p)
    cost_yx = cost_xy.transpose(1, 2).contiguous()
    first = eps[:, :1]
    f_xy, g_xy = _softmin(first, cost_xy, b), _softmin(first, cost_yx, a)
    f_xx, g_yy = _softmin(first, cost_xx, a), _softmin(first, cost_yy, b)
    for step in range(eps.shape[1]):
        e = eps[:, step : step + 1]
        f_new, g_new = _softmin(e, cost_xy, b + g_xy / e), _softmin(e, cost_yx, a + f_xy / e)
        f_xy, g_xy = (f_xy + f_new) / 2, (g_xy + g_new) / 2
        f_xx = (f_xx + _softmin(e, cost_xx, a + f_xx / e)) / 2
        g_yy = (g_yy + _softmin(e, cost_yy, b + g_yy / e)) / 2
    last = eps[:, -1:]
    f_xy, g_xy = _softmin(last, cost_xy, b + g_xy / last), _softmin(last, cost_yx, a + f_xy / last)
    f_xx, g_yy = _softmin(last, cost_xx, a + f_xx / last), _softmin(last, cost_yy, b + g_yy / last)
    return (a.exp() * (f_xy - f_xx)).sum(dim=1) + (b.exp() * (g_xy - g_yy)).sum(dim=1)


def _softmin(eps: torch.Tensor, cost: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
    """Return `-eps log sum_j exp(h_j - cost_ij / eps)`; eps `[B, 1]`, cost `[B, I, J]`, h `[B, J]`."""
    return -eps * torch.logsumexp(torch.addcdiv(h[:, None, :], cost, eps[:, :, None], value=-1), dim=2)


def _cost(x: torch.Tensor, y: torch.Tensor, p: int) -> torch.Tensor:
    """Return `|x - y|` or `|x - y|^2 / 2`; squared distances below 1e-8 count as 1e-8 for p = 1, as in GeomLoss."""
    squares = squared_distances(x, y)
    return squares.clamp_min(1e-8).sqrt() if p == 1 else squares / 2


def squared_distances(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Return squared Euclidean distances `[B, N, M]` through one batched product, never negative."""
    # Common shift: distances stay, cancellation shrinks.
    centre = x.mean(dim=1, keepdim=True)
    x, y = x - centre, y - centre
    squares = x.square().sum(dim=2)[:, :, None] + y.square().sum(dim=2)[:, None, :]
    return torch.baddbmm(squares, x, y.transpose(1, 2), alpha=-2).clamp_min(0)


def _diameters(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Return the diagonal of each pair's bounding box, `[B]`: GeomLoss' starting scale."""
    both = torch.cat((x, y), dim=1)
    return (both.amax(dim=1) - both.amin(dim=1)).norm(dim=1)


def _schedule(diameter: float, p: int, blur: float, scaling: float) -> list[float]:
    """Return the temperatures: from `diameter ** p` down to `blur ** p` in steps of `scaling ** p`."""
    if not math.isfinite(diameter) or diameter <= 0:
        return [blur**p]
    start, stop, step = p * math.log(diameter), p * math.log(blur), p * math.log(scaling)
    count = max(0, math.ceil((stop - start) / step))
    return [diameter**p, *(math.exp(start + step * k) for k in range(count)), blur**p]
