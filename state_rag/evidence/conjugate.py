"""Solving for few queries without the covariance of the supports: conjugate gradients on its parts.

A perturbation is a support in several contexts, and the covariance of two supports hangs on their perturbations and
on whether their contexts are the same. So its product with a vector takes two matrices of perturbations instead of
one of supports, which is a small part of the memory and, for few queries, of the time of a Cholesky factor. The method
is that of Hestenes and Stiefel (1952), with the diagonal as preconditioner.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

TOLERANCE = 1e-9
"""Length of the residual over that of the right-hand side at which a solution is good."""

MOST_STEPS = 1000


@dataclass(frozen=True)
class Parts:
    """The covariance of the supports by its parts.

    Attributes
    ----------
    shared, own
        float64 [D, D]: among distinct perturbations, what contexts share and what each has of its own.
    same
        Scalar: added where the perturbation is the same.
    noise
        float64 [S]: on the diagonal.
    at, context
        Long [S]: place of each support's perturbation in `shared`, and its context.
    """

    shared: Tensor
    own: Tensor
    same: Tensor
    noise: Tensor
    at: Tensor
    context: Tensor

    def times(self, vectors: Tensor) -> Tensor:
        """Return the product [S, Q] with vectors [S, Q]."""
        n_distinct, n_contexts, n_queries = len(self.shared), int(self.context.max()) + 1, vectors.shape[1]
        place = self.context * n_distinct + self.at
        by_context = vectors.new_zeros(n_contexts * n_distinct, n_queries).index_add_(0, place, vectors)
        by_context = by_context.view(n_contexts, n_distinct, n_queries)
        total = by_context.sum(0)
        everywhere = self.shared @ total + self.same * total
        within = self.own @ by_context.permute(1, 0, 2).reshape(n_distinct, -1)
        within = within.view(n_distinct, n_contexts, n_queries).permute(1, 0, 2).reshape(-1, n_queries)
        return everywhere[self.at] + within[place] + self.noise[:, None] * vectors

    def diagonal(self) -> Tensor:
        """Return the variance of each support with its noise [S]."""
        return (self.shared.diagonal() + self.own.diagonal())[self.at] + self.same + self.noise


def conjugate_solve(parts: Parts, right: Tensor) -> Tensor | None:
    """Return the solution [S, Q] for right-hand sides [S, Q]; None where the covariance is not positive definite.

    Parameters
    ----------
    parts
        Of the covariance.
    right
        float64; all columns are iterated together until each is good.
    """
    scale = parts.diagonal()[:, None]
    solution = torch.zeros_like(right)
    residual = right.clone()
    wanted = TOLERANCE * torch.linalg.vector_norm(right, dim=0)
    conditioned = residual / scale
    direction, product = conditioned, (residual * conditioned).sum(0)
    for _ in range(MOST_STEPS):
        open_ = torch.linalg.vector_norm(residual, dim=0) > wanted
        if not open_.any():
            return solution
        image = parts.times(direction)
        curvature = (direction * image).sum(0)
        if (curvature[open_] <= 0).any():
            return None
        step = torch.where(open_, product / curvature.clamp_min(1e-300), 0.0)
        solution = solution + step * direction
        residual = residual - step * image
        conditioned = residual / scale
        following = (residual * conditioned).sum(0)
        direction = conditioned + torch.where(open_, following / product.clamp_min(1e-300), 0.0) * direction
        product = following
    return None
