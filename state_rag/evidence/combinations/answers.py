"""Answers for combinations and for their members with what measured ones taught: predictions, accuracy, and why."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property

import numpy as np
import torch

from state_rag.evidence.bank import Bank
from state_rag.evidence.combinations.measured import Combinations, Combined, Judged, Learned
from state_rag.evidence.combinations.members import combinations_among, members_of
from state_rag.evidence.kriging import KernelWeights
from state_rag.evidence.questions import parts_of_context
from state_rag.evidence.similarity import Similarity
from state_rag.evidence.trust.model import rising_curve, tolerance_ends
from state_rag.names.combinations import plain_of

USE = "combination"
"""What kind of question a combination is, and one about a member of measured combinations."""

COMBINATIONS = "combinations"
"""What tells of a member of measured combinations."""

FEWEST = 30
"""Measured combinations, or members of them, below which the accuracy of such is not calibrated."""

MEMBER, SHARED = "member", "shares a member"
"""Why a condition contributes: it is a member itself, or a combination with one of the members."""


class Combining:
    """Answers for combinations, and for members of measured ones, with what an engine has learned.

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
        return () if self._is_measured_alone(name) else members_of(bank.own_label(name), _Known(bank))

    def among(self, names: Iterable[str]) -> dict[str, tuple[str, ...]]:
        """Return the members of those names that are combinations, or become so with others of them."""
        return combinations_among([name for name in names if not self._is_measured_alone(name)], self.members)

    def _is_measured_alone(self, name: str) -> bool:
        """Tell whether a label was measured as a single one, as combinations are where nothing else was measured."""
        bank = self.measured.bank
        number = bank.number_of(bank.own_label(name))
        return number >= 0 and bool((bank.row[:, number] >= 0).any())

    def asked(self, context: str, name: str) -> tuple[str, ...]:
        """Return of what `answer` is asked for a perturbation; nothing where single conditions tell more of it.

        For a combination its members. For a single perturbation itself, where a combination with it was measured in the
        context, or in another one and it was measured alone in none of the others.
        """
        if members := self.members(name):
            return members
        bank = self.measured.bank
        number = bank.number_of(bank.own_label(name))
        contexts = self._contexts_of.get(number, frozenset())
        if not contexts:
            return ()
        elsewhere = int((bank.row[:, number] >= 0).sum()) - bank.measured(bank.number_of_context(context), number)
        return (bank.perturbations[number],) if context in contexts or not elsewhere else ()

    @cached_property
    def _contexts_of(self) -> Mapping[int, frozenset[str]]:
        """Number of a perturbation -> contexts in which a combination with it was measured."""
        found: dict[int, set[str]] = {}
        for context, name in self.measured.conditions:
            for member in self.measured.members[name]:
                found.setdefault(self.measured.bank.number_of(member), set()).add(context)
        return {number: frozenset(contexts) for number, contexts in found.items()}

    def answer(
        self, similarity: Similarity, weights: KernelWeights, context: str, asked: Sequence[tuple[str, ...]]
    ) -> Combined:
        """Return what is predicted for combinations and members, each without its own response in the context.

        Parameters
        ----------
        similarity, weights
            Of the engine.
        context
            Name.
        asked
            Members of each, as `asked` tells.
        """
        rule = self.learned.rule
        parts: list[tuple[list[int], Combined]] = []
        for places, hidden in self._without_own(context, asked):
            names = [asked[place] for place in places]
            parts.append((places, self.measured.answer(similarity, weights, rule, context, names, without=hidden)))
        return _joined(parts, len(asked))

    def _without_own(
        self, context: str, asked: Sequence[tuple[str, ...]]
    ) -> list[tuple[list[int], frozenset[tuple[str, ...]]]]:
        """Return places of queries that can be answered together, and whose responses in the context are hidden then.

        Of combinations each is hidden alone, of single perturbations a part at a time, as in `questions`.
        """
        bank, number = self.measured.bank, self.measured.number_of_context(context)
        there = [self.measured.members[name] for c, name in self.measured.conditions if c == context]
        hidden: dict[tuple[str, ...] | int, frozenset[tuple[str, ...]]] = {one: frozenset({one}) for one in there}
        parts: dict[int, list[int]] = {}
        for one, part in parts_of_context(bank, number).items():
            parts.setdefault(part, []).append(one)
        for together in parts.values():
            hidden |= dict.fromkeys(together, frozenset((bank.perturbations[one],) for one in together))
        nothing: frozenset[tuple[str, ...]] = frozenset()
        groups: dict[frozenset[tuple[str, ...]], list[int]] = {} if asked else {nothing: []}
        for place, members in enumerate(asked):
            own = members if members in hidden or len(members) > 1 else bank.number_of(members[0])
            groups.setdefault(hidden.get(own, nothing), []).append(place)
        return [(places, group) for group, places in groups.items()]

    def expected(self, size: np.ndarray, asked: Sequence[tuple[str, ...]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the expected accuracy of Q answers, and both ends of its 90 % interval; NaN where not calibrated.

        Parameters
        ----------
        size
            [Q]: root mean square of each prediction, in units of the bank.
        asked
            Members of each.
        """
        found = np.full((3, len(size)), np.nan)
        score = np.log(np.maximum(size, 1e-12))
        alone = np.array([len(members) == 1 for members in asked], dtype=bool)
        for rows, curve in ((alone, self._curves[1]), (~alone, self._curves[0])):
            if curve is not None:
                knots, accuracies, (lower, upper) = curve
                told = np.interp(score[rows], knots, accuracies)
                found[:, rows] = told, np.clip(told + lower, -1, 1), np.clip(told + upper, -1, 1)
        return found[0], found[1], found[2]

    @cached_property
    def _curves(self) -> tuple[Curve | None, Curve | None]:
        """Of combinations, and of single perturbations that these tell of."""
        return _curve(self.learned.combinations), _curve(self.learned.members)

    @property
    def error_ratio(self) -> float:
        """Return the square error of measured combinations over the expected one; 1 where too few tell."""
        return _ratio(self.learned.combinations)

    def error_ratios(self, asked: Sequence[tuple[str, ...]]) -> np.ndarray:
        """Return the same [Q] for what was asked, which may be single perturbations."""
        several, alone = _ratio(self.learned.combinations), _ratio(self.learned.members)
        return np.array([alone if len(members) == 1 else several for members in asked])

    def words(self, context: str, members: Sequence[str]) -> str:
        """Return what speaks for a prediction, in words."""
        bank, number = self.measured.bank, self.measured.number_of_context(context)
        mates = [set(self.measured.members[name]) for c, name in self.measured.conditions if c == context]
        mates = [mate for mate in mates if mate & set(members)]
        if len(members) == 1:
            told, judges = self._words_of_one(context, members[0], mates), self.learned.members
        else:
            here = [m for m in members if bank.measured(number, bank.number_of(m))]
            others = sum(mate != set(members) for mate in mates)
            told = f"{len(here)} of {len(members)} members measured here, {others} other combinations with one of them"
            if strange := self.strange(members):
                told = f"calibration may not hold: nothing is known of {', '.join(strange)}; {told}"
            judges = self.learned.combinations
        if len(judges.accuracy) >= FEWEST:
            return told
        what = "measured combinations" if len(members) > 1 else "members measured alone"
        return f"not calibrated, ranks only: {len(judges.accuracy)} {what} to judge by, {FEWEST} needed; {told}"

    def strange(self, members: Sequence[str]) -> list[str]:
        """Return those of a combination's members of which nothing is known."""
        return [one for one in members if self.measured.bank.number_of(one) < 0]

    def _words_of_one(self, context: str, name: str, mates: Sequence[set[str]]) -> str:
        bank, number = self.measured.bank, self.measured.number_of_context(context)
        if not mates:
            contexts = sorted(self._contexts_of.get(bank.number_of(name), frozenset()) - {context})
            return f"part of combinations measured in {', '.join(contexts)}"
        known = sum(all(bank.measured(number, bank.number_of(one)) for one in mate - {name}) for mate in mates)
        part = f"part of {len(mates)} combination{'s' if len(mates) > 1 else ''} measured here"
        return f"{part}, {known} of them with all other members measured alone"

    def why(self, condition: tuple[str, str], members: Sequence[str]) -> str:
        """Return why a condition contributes to a combination; empty for one that is like a member."""
        name = condition[1]
        if plain_of(name) in members:
            return MEMBER
        return SHARED if set(self.measured.members.get(name, ())) & set(members) else ""


Curve = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Knots, accuracies at these, and both ends of the interval around them."""


def _curve(judged: Judged) -> Curve | None:
    if len(judged.accuracy) < FEWEST:
        return None
    score = np.log(np.maximum(judged.size, 1e-12))
    knots, accuracies = rising_curve(score, judged.accuracy)
    return knots, accuracies, tolerance_ends(judged.accuracy - np.interp(score, knots, accuracies))


def _ratio(judged: Judged) -> float:
    return float(np.mean(judged.ratio)) if len(judged.ratio) >= FEWEST else 1.0


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
