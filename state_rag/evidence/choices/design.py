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

Combinations can be candidates and targets. Their covariance is that of `combinations`, in which single perturbations
tell of combinations, and these of each other and of their members. Predictions of a single perturbation look at no
combination without it, so that a candidate counts for combinations and for its members alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from state_rag.errors import StateRagError
from state_rag.evidence.choices.covariances import JointCovariance
from state_rag.evidence.choices.posterior import Posterior, by_chance, greedy
from state_rag.evidence.choices.roster import Roster
from state_rag.evidence.estimator import Evidence
from state_rag.evidence.kriging import KernelWeights
from state_rag.names import listing

MOST_TARGETS = 2000
"""Targets of a context that are looked at; of more, a random sample stands for all."""
DRAWS = 5
"""Random choices that a design is compared with."""

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
    combinations
        How many of the targets are combinations.
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
    combinations: int = 0

    @property
    def explained(self) -> np.ndarray:
        """Return float64 [B]: share of the targets' variance that the first, first two, ... take away."""
        return 1 - self.remaining[1:] / max(self.remaining[0], 1e-300)

    @property
    def explained_by_random(self) -> np.ndarray:
        """Return float64 [B]: the same share for as many random candidates."""
        return 1 - self.random[1:] / max(self.random[0], 1e-300)


def check_budget(budget: int) -> None:
    """Refuse a budget that is no number of conditions.

    Raises
    ------
    StateRagError
        If it is below 1, or no whole number.
    """
    if not isinstance(budget, int | np.integer) or budget < 1:
        raise StateRagError(f"design: a budget of {budget} conditions; give a whole number from 1 on.")


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
        Perturbations, combinations `A+B` too, whose members may be in any order; by default all single ones that the
        engine knows. Targets are those of them not measured in the context; by default also the combinations among the
        candidates, and these alone where all candidates are combinations.
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
        If nothing was fitted, the budget or a cost is not above 0, no candidate or target is left, or no candidate
        tells of a target.
    """
    engine.check_fitted("design")
    check_budget(budget)
    price, weight = _positive(costs or {}, "cost"), _positive(importance or {}, "importance")
    contexts = tuple(dict.fromkeys(map(str, contexts)))
    if not contexts:
        raise StateRagError("design: no context was given; name at least one.")
    engine = engine.reaching([*map(str, candidates or ()), *map(str, targets or ())])
    bank = engine.bank
    number = {name: engine.combining.measured.number_of_context(name) for name in contexts}
    # contexts without any response are told apart by numbers below 0, which no other context has
    for place, name in enumerate(contexts):
        number[name] = -1 - len(bank.contexts) - len(engine.combining) - place if number[name] == -1 else number[name]
    roster = Roster(engine, [*map(str, candidates or ()), *map(str, targets or ())])
    priced, weighted = ({roster.number_of(name): one for name, one in told.items()} for told in (price, weight))

    offered = tuple(dict.fromkeys(map(str, bank.offered if candidates is None else candidates)))
    wanted = tuple(dict.fromkeys(map(str, default_targets(engine, offered) if targets is None else targets)))
    banned, unknown = set(map(str, exclude)), dict[str, None]()
    banned_numbers = {roster.number_of(name) for name in banned} - {-1}

    def known(names: Sequence[str], context: int) -> list[int]:
        found = [roster.number_of(name) for name in names]
        told = roster.known(found, context)
        unknown.update((name, None) for name, yes in zip(names, told, strict=True) if not yes)
        return list(dict.fromkeys(one for one, yes in zip(found, told, strict=True) if yes))

    chosen_from = [
        (number[name], p)
        for name in contexts
        for p in known([n for n in offered if n not in banned], number[name])
        if (replicates or not roster.measured(number[name], p)) and p not in banned_numbers
    ]
    if not chosen_from:
        raise StateRagError(
            f"design: no candidate is left of {listing(offered)}: each is excluded, measured in {', '.join(contexts)} "
            "already or without an embedding and a response elsewhere. Give other candidates, or allow replicates."
        )
    weights = engine.learned_for("few-shot")
    names_of = {value: key for key, value in number.items()}
    rng = np.random.default_rng(seed)
    noise = _noise(roster, weights.weights, chosen_from)
    asked_in: dict[str, list[int]] = {}
    for name in contexts:
        asked = [p for p in known(wanted, number[name]) if not roster.measured(number[name], p)]
        if asked:
            asked_in[name] = asked
    if not asked_in:
        raise StateRagError(
            f"design: no target is left of {listing(wanted)}: each is measured in {', '.join(contexts)} already, or "
            "without an embedding and a response elsewhere. Give other targets."
        )
    models = [
        _model(roster, weights.weights, number[name], _some(asked, rng), chosen_from, weighted)
        for name, asked in asked_in.items()
    ]
    cost = np.array([priced.get(p, 1.0) for _, p in chosen_from])
    by_luck = np.mean([by_chance(models, noise, budget, rng) for _ in range(DRAWS)], axis=0)
    places, gains, helped = greedy(models, noise, budget, cost)
    unit = weights.calibration * bank.scale**2
    gain = np.array(gains) * unit
    first = sum(model.first for model in models) * unit
    conditions = tuple((names_of[c], roster.names[p]) for c, p in (chosen_from[place] for place in places))
    helps = tuple(tuple(((names_of[c], roster.names[p]), value * unit) for (c, p), value in best) for best in helped)
    return Design(
        conditions,
        gain,
        cost[places],
        first - np.concatenate([[0.0], np.cumsum(gain)]),
        first - np.concatenate([[0.0], np.cumsum(by_luck) * unit]),
        sum(model.prior for model in models) * unit,
        helps,
        np.array([roster.measured(*chosen_from[place]) for place in places], dtype=bool),
        sum(map(len, asked_in.values())),
        tuple(unknown),
        len(places) < budget,
        sum(roster.is_combination(p) for asked in asked_in.values() for p in asked),
    )


def default_targets(engine: Evidence, candidates: Sequence[str]) -> list[str]:
    """Return what a design is for where nothing is said: all that is known, and combinations that are candidates.

    Where all candidates are combinations, these alone.
    """
    several = [name for name in candidates if engine.combining.members(name)]
    return several if several and len(several) == len(candidates) else [*engine.bank.offered, *several]


def _some(asked: list[int], rng: np.random.Generator) -> dict[int, float]:
    """Return targets with how many each stands for: `MOST_TARGETS` at most."""
    if len(asked) <= MOST_TARGETS:
        return dict.fromkeys(asked, 1.0)
    drawn = np.sort(rng.permutation(len(asked))[:MOST_TARGETS])
    return {asked[place]: len(asked) / MOST_TARGETS for place in drawn}


def _model(
    roster: Roster,
    weights: KernelWeights,
    context: int,
    asked: Mapping[int, float],
    candidates: Sequence[tuple[int, int]],
    weighted: Mapping[int, float],
) -> Posterior:
    """Return the posterior of the targets in a context, that of combinations too where there are any."""
    engine, targets = roster.engine, list(asked)
    joint, counted, unit = None, None, 1.0
    if len(engine.combining) or any(map(roster.is_combination, [*targets, *(p for _, p in candidates)])):
        joint, unit = JointCovariance(roster, weights), engine.combining.error_ratio
        counted = _counted(roster, targets, [p for _, p in candidates])
    # in units of the others' variance, since errors of combinations are judged by themselves
    units = [unit if roster.is_combination(p) else 1.0 for p in targets]
    importance = [weighted.get(p, 1.0) * asked[p] * one for p, one in zip(targets, units, strict=True)]
    rows = torch.arange(len(roster.bank))
    return Posterior(
        *(roster.bank, engine.similarity, weights, context, rows, targets, candidates, importance),
        joint=joint,
        counted=counted,
    )


def _counted(roster: Roster, targets: Sequence[int], candidates: Sequence[int]) -> Tensor:
    """Tell bool [T, C] which candidates count for which targets: combinations for no single one but their members.

    Raises
    ------
    StateRagError
        If none counts for any.
    """
    parts = roster.parts(torch.tensor(candidates))
    of_single = ~torch.tensor([roster.is_combination(p) for p in candidates])
    found = torch.ones(len(targets), len(candidates), dtype=torch.bool)
    for row, target in enumerate(targets):
        if not roster.is_combination(target):
            found[row] = of_single | (parts == target).any(1)
    if not found.any():
        raise StateRagError(
            "design: each candidate is a combination, and none of the targets is one or is part of one. Give "
            "combinations or their members as targets, or single perturbations as candidates."
        )
    return found


def _noise(roster: Roster, weights: KernelWeights, candidates: Sequence[tuple[int, int]]) -> Tensor:
    """Return the noise [C] of measuring each candidate with as many cells as the median condition has.

    Measuring a condition again gives it more cells. That is the same as a second, independent measurement whose
    precision is the difference of the two precisions.
    """
    there = torch.tensor([roster.measured(c, p) for c, p in candidates])
    scarcity = torch.tensor([roster.scarcity(c, p) for c, p in candidates], dtype=torch.float64)
    before, after = weights.noise_of(scarcity), weights.noise_of(scarcity / (1 + scarcity))
    again = 1 / (1 / after - 1 / before).clamp_min(1e-12)
    return torch.where(there, again, weights.noise_of(torch.ones_like(scarcity))).detach()


def _positive(values: Mapping[str, float], what: str) -> dict[str, float]:
    for name, value in values.items():
        if not (np.isfinite(value) and value > 0):
            raise StateRagError(f"design: the {what} of {name} is {value}; give a number above 0.")
    return {str(name): float(value) for name, value in values.items()}
