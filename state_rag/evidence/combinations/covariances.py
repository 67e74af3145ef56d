"""Covariances of combinations: linear functions of the single conditions that they are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Rule:
    """How the effect of a combination follows from those of its members.

    Attributes
    ----------
    share
        What the sum of the members' effects is multiplied by.
    own
        Variance of what is the combination's own, in prior variances of a single perturbation.
    """

    share: float = 1.0
    own: float = 0.0


@dataclass(frozen=True)
class Look:
    """S conditions, single ones and then combinations, and Q queries, over the A single ones that they are made of.

    Covariance [A, A] and prior mean [A, G] of the latter, the noise [S] of measured effects [S, G], and the prior
    variance of a single perturbation.
    """

    made: list[list[int]]
    queried: list[list[int]]
    among: Tensor
    prior: Tensor
    noise: Tensor
    prior_variance: float
    values: Tensor
    conditions: tuple[tuple[str, str], ...]

    def under(self, rule: Rule) -> Joint:
        """Return the covariances that a rule makes of it."""
        n_atoms, own = len(self.among), rule.own * self.prior_variance
        design, query = (_design(rows, n_atoms, rule.share) for rows in (self.made, self.queried))
        matrix = (design @ self.among) @ design.T
        several, asked = (torch.tensor([len(atoms) > 1 for atoms in rows]) for rows in (self.made, self.queried))
        matrix.diagonal().add_(self.noise + own * several)
        return Joint(
            matrix,
            design @ self.among @ query.T,
            ((query @ self.among) * query).sum(1) + own * asked,
            design @ self.prior,
            query @ self.prior,
            self.values,
            self.conditions,
        )


@dataclass(frozen=True)
class Joint:
    """Covariances among S conditions and with Q queries, variances of these, prior means, and measured effects."""

    among: Tensor
    cross: Tensor
    variance: Tensor
    prior: Tensor
    prior_asked: Tensor
    values: Tensor
    conditions: tuple[tuple[str, str], ...]


def _design(made: Sequence[Sequence[int]], n_atoms: int, share: float) -> Tensor:
    """Return float64 [conditions, atoms]: 1 for the atom of a single one, `share` for each of a combination's."""
    found = torch.zeros(len(made), n_atoms, dtype=torch.float64)
    for row, atoms in enumerate(made):
        found[row, list(atoms)] = share if len(atoms) > 1 else 1.0
    return found
