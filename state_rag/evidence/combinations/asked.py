"""Combinations, and members of them, that an engine is asked about: answers, how far to trust them, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from state_rag.evidence.answering import expected_error
from state_rag.evidence.combinations.answers import MEMBER, Combining
from state_rag.evidence.combinations.measured import Combined
from state_rag.evidence.episodes import USES
from state_rag.evidence.explanation import SAME, Explanation
from state_rag.evidence.trust.expected import Trust, Trusting

if TYPE_CHECKING:
    from state_rag.evidence.estimator import Evidence


def answer_combinations(engine: Evidence, context: str, asked: Sequence[tuple[str, ...]]) -> Combined:
    """Return answers to what is asked; members that nothing is known of are like no other perturbation.

    Parameters
    ----------
    engine
        A fitted one.
    context
        Name.
    asked
        Of each of the Q queries what `Combining.asked` tells.
    """
    strange = [m for m in dict.fromkeys(m for members in asked for m in members) if engine.bank.number_of(m) < 0]
    wider = engine.over(engine.responses, strange) if strange else engine
    return wider.combining.answer(wider.similarity, engine.learned_for(USES[0]).weights, context, asked)


def combined_error(engine: Evidence, asked: Sequence[tuple[str, ...]], found: Combined) -> np.ndarray:
    """Return the expected squared errors [Q] of answers, in the unit of the responses squared."""
    ratio = engine.combining.error_ratios(asked)
    return expected_error(engine.bank, found.variance, engine.learned_for(USES[0])) * ratio


def trust_combinations(
    engine: Evidence,
    trusting: Trusting,
    places: list[int],
    context: str,
    asked: Sequence[tuple[str, ...]],
    found: Combined,
) -> None:
    """Note how far answers can be trusted.

    Parameters
    ----------
    engine, context, asked
        As for `answer_combinations`.
    trusting
        Where it is noted.
    places
        [Q]: of each answer there.
    found
        The answers.
    """
    size = found.mean.square().mean(1).sqrt().numpy()
    reasons = [engine.combining.words(context, members) for members in asked]
    mean = (found.mean * engine.bank.scale).numpy()
    expected = engine.combining.expected(size, asked)
    known = np.array([not engine.combining.strange(members) for members in asked], dtype=bool)
    trusting.combined(places, mean, expected, combined_error(engine, asked, found), reasons, known)


def explain_combination(engine: Evidence, context: str, name: str, members: tuple[str, ...]) -> Explanation:
    """Return where the prediction of a combination, or of a member of measured ones, comes from.

    Parameters
    ----------
    engine, context
        As for `answer_combinations`.
    name
        What was asked about.
    members
        What `Combining.asked` tells of it.
    """
    found = answer_combinations(engine, context, [members])
    trusting = Trusting(engine.calibrated, engine.bank.scale, (1, len(engine.responses.genes)))
    trust_combinations(engine, trusting, [0], context, [members], found)
    trusting.nothing([0] if engine.does_nothing(name) else [])
    cells: dict[tuple[str, str], float] = {}
    for responses in (engine.responses, engine.combined):
        if responses is not None and responses.cells is not None:
            cells.update(zip(responses.conditions, responses.cells.tolist(), strict=True))
    return _explanation(
        engine.combining,
        engine.similarity.names,
        found,
        cells,
        names=(context, name),
        members=members,
        genes=engine.responses.genes,
        trust=trusting.trust() if engine.calibrated else None,
    )


def _explanation(
    combining: Combining,
    sources: Sequence[str],
    found: Combined,
    cells: Mapping[tuple[str, str], float],
    *,
    names: tuple[str, str],
    members: tuple[str, ...],
    genes: tuple[str, ...],
    trust: Trust | None,
) -> Explanation:
    """Take the answer to one combination apart.

    Parameters
    ----------
    combining, found
        How it was answered.
    sources
        Names of what likeness goes by.
    cells
        (context, perturbation) -> cells behind it, where known.
    names
        Context and combination.
    members
        Of the combination.
    genes
        G names.
    trust
        Of the prediction, where it is known.
    """
    scale = combining.measured.bank.scale
    order = torch.argsort(-found.weight[:, 0].abs(), stable=True)
    conditions = tuple(found.conditions[place] for place in order.tolist())
    why = [combining.why(condition, members) or "like a member" for condition in conditions]
    reasons = {name: np.zeros(len(conditions)) for name in sources}
    prior = (found.prior[0] * scale).numpy()
    return Explanation(
        *names,
        genes,
        prior,
        conditions,
        found.weight[order, 0].numpy(),
        (found.weight[order, :1] * found.deviations[order] * scale).numpy(),
        (found.effects[order] * scale).numpy(),
        tuple(why),
        {**reasons, SAME: np.array([float(one == MEMBER) for one in why])},
        np.array([cells.get(condition, np.nan) for condition in conditions]),
        np.zeros(len(genes)),
        {},
        trust,
        of_combination=True,
    )
