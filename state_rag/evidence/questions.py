"""From names to scenes: questions are sorted by how much is known, and what was measured is hidden from itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from state_rag.evidence.bank import Bank
from state_rag.evidence.episodes import use_of
from state_rag.evidence.kriging import Scene
from state_rag.evidence.similarity import Similarity

FOLDS = 10
"""Parts that a context's measured conditions are divided into; one that is predicted is so without all of its part."""


@dataclass(frozen=True)
class Question:
    """Queries that one scene answers.

    Attributes
    ----------
    scene
        The question; without queries where nothing is known of them.
    use
        One of `USES`.
    places
        Where each query stands in what the user asked.
    known
        Whether anything is known of these perturbations; if not, only the prior can answer.
    """

    scene: Scene
    use: str
    places: tuple[int, ...]
    known: bool


def ask(bank: Bank, similarity: Similarity, context: int, names: Sequence[str]) -> list[Question]:
    """Return the questions that together answer for all names, each place in one of them.

    Parameters
    ----------
    bank, similarity
        Measured responses and kernels.
    context
        Number of the context, -1 for a new one.
    names
        Perturbations.
    """
    numbers = [bank.number_of(name) for name in names]
    groups: dict[tuple[int, str, bool], list[int]] = {}
    part_of, here = parts_of_context(bank, context), bank.rows_of(context)
    sizes = Counter(part_of.values())
    for place, number in enumerate(numbers):
        known, part = bool(sources_of(similarity, number, context)), part_of.get(number, -1)
        use = use_of(len(here) > sizes[part], number >= 0 and measured_elsewhere(bank, number, context))
        groups.setdefault((part, use, known), []).append(place)
    questions = []
    for (part, use, known), places in groups.items():
        hidden = [bank.row[context, number] for number, own in part_of.items() if own == part]
        queries = torch.tensor([numbers[place] for place in places] if known else [], dtype=torch.long)
        scene = Scene(context, queries, without(len(bank), hidden))
        questions.append(Question(scene, use, tuple(places), known))
    return questions


def parts_of_context(bank: Bank, context: int) -> dict[int, int]:
    """Return the part of each perturbation that was measured in a context, 0 to below `FOLDS`; none for -1.

    A part is hidden as a whole, whichever of it is asked about: an answer does not hang on what else is asked.
    """
    return {number: place % FOLDS for place, number in enumerate(bank.perturbation[bank.rows_of(context)].tolist())}


def sources_of(similarity: Similarity, number: int, context: int) -> tuple[str, ...]:
    """Return the sources that know a perturbation, seen from a context; none for -1."""
    if number < 0:
        return ()
    said = similarity.known(torch.tensor([number]), context)[:, 0].tolist()
    return tuple(name for name, yes in zip(similarity.names, said, strict=True) if yes)


def measured_elsewhere(bank: Bank, number: int, context: int) -> bool:
    """Tell whether a perturbation was measured in another context, or otherwise under another label of its name."""
    return bool(bank.count[:, number].sum() > bank.measured(context, number))


def without(n_rows: int, hidden: Sequence[Tensor]) -> Tensor:
    """Return all rows but some, ascending."""
    keep = torch.ones(n_rows, dtype=torch.bool)
    for row in hidden:
        keep[row] = False
    return torch.nonzero(keep).flatten()
