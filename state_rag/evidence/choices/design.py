"""Which conditions to measure next: those that reduce the variance of what is to be predicted most.

The posterior covariance of co-kriging (`kriging`) hangs on which conditions are measured, not on what comes out, since
the similarity of perturbations is never learned from the context asked about. So a whole design is made beforehand,
and exactly: after a condition is chosen the covariance of targets and candidates is that of Rasmussen and Williams,
"Gaussian Processes for Machine Learning" (2006), equation 2.26, by one update of rank one. Choosing the candidate with
the largest reduction each time is the A-optimal design of Krause and Guestrin (2007), "Near-optimal observation
selection using submodular functions": where the reduction is submodular (targets that depend on the candidates each
through one of them, as clusters without overlap do) it reaches 1 - 1/e of the best design; in general two candidates
may tell more together than each alone, and it is a heuristic. All gains are computed anew at each step, which one
product of matrix and vector does, so that nothing rests on gains that only fall.

Several contexts are one model each, seen from its own context, whose reductions add up. What a new response changes in
the similarity seen from *other* contexts is not counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass

import numpy as np
import torch
from scipy.linalg import solve_triangular
from torch import Tensor

from state_rag.errors import StateRagError
from state_rag.evidence.bank import Bank
from state_rag.evidence.estimator import Evidence
from state_rag.evidence.kriging import BLOCK, KernelWeights, Scene, covariance, factorise, nearest
from state_rag.evidence.similarity import Similarity

MOST_TARGETS = 2000
"""Targets of a context that are looked at; of more, a random sample stands for all."""
MOST_SUPPORTS = 2000
"""Measured conditions that are counted in; of more, those with the highest covariance with a candidate or target."""
HELPED = 5
"""Targets that are named for each choice."""
DRAWS = 5
"""Random choices that a design is compared with."""
TIE = 1e-5
"""Relative difference up to which two gains are the same; of such candidates the first is chosen."""

Condition = tuple[str, str]
"""(context, perturbation)."""


@dataclass(frozen=True)
class Design:
    """Conditions to measure, best first.

    Attributes
    ----------
    conditions
        B (context, perturbation).
    gain
        float64 [B]: by how much each reduces the sum of the targets' variances, after those before it; in units of the
        responses, squared, mean over genes.
    cost
        float64 [B].
    remaining
        float64 [B + 1]: that sum, before the first and after each.
    random
        float64 [B + 1]: the same sum where random candidates are measured instead, mean of `DRAWS` choices.
    prior
        The same sum were nothing measured anywhere.
    helps
        [B]: the targets whose variance each reduces most, with the reduction, largest first.
    replicate
        bool [B]: conditions that were measured already.
    targets
        Number of targets that the sums are over.
    unknown
        Candidates and targets that were left out, since neither a response elsewhere nor an embedding knows them.
    exhausted
        Whether fewer candidates were left than asked for.
    """

    conditions: tuple[Condition, ...]
    gain: np.ndarray
    cost: np.ndarray
    remaining: np.ndarray
    random: np.ndarray
    prior: float
    helps: tuple[tuple[tuple[Condition, float], ...], ...]
    replicate: np.ndarray
    targets: int
    unknown: tuple[str, ...]
    exhausted: bool

    @property
    def explained(self) -> np.ndarray:
        """Return float64 [B]: share of the targets' variance that the first, first two, ... take away."""
        return 1 - self.remaining[1:] / max(self.remaining[0], 1e-300)

    @property
    def explained_by_random(self) -> np.ndarray:
        """Return float64 [B]: the same share for as many random candidates."""
        return 1 - self.random[1:] / max(self.random[0], 1e-300)


def design(
    engine: Evidence,
    contexts: Sequence[str],
    budget: int,
    *,
    candidates: Sequence[str] | None = None,
    targets: Sequence[str] | None = None,
    exclude: Sequence[str] = (),
    costs: Mapping[str, float] | None = None,
    importance: Mapping[str, float] | None = None,
    replicates: bool = False,
    seed: int = 0,
) -> Design:
    """Return which conditions to measure so that targets are predicted better.

    Parameters
    ----------
    engine
        A fitted one; the numbers of its covariance for `few-shot` are used, or the nearest it has.
    contexts
        Names; one that was never measured starts from the others alone. A candidate is a perturbation in one of them.
    budget
        Conditions to choose; with fewer candidates all are taken.
    candidates, targets
        Perturbations; by default all that the engine knows. Targets are those of them not measured in the context.
    exclude
        Perturbations not to choose.
    costs
        Cost of a perturbation, 1 where it has none; the gain per cost is compared.
    importance
        Weight of a target, 1 where it has none.
    replicates
        Also offer conditions that were measured already: as many cells as a usual condition has lower the part of
        their noise that falls with cells.
    seed
        Of the sample of more than `MOST_TARGETS` targets.

    Raises
    ------
    StateRagError
        If nothing was fitted, the budget or a cost is not above 0, or no candidate or target is left.
    """
    engine.check_fitted("design")
    if budget < 1:
        raise StateRagError(f"design: a budget of {budget} conditions; give 1 or more.")
    bank = engine.bank
    priced = _positive(costs or {}, "cost")
    weighted = _positive(importance or {}, "importance")
    contexts = tuple(dict.fromkeys(map(str, contexts)))
    if not contexts:
        raise StateRagError("design: no context was given; name at least one.")
    number = {name: bank.number_of_context(name) for name in contexts}
    # contexts without any response are told apart by numbers below 0
    for place, name in enumerate(contexts):
        number[name] = number[name] if number[name] >= 0 else -1 - place
    offered = tuple(dict.fromkeys(map(str, bank.offered if candidates is None else candidates)))
    wanted = tuple(dict.fromkeys(map(str, bank.offered if targets is None else targets)))
    banned, unknown = set(map(str, exclude)), dict[str, None]()

    def known(names: Sequence[str], context: int) -> list[int]:
        found = [bank.number_of(name) for name in names]
        there = [place for place, n in enumerate(found) if n >= 0]
        told = engine.similarity.known(torch.tensor([found[p] for p in there], dtype=torch.long), max(context, -1))
        good = {there[place] for place in torch.nonzero(told.any(0)).flatten().tolist()}
        unknown.update((names[place], None) for place in range(len(names)) if place not in good)
        return [found[place] for place in sorted(good)]

    chosen_from = [
        (number[name], p)
        for name in contexts
        for p in known([n for n in offered if n not in banned], number[name])
        if replicates or not bank.measured(number[name], p)
    ]
    if not chosen_from:
        raise StateRagError(
            f"design: no candidate is left: of {len(offered)} each is excluded, measured in {', '.join(contexts)} "
            "already or without an embedding and a response elsewhere. Give other candidates, or allow replicates."
        )
    weights = engine.learned_for("few-shot")
    names_of = {value: key for key, value in number.items()}
    rng = np.random.default_rng(seed)
    noise = _noise(bank, weights.weights, chosen_from)
    models, n_targets = [], 0
    for name in contexts:
        asked = [p for p in known(wanted, number[name]) if not bank.measured(number[name], p)]
        n_targets += len(asked)
        if not asked:
            continue
        scale = 1.0
        if len(asked) > MOST_TARGETS:
            scale = len(asked) / MOST_TARGETS
            asked = [asked[place] for place in np.sort(rng.permutation(len(asked))[:MOST_TARGETS])]
        importance_of = [weighted.get(bank.perturbations[p], 1.0) * scale for p in asked]
        rows = torch.arange(len(bank))
        models.append(
            Posterior(bank, engine.similarity, weights.weights, number[name], rows, asked, chosen_from, importance_of)
        )
    if not models:
        raise StateRagError(
            f"design: no target is left: of {len(wanted)} each is measured in {', '.join(contexts)} already, or "
            "without an embedding and a response elsewhere. Give other targets."
        )
    cost = np.array([priced.get(bank.perturbations[p], 1.0) for _, p in chosen_from])
    by_chance = np.mean([_by_chance(models, noise, budget, rng) for _ in range(DRAWS)], axis=0)
    places, gains, helped = greedy(models, noise, budget, cost)
    unit = weights.calibration * bank.scale**2
    gain = np.array(gains) * unit
    first = sum(model.first for model in models) * unit
    conditions = tuple((names_of[c], bank.perturbations[p]) for c, p in (chosen_from[place] for place in places))
    helps = tuple(
        tuple(((names_of[c], bank.perturbations[p]), value * unit) for (c, p), value in best) for best in helped
    )
    return Design(
        conditions,
        gain,
        cost[places],
        first - np.concatenate([[0.0], np.cumsum(gain)]),
        first - np.concatenate([[0.0], np.cumsum(by_chance) * unit]),
        sum(model.prior for model in models) * unit,
        helps,
        np.array([bank.measured(*chosen_from[place]) for place in places], dtype=bool),
        n_targets,
        tuple(unknown),
        len(places) < budget,
    )


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
    ) -> None:
        self.similarity, self.weights, self.context = similarity, weights, context
        self.targets = [(context, p) for p in targets]
        self.importance = torch.tensor(list(importance or [1.0] * len(targets)), dtype=torch.float32)
        here = torch.full((len(targets),), context), torch.tensor(list(targets))
        self._candidate = torch.tensor([c for c, _ in candidates]), torch.tensor([p for _, p in candidates])
        asked = torch.unique(torch.cat([here[1], self._candidate[1]]))
        scene = nearest(bank, Scene(context, asked, supports), weights, similarity, MOST_SUPPORTS)
        support = bank.context[scene.supports], bank.perturbation[scene.supports]
        among = self._covariance(support, support).double()
        among.diagonal().add_(weights.noise_of(bank.scarcity[scene.supports]))
        factor = factorise(among).float().numpy() if len(scene.supports) else None

        def whitened(conditions: tuple[Tensor, Tensor]) -> Tensor:
            cross = self._covariance(support, conditions)
            if factor is None:
                return cross
            return torch.from_numpy(solve_triangular(factor, cross.numpy(), lower=True, check_finite=False))

        target, self._seen = whitened(here), whitened(self._candidate)
        variance = [weights.prior_variances(bank, one[1]).detach() for one in (here, self._candidate)]
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

    def of(self, places: Tensor) -> Posterior:
        """Return the same for some of the candidates alone; what is measured there is not measured here."""
        found = copy(self)
        found._candidate = self._candidate[0][places], self._candidate[1][places]
        found._seen, found.covariance = self._seen[:, places], self.covariance[:, places]
        found.variance = self.variance[places]
        found._updates = [update[places] for update in self._updates]
        return found

    def _covariance(self, rows: tuple[Tensor, Tensor], columns: tuple[Tensor, Tensor]) -> Tensor:
        return covariance(self.similarity, self.weights, self.context, rows, columns)

    def gains(self, noise: Tensor) -> Tensor:
        """Return float64 [C]: by how much each candidate reduces the sum of the targets' variances."""
        squared = torch.zeros(len(self.variance), dtype=torch.float64)
        for start in range(0, len(self.variance), BLOCK):
            part = self.covariance[:, start : start + BLOCK]
            squared[start : start + BLOCK] = (self.importance @ part.square()).double()
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
        return target.double().square() * self.importance.double()


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


def _by_chance(models: Sequence[Posterior], noise: Tensor, budget: int, rng: np.random.Generator) -> np.ndarray:
    """Return the gains [B] of random candidates, one after another."""
    places = torch.from_numpy(rng.permutation(len(noise))[:budget].copy())
    few = [model.of(places) for model in models]
    return np.array(
        [sum(float(model.measure(n, float(noise[p])).sum()) for model in few) for n, p in enumerate(places)]
    )


def _noise(bank: Bank, weights: KernelWeights, candidates: Sequence[tuple[int, int]]) -> Tensor:
    """Return the noise [C] of measuring each candidate with as many cells as the median condition has.

    Measuring a condition again gives it more cells. That is the same as a second, independent measurement whose
    precision is the difference of the two precisions.
    """
    row = torch.tensor([int(bank.row[c, p]) if c >= 0 else -1 for c, p in candidates])
    scarcity = bank.scarcity[row.clamp_min(0)]
    before, after = weights.noise_of(scarcity), weights.noise_of(scarcity / (1 + scarcity))
    again = 1 / (1 / after - 1 / before).clamp_min(1e-12)
    return torch.where(row >= 0, again, weights.noise_of(torch.ones_like(scarcity))).detach()


def _positive(values: Mapping[str, float], what: str) -> dict[str, float]:
    for name, value in values.items():
        if not (np.isfinite(value) and value > 0):
            raise StateRagError(f"design: the {what} of {name} is {value}; give a number above 0.")
    return {str(name): float(value) for name, value in values.items()}
