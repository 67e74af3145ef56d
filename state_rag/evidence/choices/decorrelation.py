"""A look at effects in which what many responses have in common counts no more than what few do."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.linalg import eigh
from torch import Tensor

DIRECTIONS = 300
"""Programmes of genes at most that are told apart."""


@dataclass(frozen=True)
class Decorrelation:
    """A look at effects in which programmes of genes count alike: `(C + mean variance)^-1/2`, C that of responses.

    The variance of a direction is drawn to the mean over all directions that responses take (as if half of it were
    noise that all have), so that directions which are little but noise are not blown up.

    Attributes
    ----------
    directions
        float64 [G, K]: principal ones, orthonormal.
    factors
        float64 [K]: by which an effect along each is multiplied.
    rest
        By which what is left is multiplied.
    """

    directions: Tensor
    factors: Tensor
    rest: float

    @classmethod
    def of(cls, effects: Tensor, limit: int = DIRECTIONS) -> Decorrelation:
        """Return the look that responses [N, G] define, each row minus its mean over genes."""
        values = centred(effects)
        n_rows, n_genes = values.shape
        square = (values @ values.T if n_rows <= n_genes else values.T @ values).numpy()
        variance = float(np.trace(square)) / n_rows
        shrink = variance / max(min(n_rows, n_genes - 1), 1)
        width = min(limit, len(square))
        sizes, vectors = eigh(square, subset_by_index=[len(square) - width, len(square) - 1])
        keep = sizes > 1e-9 * max(float(np.trace(square)), 1e-300)
        sizes, found = torch.from_numpy(sizes[keep]), torch.from_numpy(np.ascontiguousarray(vectors[:, keep]))
        if n_rows <= n_genes:
            found = values.T @ found / sizes.sqrt()
        shrink = shrink or 1.0
        return cls(found, (sizes / n_rows + shrink).rsqrt(), shrink**-0.5)


def centred(values: Tensor) -> Tensor:
    """Return rows [N, G], each minus its mean over genes."""
    return values - values.mean(1, keepdim=True)
