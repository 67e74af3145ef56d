"""Answers for combinations with what measured ones taught: predictions, expected accuracy, and why."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch

from state_rag.evidence.bank import Bank
from state_rag.evidence.combinations.measured import Combinations, Combined, Learned
from state_rag.evidence.combinations.members import members_of
from state_rag.evidence.kriging import KernelWeights
from state_rag.evidence.similarity import Similarity
from state_rag.evidence.trust.model import rising_curve, tolerance_ends
from state_rag.names.combinations import plain_of

USE = "combination"
"""What kind of question a combination is."""

FEWEST = 30
"""Measured combinations below which their accuracy is not calibrated."""

MEMBER, SHARED = "member", "shares a member"
"""Why a condition contributes: it is a member itself, or a combination with one of the members."""


class Combining:
    """Answers for combinations with what an engine has learned.

    Parameters
    ----------
    measured
        Measured combinations, beside the engine's bank.
    learned
        What they taught.
    """

    def __init__(self, measured: Combinations, learned: Learned) -> None:
        self.measured, self.learned = measured, learned

    def __len__(self) -> int:
        return len(self.measured)

    def members(self, name: str) -> tuple[str, ...]:
        """Return the members of a combination; nothing for a single perturbation."""
        bank = self.measured.bank
        name = bank.own_label(name)
        number = bank.number_of(name)
        # where nothing but combinations was measured, they are single perturbations
        return () if number >= 0 and bool((bank.row[:, number] >= 0).any()) else members_of(name, _Known(bank))

    def answer(
        self, similarity: Similarity, weights: KernelWeights, context: str, asked: Sequence[tuple[str, ...]]
    ) -> Combined:
        """Return what is predicted for combinations, each without its own response in the context.

        Parameters
        ----------
        similarity, weights
            Of the engine.
        context
            Name.
        asked
            Members of each.
        """
        rule = self.learned.rule
        there = {self.measured.members[name] for c, name in self.measured.conditions if c == context}
        own = [members for members in asked if members in there]
        free = [place for place, members in enumerate(asked) if members not in there]
        parts: list[tuple[list[int], Combined]] = []
        if free or not asked:
            names = [asked[place] for place in free]
            parts.append((free, self.measured.answer(similarity, weights, rule, context, names)))
        for members in dict.fromkeys(own):
            places = [place for place, one in enumerate(asked) if one == members]
            names, without = [members] * len(places), frozenset([members])
            found = self.measured.answer(similarity, weights, rule, context, names, without=without)
            parts.append((places, found))
        return _joined(parts, len(asked))

    def expected(self, size: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the expected accuracy of combinations of a predicted size [Q], and both ends of its 90 % interval.

        Sizes are in units of the bank; all are NaN where accuracy is not calibrated.
        """
        if self._curve is None:
            empty = np.full(len(size), np.nan)
            return empty, empty, empty
        knots, accuracies, (lower, upper) = self._curve
        expected = np.interp(np.log(np.maximum(size, 1e-12)), knots, accuracies)
        return expected, np.clip(expected + lower, -1, 1), np.clip(expected + upper, -1, 1)

    @cached_property
    def _curve(self) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        if len(self.learned.accuracy) < FEWEST:
            return None
        score = np.log(np.maximum(self.learned.size, 1e-12))
        knots, accuracies = rising_curve(score, self.learned.accuracy)
        return knots, accuracies, tolerance_ends(self.learned.accuracy - np.interp(score, knots, accuracies))

    @property
    def error_ratio(self) -> float:
        """Return the square error of measured combinations over the expected one; 1 where too few tell."""
        return float(np.mean(self.learned.ratio)) if len(self.learned.ratio) >= FEWEST else 1.0

    def words(self, context: str, members: Sequence[str]) -> str:
        """Return what speaks for a prediction, in words."""
        bank, number = self.measured.bank, self.measured.number_of_context(context)
        here = [m for m in members if bank.measured(number, bank.number_of(m))]
        mates = [set(self.measured.members[name]) for c, name in self.measured.conditions if c == context]
        others = sum(bool(mate & set(members)) and mate != set(members) for mate in mates)
        told = f"{len(here)} of {len(members)} members measured here, {others} other combinations with one of them"
        if strange := [m for m in members if bank.number_of(m) < 0]:
            told = f"nothing is known of {', '.join(strange)}; {told}"
        if self._curve is not None:
            return told
        return f"not calibrated, ranks only: {len(self)} measured combinations to judge by, {FEWEST} needed; {told}"

    def why(self, condition: tuple[str, str], members: Sequence[str]) -> str:
        """Return why a condition contributes to a combination; empty for one that is like a member."""
        name = condition[1]
        if plain_of(name) in members:
            return MEMBER
        return SHARED if set(self.measured.members.get(name, ())) & set(members) else ""


class _Known:
    """The names of a bank, other names too."""

    def __init__(self, bank: Bank) -> None:
        self._bank = bank

    def __contains__(self, name: object) -> bool:
        return self._bank.number_of(str(name)) >= 0 or bool(self._bank.alike(str(name)))


def _joined(parts: list[tuple[list[int], Combined]], count: int) -> Combined:
    """Return answers to some of the queries as one; a condition that was not looked at for one weighs nothing."""
    if len(parts) == 1:
        return parts[0][1]
    conditions = tuple(dict.fromkeys(condition for _, part in parts for condition in part.conditions))
    row = {condition: place for place, condition in enumerate(conditions)}
    mean, prior = (torch.zeros(count, parts[0][1].mean.shape[1], dtype=torch.float64) for _ in range(2))
    effects, deviations = (mean.new_zeros(len(conditions), mean.shape[1]) for _ in range(2))
    variance, weight = mean.new_zeros(count), mean.new_zeros(len(conditions), count)
    for places, part in parts:
        mean[places], prior[places], variance[places] = part.mean, part.prior, part.variance
        rows = torch.tensor([row[condition] for condition in part.conditions])
        weight[rows[:, None], torch.tensor(places)[None]] = part.weight
        effects[rows], deviations[rows] = part.effects, part.deviations
    return Combined(mean, variance, conditions, weight, prior, deviations, effects)
