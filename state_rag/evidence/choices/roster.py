"""Perturbations that a choice is about, by number: single ones as in a bank, combinations of them after these."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from state_rag.evidence.estimator import Evidence
from state_rag.names.combinations import SEPARATOR


class Roster:
    """Single perturbations and combinations, each with a number.

    Numbers below P are those of the engine's bank, which has P perturbations. A combination is called by its members in
    the engine's own spelling and in alphabetical order, however it was written.

    Parameters
    ----------
    engine
        A fitted one.
    names
        What may be asked about; the engine's single perturbations are known anyway.

    Attributes
    ----------
    members
        Numbers of the members of each combination, M tuples.
    names
        All names, P + M.
    """

    def __init__(self, engine: Evidence, names: Iterable[str]) -> None:
        self.engine, self.bank = engine, engine.bank
        self.members: list[tuple[int, ...]] = []
        self._table = torch.zeros(0, 1, dtype=torch.long)  # `members`, as `parts` gives them
        self._number: dict[tuple[int, ...], int] = {}
        self._seen: dict[str, int] = {}
        found = engine.combining.measured
        self._in_combinations = {self.bank.number_of(one) for members in found.members.values() for one in members}
        # measured ones come first, since they support the others
        self.measured_numbers = [self._add(found.members[name]) for _, name in found.conditions]
        self._row = {
            (found.number_of_context(context), number): row
            for row, ((context, _), number) in enumerate(zip(found.conditions, self.measured_numbers, strict=True))
        }
        self._contexts: dict[int, list[int]] = {}
        for context, number in self._row:
            self._contexts.setdefault(number, []).append(context)
        for name in names:
            self.number_of(name)
        told = [SEPARATOR.join(self.bank.perturbations[one] for one in members) for members in self.members]
        self.names = (*self.bank.perturbations, *told)

    def __len__(self) -> int:
        return len(self.bank.perturbations) + len(self.members)

    def number_of(self, name: str) -> int:
        """Return the number of a perturbation or combination; -1 where nothing is known of it or of one member."""
        if name not in self._seen:
            members = self.engine.combining.members(name)
            self._seen[name] = self._add(members) if members else self.bank.number_of(name)
        return self._seen[name]

    def is_combination(self, number: int) -> bool:
        """Tell whether a number is that of a combination."""
        return number >= len(self.bank.perturbations)

    def members_of(self, number: int) -> tuple[int, ...]:
        """Return the numbers of a combination's members; of a single perturbation its own."""
        first = len(self.bank.perturbations)
        return self.members[number - first] if number >= first else (number,)

    def measured(self, context: int, number: int) -> bool:
        """Tell whether a condition was measured; not for numbers below 0."""
        return (context, number) in self._row if self.is_combination(number) else self.bank.measured(context, number)

    def scarcity(self, context: int, number: int) -> float:
        """Return the scarcity of cells of a condition, as in a bank; 1 where it was not measured."""
        if not self.measured(context, number):
            return 1.0
        if self.is_combination(number):
            return float(self.engine.combining.measured.scarcity[self._row[context, number]])
        return float(self.bank.scarcity[self.bank.row[context, number]])

    def row_of(self, context: int, number: int) -> int:
        """Return the row of a measured combination among these; -1 where it was not measured."""
        return self._row.get((context, number), -1)

    def row_of_context(self, context: int) -> int:
        """Return where a context stands in `rows_of_combinations`, below 0 for one without any response."""
        return context if context >= -1 else len(self.bank.contexts) - 2 - context

    def rows_of_combinations(self, numbers: Tensor) -> Tensor:
        """Return the rows of combinations [Q] among the measured ones, long [contexts, Q], -1 where not measured.

        Contexts are those of the bank, then those in which combinations alone were measured.
        """
        last = max((self.row_of_context(context) for context, _ in self._row), default=-1)
        found = torch.full((max(last + 1, len(self.bank.contexts)), len(numbers)), -1, dtype=torch.long)
        for place, number in enumerate(numbers.tolist()):
            for context in self._contexts.get(number, ()):
                found[self.row_of_context(context), place] = self._row[context, number]
        return found

    def known(self, numbers: Sequence[int], context: int) -> list[bool]:
        """Tell which can be told from others: by an embedding, a response elsewhere or a combination with them.

        Of a combination all members have to be.
        """
        singles = sorted({one for number in numbers if number >= 0 for one in self.members_of(number)})
        told = self.engine.similarity.known(torch.tensor(singles, dtype=torch.long), max(context, -1)).any(0)
        good = {one for one, yes in zip(singles, told.tolist(), strict=True) if yes}
        good |= self._in_combinations
        return [number >= 0 and all(one in good for one in self.members_of(number)) for number in numbers]

    def parts(self, numbers: Tensor) -> Tensor:
        """Return the members of perturbations [N], long [N, W], -1 after the last; W is 1 without combinations."""
        first = len(self.bank.perturbations)
        if len(self._table) < len(self.members):
            width = max(map(len, self.members))
            filled = [[*members, *[-1] * (width - len(members))] for members in self.members]
            self._table = torch.tensor(filled, dtype=torch.long)
        found = torch.full((len(numbers), self._table.shape[1]), -1, dtype=torch.long)
        found[:, 0] = numbers
        several = numbers >= first
        found[several] = self._table[numbers[several] - first]
        return found

    def _add(self, members: Sequence[str]) -> int:
        """Return the number of a combination, a new one where it is new; that of its member where all are the same."""
        numbers = {self.bank.number_of(one) for one in members}
        if -1 in numbers:
            return -1
        key = tuple(sorted(numbers, key=lambda one: self.bank.perturbations[one]))
        if len(key) == 1:
            return key[0]
        if key not in self._number:
            self._number[key] = len(self)
            self.members.append(key)
        return self._number[key]
