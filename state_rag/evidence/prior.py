"""The prior mean: what is expected of a condition before any similar one is looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from state_rag.evidence.bank import Bank

if TYPE_CHECKING:
    from state_rag.evidence.kriging import KernelWeights, Scene


@dataclass(frozen=True)
class Prior:
    """The prior mean of conditions: that of their context, or context and mode, times what a dose or time leaves of it.

    Attributes
    ----------
    means
        [groups, G]: of each context and, last, of one without supports; of each mode of each where labels tell these.
    n_modes
        M, 1 where labels are names.
    """

    means: Tensor
    n_modes: int
    _bank: Bank
    _weights: KernelWeights

    def group(self, contexts: Tensor, perturbations: Tensor) -> Tensor:
        """Return the rows of `means` [A] of conditions; contexts below 0 have no supports."""
        context = torch.where(contexts < 0, len(self.means) // self.n_modes - 1, contexts)
        return context if self._bank.treatments is None else _group(self._bank, context, perturbations)

    def shares(self, perturbations: Tensor) -> Tensor | None:
        """Return what a perturbation's mean is multiplied by [A]; None where it is 1."""
        return self._weights.prior_shares(self._bank, perturbations)

    def of(self, contexts: Tensor, perturbations: Tensor) -> Tensor:
        """Return the prior mean [A, G] of conditions."""
        found, shares = self.means[self.group(contexts, perturbations)], self.shares(perturbations)
        return found if shares is None else shares.to(found.dtype)[:, None] * found

    def at(self, context: int, perturbations: Tensor) -> Tensor:
        """Return the prior mean [A, G] of perturbations in one context."""
        return self.of(torch.full_like(perturbations, context), perturbations)


def prior_of(bank: Bank, scene: Scene, weights: KernelWeights, values: Tensor) -> Prior:
    """Return the prior mean of conditions.

    That of a context (and mode) is the mean over its supports, drawn to the mean of the others as if the latter were
    `e^borrow` further supports, and shrunken. Of another mode, the mean is taken times its correlation.

    Parameters
    ----------
    bank, scene, weights
        Of the question.
    values
        [S, G]: of the supports; effects, or any other function of them.
    """
    told = bank.treatments
    n_contexts, n_modes = len(bank.contexts), 1 if told is None else len(told.axes.modes)
    supports = bank.perturbation[scene.supports]
    group = bank.context[scene.supports] if told is None else _group(bank, bank.context[scene.supports], supports)
    shares = weights.prior_shares(bank, supports)
    member = (torch.arange(n_contexts * n_modes)[:, None] == group[None]).to(values.dtype)
    total, count = member @ values, member.sum(1)
    if shares is not None:  # the regression on shares: sum of s v over sum of s^2
        share = shares.to(values.dtype)
        total, count = (member * share) @ values, member @ share.square()
    mean = total / count.clamp_min(1 if shares is None else 1e-12)[:, None]
    there = (count > 0).to(values.dtype)
    if n_modes == 1:
        sum_of_means, n_there = mean.sum(0), there.sum()
        others = (sum_of_means - mean) / (n_there - there).clamp_min(1)[:, None]
        overall = (sum_of_means / n_there.clamp_min(1))[None]
        n_others = n_there - there
    else:
        assert weights.treatments is not None
        alike = weights.treatments.correlation().to(values.dtype)
        by_mode = mean.view(n_contexts, n_modes, -1).sum(0)
        everywhere = alike @ by_mode
        # what is of another mode counts by how much it tells
        counted = alike.abs() @ there.view(n_contexts, n_modes).sum(0)
        n_others = counted.repeat(n_contexts) - there
        others = (everywhere.repeat(n_contexts, 1) - mean) / n_others.clamp_min(1)[:, None]
        overall = everywhere / counted.clamp_min(1)[:, None]
    # a context that stands alone has no others to borrow from
    borrow = weights.borrow.exp().to(values.dtype) * n_others.clamp(0, 1)
    blended = (total + borrow[:, None] * others) / (count + borrow).clamp_min(1e-12)[:, None]
    means = torch.sigmoid(weights.shrink).to(values.dtype) * torch.cat([blended, overall])
    return Prior(means, n_modes, bank, weights)


def _group(bank: Bank, contexts: Tensor, perturbations: Tensor) -> Tensor:
    """Return the number of each context and mode; a mode that was not measured counts as the first."""
    assert bank.treatments is not None
    return contexts * len(bank.treatments.axes.modes) + bank.treatments.mode[perturbations].clamp_min(0)
