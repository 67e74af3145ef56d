"""The posterior covariance of what is to be predicted and what can be measured, and the choice that lowers it most."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy

import numpy as np
import torch
from scipy.linalg import solve_triangular
from torch import Tensor

from state_rag.evidence.bank import Bank
from state_rag.evidence.choices.covariances import Conditions, JointCovariance
from state_rag.evidence.kriging import BLOCK, KernelWeights, Scene, covariance, factorise, nearest
from state_rag.evidence.similarity import Similarity

MOST_SUPPORTS = 2000
"""Measured conditions that are counted in; of more, those with the highest covariance with a candidate or target."""
HELPED = 5
"""Targets that are named for each choice."""
TIE = 1e-5
"""Relative difference up to which two gains are the same; of such candidates the first is chosen."""


class Posterior:
    """The posterior covariance of targets and candidates, seen from one context.

    Parameters
    ----------
    bank, similarity, weights
        Measured responses, kernels, and numbers of the covariance.
    context
        Of the targets; below 0 for one without any response.
    supports
        Rows of the bank that are measured.
    targets
        T perturbations.
    candidates
        C (context, perturbation), by number.
    importance
        Of each target; 1 by default.
    joint
        Covariance of numbers that stand for combinations too, whose measured ones are supports then; without it all
        are numbers of the bank.
    counted
        Bool [T, C]: for which targets a candidate counts; by default for all.

    Attributes
    ----------
    first
        Sum of the targets' variances, by importance.
    prior
        The same without any support.
    """

    def __init__(
        self,
        bank: Bank,
        similarity: Similarity,
        weights: KernelWeights,
        context: int,
        supports: Tensor,
        targets: Sequence[int],
        candidates: Sequence[tuple[int, int]],
        importance: Sequence[float] | None = None,
        joint: JointCovariance | None = None,
        counted: Tensor | None = None,
    ) -> None:
        self.similarity, self.weights, self.context, self._joint = similarity, weights, context, joint
        self.targets = [(context, p) for p in targets]
        self.importance = torch.tensor(list(importance or [1.0] * len(targets)), dtype=torch.float32)
        here = torch.full((len(targets),), context), torch.tensor(list(targets))
        self._candidate = torch.tensor([c for c, _ in candidates]), torch.tensor([p for _, p in candidates])
        asked = torch.unique(torch.cat([here[1], self._candidate[1]]))
        if joint is not None:
            asked = torch.unique(joint.roster.parts(asked))
            asked = asked[asked >= 0]
        scene = nearest(bank, Scene(max(context, -1), asked, supports), weights, similarity, MOST_SUPPORTS)
        support = bank.context[scene.supports], bank.perturbation[scene.supports]
        scarcity = bank.scarcity[scene.supports]
        if joint is not None:
            measured = joint.measured()
            support = torch.cat([support[0], measured[0]]), torch.cat([support[1], measured[1]])
            scarcity = torch.cat([scarcity, joint.roster.engine.combining.measured.scarcity])
        among = self._covariance(support, support).double()
        among.diagonal().add_(weights.noise_of(scarcity))
        factor = factorise(among).float().numpy() if len(scarcity) else None

        def whitened(conditions: Conditions) -> Tensor:
            cross = self._covariance(support, conditions)
            if factor is None:
                return cross
            return torch.from_numpy(solve_triangular(factor, cross.numpy(), lower=True, check_finite=False))

        target, self._seen = whitened(here), whitened(self._candidate)
        variance = [self._prior(bank, one[1]) for one in (here, self._candidate)]
        of_target, prior = (float(one) if one.ndim == 0 else one for one in variance)
        self.variance = (prior - self._seen.double().square().sum(0)).clamp_min(0)
        self.covariance = self._covariance(here, self._candidate).sub_(target.T @ self._seen)
        left = (of_target - target.double().square().sum(0)).clamp_min(0)
        self.first = float(left @ self.importance.double())
        important = self.importance.double()
        self.prior = (
            of_target * float(important.sum()) if isinstance(of_target, float) else float(of_target @ important)
        )
        self._updates: list[Tensor] = []
        self._counted = counted

    def of(self, places: Tensor) -> Posterior:
        """Return the same for some of the candidates alone; what is measured there is not measured here."""
        found = copy(self)
        found._candidate = self._candidate[0][places], self._candidate[1][places]
        found._seen, found.covariance = self._seen[:, places], self.covariance[:, places]
        found.variance = self.variance[places]
        found._updates = [update[places] for update in self._updates]
        found._counted = None if self._counted is None else self._counted[:, places]
        return found

    def _prior(self, bank: Bank, numbers: Tensor) -> Tensor:
        if self._joint is not None:
            return self._joint.variances(self.context, numbers)
        return self.weights.prior_variances(bank, numbers).detach()

    def _covariance(self, rows: Conditions, columns: Conditions) -> Tensor:
        if self._joint is not None:
            return self._joint(self.context, rows, columns)
        return covariance(self.similarity, self.weights, self.context, rows, columns)

    def gains(self, noise: Tensor) -> Tensor:
        """Return float64 [C]: by how much each candidate reduces the sum of the targets' variances."""
        squared = torch.zeros(len(self.variance), dtype=torch.float64)
        for start in range(0, len(self.variance), BLOCK):
            part = self.covariance[:, start : start + BLOCK].square()
            if self._counted is not None:
                part *= self._counted[:, start : start + BLOCK]
            squared[start : start + BLOCK] = (self.importance @ part).double()
        return squared / (self.variance + noise)

    def measure(self, place: int, noise: float) -> Tensor:
        """Take a candidate for measured, and return by how much it reduces each target's variance, float64 [T]."""
        one = self._candidate[0][place : place + 1], self._candidate[1][place : place + 1]
        column = self._covariance(self._candidate, one)[:, 0].sub_(self._seen.T @ self._seen[:, place])
        for update in self._updates:
            column -= update * update[place]
        size = float(self.variance[place] + noise)
        update = column / size**0.5
        target = self.covariance[:, place] / size**0.5
        self._updates.append(update)
        self.covariance.addr_(target, update, alpha=-1)
        self.variance = (self.variance - update.double().square()).clamp_min(0)
        found = target.double().square() * self.importance.double()
        return found if self._counted is None else found * self._counted[:, place]


def greedy(
    models: Sequence[Posterior], noise: Tensor, budget: int, cost: np.ndarray | None = None
) -> tuple[list[int], list[float], list[list[tuple[tuple[int, int], float]]]]:
    """Return the chosen candidates in order, the gain of each, and the targets that each helps most.

    Parameters
    ----------
    models
        One a context, of the same candidates; they are changed.
    noise
        float64 [C]: of a measurement of each candidate.
    budget
        How many to choose, at most.
    cost
        [C]; 1 each by default.
    """
    left = torch.ones(len(noise), dtype=torch.bool)
    price = torch.ones(len(noise), dtype=torch.float64) if cost is None else torch.from_numpy(cost)
    places: list[int] = []
    gains: list[float] = []
    helped = []
    for _ in range(min(budget, len(noise))):
        worth = torch.stack([model.gains(noise) for model in models]).sum(0) / price
        worth[~left] = -1.0
        place = int(torch.nonzero(worth >= worth.max() * (1 - TIE))[0])
        left[place] = False
        told = [(model, model.measure(place, float(noise[place]))) for model in models]
        each = [(t, float(v)) for model, by in told for t, v in zip(model.targets, by.tolist(), strict=True)]
        each.sort(key=lambda pair: -pair[1])
        places.append(place)
        gains.append(sum(float(by.sum()) for _, by in told))
        helped.append([pair for pair in each[:HELPED] if pair[1] > 0])
    return places, gains, helped


def by_chance(models: Sequence[Posterior], noise: Tensor, budget: int, rng: np.random.Generator) -> np.ndarray:
    """Return the gains [B] of random candidates, one after another; the models stay as they are."""
    places = torch.from_numpy(rng.permutation(len(noise))[:budget].copy())
    few = [model.of(places) for model in models]
    return np.array(
        [sum(float(model.measure(n, float(noise[p])).sum()) for model in few) for n, p in enumerate(places)]
    )
