r"""Distances between the clouds of real and predicted cells, multivariate, in PCA space.

All functions take a batch of clouds: `x` `[B, N, D]` real and `y` `[B, M, D]` predicted cells, of which the first
`n` and `m` (`[B]`) count and the rest is padding. Results are `[B]` in float64.
"""

import torch

from state_rag.metrics.sinkhorn import sinkhorn_divergence, squared_distances


def energy_distance(x: torch.Tensor, y: torch.Tensor, n: torch.Tensor, m: torch.Tensor) -> torch.Tensor:
    r"""Return `E|x - y| - E|x - x'| / 2 - E|y - y'| / 2`, exactly, over all pairs of cells.

    This is GeomLoss' `SamplesLoss("energy")` (the paper's), half of Szekely and Rizzo's (2013) energy distance.
    Pairs of a cell with itself are counted, as there.
    """
    inside = _mask(x, n), _mask(y, m)
    cross = _pair_mean(squared_distances(x, y).sqrt(), inside[0], inside[1])
    within_x = _pair_mean(_self_distances(x), inside[0], inside[0])
    within_y = _pair_mean(_self_distances(y), inside[1], inside[1])
    return (cross - within_x / 2 - within_y / 2).clamp_min(0)


def wasserstein_1(x: torch.Tensor, y: torch.Tensor, n: torch.Tensor, m: torch.Tensor) -> torch.Tensor:
    """Return the debiased Sinkhorn divergence with cost `|x - y|`, blur 0.01 (the paper's W1)."""
    return sinkhorn_divergence(x, y, n, m, p=1)


def wasserstein_2(x: torch.Tensor, y: torch.Tensor, n: torch.Tensor, m: torch.Tensor) -> torch.Tensor:
    """Return the debiased Sinkhorn divergence with cost `|x - y|^2 / 2`, blur 0.01, not rooted (the paper's W2).

    GGE's `multivariate_wasserstein` is the same number on the same coordinates.
    """
    return sinkhorn_divergence(x, y, n, m, p=2)


def maximum_mean_discrepancy(x: torch.Tensor, y: torch.Tensor, n: torch.Tensor, m: torch.Tensor) -> torch.Tensor:
    r"""Return the unbiased squared MMD (Gretton et al. 2012, eq. 3), not below 0.

    Kernel `exp(-|x - y|^2 / (2 s^2))`, with `s` the root of the median of the positive squared distances among all
    cells of the condition (GGE's `multivariate_mmd`). NaN with fewer than two cells on a side.
    """
    values = []
    for row in range(len(x)):
        a, b = x[row, : n[row]], y[row, : m[row]]
        if len(a) < 2 or len(b) < 2:
            values.append(x.new_full((), torch.nan))
            continue
        both = torch.cat((a, b))[None]
        squares = squared_distances(both, both)[0].fill_diagonal_(0)
        # Rounding noise between identical cells is no distance.
        positive = squares[squares > 1e-12 * squares.max()]
        scale = _median(positive) if len(positive) else squares.new_tensor(1.0)
        kernel = torch.exp(squares / (-2 * scale))
        k = len(a)
        within_a = (kernel[:k, :k].sum() - k) / (k * (k - 1))
        within_b = (kernel[k:, k:].sum() - len(b)) / (len(b) * (len(b) - 1))
        values.append((within_a + within_b - 2 * kernel[:k, k:].mean()).clamp_min(0))
    return torch.stack(values) if values else x.new_empty(0)


def _median(values: torch.Tensor) -> torch.Tensor:
    """Return the median with the two middle values averaged (torch's own takes the lower)."""
    half = len(values) // 2
    upper = values.kthvalue(half + 1).values
    if len(values) % 2:
        return upper
    return (values.kthvalue(half).values + upper) / 2


def _mask(cells: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
    return (torch.arange(cells.shape[1], device=cells.device) < count[:, None]).to(cells.dtype)


def _self_distances(cells: torch.Tensor) -> torch.Tensor:
    distance = squared_distances(cells, cells).sqrt()
    distance.diagonal(dim1=1, dim2=2).zero_()
    return distance


def _pair_mean(values: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Return the mean of `values` `[B, N, M]` over pairs that are both inside."""
    total = torch.einsum("bn,bnm,bm->b", rows, values, columns)
    return total / (rows.sum(dim=1) * columns.sum(dim=1))
