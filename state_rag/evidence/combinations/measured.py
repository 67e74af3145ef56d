"""Measured combinations: what they tell of others and of members, and the rule by which they follow from these."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from state_rag.evidence.bank import Bank
from state_rag.evidence.combinations.covariances import Look, Rule
from state_rag.evidence.fusion import correlations
from state_rag.evidence.kriging import KernelWeights, Scene, covariance, factorise, nearest
from state_rag.evidence.prior import prior_of
from state_rag.evidence.responses import Responses
from state_rag.evidence.similarity import Similarity

SUPPORTS = 1500
"""Single conditions that a prediction looks at, at most; those with the highest covariance with a member."""

FEWEST = 4
"""Measured combinations from which on it is learned how they differ from the sum of their members."""

SHARES = (0.6, 0.7, 0.8, 0.9, 1.0)
"""Multiples of the sum that are tried."""

OWN = (0.0, 0.3, 1.0)
"""Variances of what is a combination's own that are tried, in prior variances of a single perturbation."""


@dataclass(frozen=True)
class Combined:
    """Answers to Q combinations or members of combinations in a context.

    Attributes
    ----------
    mean
        float64 [Q, G], in units of the bank.
    variance
        float64 [Q]: posterior, in units of the bank squared.
    conditions
        (context, perturbation) that were looked at, S of them: single ones, then combinations.
    weight
        float64 [S, Q].
    prior
        float64 [Q, G]: what is expected without looking at any of them.
    deviations
        float64 [S, G]: measured effects minus what was expected of them; what the weights multiply.
    effects
        float64 [S, G]: measured effects.
    """

    mean: Tensor
    variance: Tensor
    conditions: tuple[tuple[str, str], ...]
    weight: Tensor
    prior: Tensor
    deviations: Tensor
    effects: Tensor


@dataclass(frozen=True)
class Judged:
    """How M measured conditions are predicted without themselves.

    Attributes
    ----------
    accuracy
        float64 [M]: correlation of each with its prediction.
    size
        float64 [M]: root mean square of the prediction, in units of the bank.
    ratio
        float64 [M]: its mean square error, over the expected one.
    """

    accuracy: np.ndarray
    size: np.ndarray
    ratio: np.ndarray


NOBODY = Judged(*(np.empty(0) for _ in range(3)))


@dataclass(frozen=True)
class Learned:
    """What measured combinations taught.

    Attributes
    ----------
    rule
        By which they are predicted best.
    combinations
        How that is.
    members
        How conditions are predicted that were measured alone and are part of a combination measured in the same
        context, from those combinations.
    """

    rule: Rule
    combinations: Judged = NOBODY
    members: Judged = NOBODY


Predicted = tuple[Tensor, Tensor, Tensor]
"""Of M conditions without themselves: prediction [M, G], expected square error of a new measurement, truth [M, G]."""


class Combinations:
    """Measured combinations, beside a bank of single perturbations.

    Parameters
    ----------
    responses
        Measured effects of combinations, and of nothing else; None for none.
    members
        Combination -> its members, for each of them.
    bank
        Of single perturbations; it has every member.
    """

    def __init__(self, responses: Responses | None, members: Mapping[str, tuple[str, ...]], bank: Bank) -> None:
        self.bank = bank
        self.members = dict(members)
        self.conditions: list[tuple[str, str]] = [] if responses is None else responses.conditions
        # a context of which no single perturbation was measured is one by itself, with a number below 0
        strange = list(dict.fromkeys(c for c, _ in self.conditions if bank.number_of_context(c) < 0))
        self._contexts = {name: -2 - place for place, name in enumerate(strange)}
        effects = np.zeros((0, bank.effects.shape[1])) if responses is None else responses.effects.astype(np.float64)
        self.effects = torch.from_numpy(effects / bank.scale)
        self.scarcity = torch.ones(len(effects), dtype=torch.float64)
        if responses is not None and responses.cells is not None:
            usual = bank.units.combined_cells  # None where the first combinations came after the fit
            self.scarcity = torch.from_numpy((np.median(responses.cells) if usual is None else usual) / responses.cells)

    def __len__(self) -> int:
        return len(self.conditions)

    def number_of_context(self, name: str) -> int:
        """Return a context's number; below 0 for one of which no single perturbation was measured."""
        return self._contexts.get(name, self.bank.number_of_context(name))

    def answer(
        self,
        similarity: Similarity,
        weights: KernelWeights,
        rule: Rule,
        context: str,
        asked: Sequence[tuple[str, ...]],
        *,
        without: frozenset[tuple[str, ...]] = frozenset(),
    ) -> Combined:
        """Return what singles and combinations tell of combinations in a context, or of members of combinations.

        Parameters
        ----------
        similarity, weights
            Kernels of the bank, and numbers of the covariance.
        rule
            How combinations follow from their members.
        context
            Name.
        asked
            Members of each of the Q combinations, all in the bank; a single perturbation is its only member.
        without
            Combinations and single perturbations, by members, whose responses in this context are not looked at.
        """
        joint = self._look(similarity, weights, context, asked, without).under(rule)
        weight = torch.cholesky_solve(joint.cross, factorise(joint.among))
        deviations = joint.values - joint.prior
        mean = joint.prior_asked + weight.T @ deviations
        variance = (joint.variance - (weight * joint.cross).sum(0)).clamp_min(0)
        return Combined(mean, variance, joint.conditions, weight, joint.prior_asked, deviations, joint.values)

    def learn(self, similarity: Similarity, weights: KernelWeights) -> Learned:
        """Return the rule by which measured combinations are predicted best without themselves.

        Of each the prediction without it comes from the solution with it (Rasmussen and Williams 2006, section 5.4.2).
        Below `FEWEST` measured combinations nothing is learned: the effect is the sum.

        Parameters
        ----------
        similarity, weights
            As for `answer`.
        """
        if not len(self):
            return Learned(Rule())
        rules = [Rule(share, own) for share in SHARES for own in OWN] if len(self) >= FEWEST else [Rule()]
        found = self.left_out(similarity, weights, rules)
        losses = {rule: _loss(predicted, truth) for rule, ((predicted, _, truth), _) in found.items()}
        best = min(losses, key=lambda rule: (losses[rule], -rule.share, rule.own))
        return Learned(best, *map(_judged, found[best]))

    def left_out(
        self, similarity: Similarity, weights: KernelWeights, rules: Sequence[Rule]
    ) -> dict[Rule, tuple[Predicted, Predicted]]:
        """Return, by each rule, how measured combinations are predicted without themselves, and so are their members.

        Members are those that were measured alone where the combination was. They have a small share in the mean effect
        of their context, from which their prediction starts.
        """
        parts: dict[Rule, tuple[list[Predicted], list[Predicted]]] = {rule: ([], []) for rule in rules}
        for name in dict.fromkeys(context for context, _ in self.conditions):
            here = [row for row, (context, _) in enumerate(self.conditions) if context == name]
            mates = [self.members[self.conditions[row][1]] for row in here]
            # what is looked at hangs on no rule, and takes most of the time
            look = self._look(similarity, weights, name, mates)
            alone = {(name, self.bank.perturbations[self.bank.number_of(one)]) for members in mates for one in members}
            first = len(look.conditions) - len(self)
            single = [place for place, condition in enumerate(look.conditions[:first]) if condition in alone]
            for rule, both in parts.items():
                joint = look.under(rule)
                inverse = torch.cholesky_inverse(factorise(joint.among))
                deviations = joint.values - joint.prior
                for places, kept in zip(([first + row for row in here], single), both, strict=True):
                    own, truth = inverse.diagonal()[places], joint.values[places]
                    kept.append((truth - (inverse[places] @ deviations) / own[:, None], 1 / own, truth))
        return {
            rule: (_one_after_the_other(combined), _one_after_the_other(members))
            for rule, (combined, members) in parts.items()
        }

    def _look(
        self,
        similarity: Similarity,
        weights: KernelWeights,
        context: str,
        asked: Sequence[tuple[str, ...]],
        without: frozenset[tuple[str, ...]] = frozenset(),
    ) -> Look:
        """Return what is looked at to answer; parameters as of `answer`."""
        bank, number = self.bank, self.number_of_context(context)
        kept = [
            row for row, (c, name) in enumerate(self.conditions) if not (c == context and self.members[name] in without)
        ]
        parts = [self.members[self.conditions[row][1]] for row in kept]
        numbers = [bank.number_of(one) for members in (*asked, *parts) for one in members]
        around = torch.unique(torch.tensor(numbers, dtype=torch.long))
        hidden = torch.tensor(
            [bank.number_of(members[0]) for members in without if len(members) == 1], dtype=torch.long
        )
        shown = torch.nonzero((bank.context != number) | ~torch.isin(bank.perturbation, hidden)).flatten()
        scene = nearest(bank, Scene(max(number, -1), around, shown), weights, similarity, SUPPORTS)
        rows = scene.supports
        # every condition is a row over atoms, the single conditions that it is made of
        atoms: dict[tuple[int, int], int] = {}

        def made_of(where: int, numbers: Iterable[int]) -> list[int]:
            return [atoms.setdefault((where, one), len(atoms)) for one in numbers]

        def members_at(where: int, members: Iterable[str]) -> list[int]:
            return made_of(where, (bank.number_of(one) for one in members))

        single = list(zip(bank.context[rows].tolist(), bank.perturbation[rows].tolist(), strict=True))
        contexts = [self.number_of_context(self.conditions[row][0]) for row in kept]
        made = [made_of(c, [p]) for c, p in single]
        made += [members_at(c, members) for c, members in zip(contexts, parts, strict=True)]
        queried = [members_at(number, members) for members in asked]
        conditions = torch.tensor(list(atoms)).T.unbind()
        prior = prior_of(bank, scene, weights, bank.effects[rows])
        return Look(
            made,
            queried,
            covariance(similarity, weights, number, conditions, conditions).double(),
            prior.of(*conditions),
            weights.noise_of(torch.cat([bank.scarcity[rows], self.scarcity[kept]])).detach(),
            float(weights.prior_variance().detach()),
            torch.cat([bank.effects[rows], self.effects[kept]]),
            (*((bank.contexts[c], bank.perturbations[p]) for c, p in single), *(self.conditions[row] for row in kept)),
        )


def _loss(predicted: Tensor, truth: Tensor) -> float:
    error = (predicted - truth).square().mean() / truth.square().mean().clamp_min(1e-12)
    return float(error - correlations(predicted, truth).mean())


def _judged(found: Predicted) -> Judged:
    predicted, variance, truth = found
    return Judged(
        correlations(predicted, truth).numpy(),
        predicted.square().mean(1).sqrt().numpy(),
        ((predicted - truth).square().mean(1) / variance.clamp_min(1e-12)).numpy(),
    )


def _one_after_the_other(parts: Sequence[Predicted]) -> Predicted:
    predicted, variance, truth = (torch.cat(columns) for columns in zip(*parts, strict=True))
    return predicted, variance, truth
