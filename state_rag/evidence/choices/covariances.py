"""The covariance of conditions, single perturbations and combinations, by the rule that an engine learned for these.

A combination is a multiple of the sum of its members plus what is its own (`combinations`), so that its covariances are
sums of those of its members.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from state_rag.evidence.choices.roster import Roster
from state_rag.evidence.kriging import BLOCK, KernelWeights, covariance

Conditions = tuple[Tensor, Tensor]
"""Numbers of contexts [N], and of perturbations and combinations [N]."""


class JointCovariance:
    """K of conditions without noise, as `kriging.covariance` gives it for single perturbations.

    Parameters
    ----------
    roster
        What the numbers stand for.
    weights
        Numbers of the covariance.
    """

    def __init__(self, roster: Roster, weights: KernelWeights) -> None:
        self.roster, self._weights = roster, weights
        self._similarity, self._rule = roster.engine.similarity, roster.engine.combining.learned.rule
        self._own = self._rule.own * float(weights.prior_variance().detach())
        self._singles = len(roster.bank.perturbations)

    def __call__(self, context: int, rows: Conditions, columns: Conditions) -> Tensor:
        """Return K of conditions [A] and [B], float32 [A, B], seen from a context."""
        found = torch.empty(len(rows[1]), len(columns[1]))
        left = self._atoms(rows)
        for start in range(0, len(columns[1]), BLOCK):
            part = columns[0][start : start + BLOCK], columns[1][start : start + BLOCK]
            right = self._atoms(part)
            among = covariance(self._similarity, self._weights, context, left.conditions, right.conditions)
            block = right.summed(left.summed(among).T).T
            if self._own:
                same = (rows[1][:, None] == part[1][None]) & (rows[0][:, None] == part[0][None])
                block = block + self._own * (same & (part[1] >= self._singles)[None])
            found[:, start : start + BLOCK] = block
        return found

    def variances(self, context: int, numbers: Tensor) -> Tensor:
        """Return K of conditions in a context with themselves, float64 [A]."""
        single = numbers < self._singles
        found = torch.empty(len(numbers), dtype=torch.float64)
        found[single] = self._weights.prior_variances(self.roster.bank, numbers[single]).detach()
        parts = self.roster.parts(numbers[~single])
        distinct, at = torch.unique(parts.clamp_min(0), return_inverse=True)
        here = torch.full_like(distinct, context), distinct
        among = covariance(self._similarity, self._weights, context, here, here).double()
        there = parts >= 0
        total = torch.zeros(len(parts), dtype=torch.float64)
        for i in range(parts.shape[1]):
            for j in range(parts.shape[1]):
                total += among[at[:, i], at[:, j]] * (there[:, i] & there[:, j])
        found[~single] = self._rule.share**2 * total + self._own
        return found

    def measured(self) -> Conditions:
        """Return the measured combinations, in their order."""
        found = self.roster.engine.combining.measured
        contexts = [found.number_of_context(context) for context, _ in found.conditions]
        numbers = torch.tensor(self.roster.measured_numbers, dtype=torch.long)
        return torch.tensor(contexts, dtype=torch.long), numbers

    def _atoms(self, conditions: Conditions) -> _Atoms:
        contexts, numbers = conditions
        parts = self.roster.parts(numbers)
        lowest = int(contexts.min()) if len(contexts) else 0
        code = torch.where(parts >= 0, (contexts - lowest)[:, None] * self._singles + parts, -1)
        distinct, at = torch.unique(code, return_inverse=True)
        absent = int(bool(len(distinct)) and int(distinct[0]) < 0)
        distinct, at = distinct[absent:], at - absent
        factor = torch.where(numbers < self._singles, 1.0, self._rule.share)
        return _Atoms((distinct // self._singles + lowest, distinct % self._singles), at, factor)


@dataclass(frozen=True)
class _Atoms:
    """A single conditions that N conditions are made of: place of each member [N, W], -1 for none, and factors [N]."""

    conditions: Conditions
    at: Tensor
    factor: Tensor

    def summed(self, matrix: Tensor) -> Tensor:
        """Return [N, B] from a matrix [A, B] of the single conditions."""
        found = matrix[self.at[:, 0]]
        for at in self.at[:, 1:].T:
            there = at >= 0
            found[there] += matrix[at[there]]
        return found * self.factor[:, None]
