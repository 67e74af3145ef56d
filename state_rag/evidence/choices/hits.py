"""Which conditions to measure next to find as many hits as can be: those most likely to exceed a wanted effect.

The expected number of hits of a choice is the sum of the probabilities of its members, so that the best choice is
simply those with the highest. (How close such choices are to looking ahead in screens: arXiv 2605.10196.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

from state_rag.errors import StateRagError
from state_rag.evidence.choices.design import check_budget
from state_rag.evidence.choices.roster import Roster
from state_rag.evidence.estimator import Evidence
from state_rag.names import listing

STRONG = 0.9
"""Without a threshold an effect is a hit that is larger than this share of the measured ones."""
BLOCK = 1000
"""Combinations that are predicted at a time."""


@dataclass(frozen=True)
class Hits:
    """Conditions to measure, the likeliest hit first.

    Attributes
    ----------
    conditions
        B (context, perturbation).
    probability
        float64 [B]: that the effect exceeds the threshold.
    effect, deviation
        float64 [B]: expected effect, and its standard deviation, in the unit of the responses.
    threshold
        That a hit exceeds.
    unknown
        Candidates that were left out, since neither a response elsewhere nor an embedding knows them.
    exhausted
        Whether fewer candidates were left than asked for.
    """

    conditions: tuple[tuple[str, str], ...]
    probability: np.ndarray
    effect: np.ndarray
    deviation: np.ndarray
    threshold: float
    unknown: tuple[str, ...]
    exhausted: bool

    @property
    def expected(self) -> np.ndarray:
        """Return float64 [B]: expected hits among the first, first two, ..."""
        return np.cumsum(self.probability)


def hits(
    engine: Evidence,
    contexts: Sequence[str],
    budget: int,
    *,
    candidates: Sequence[str] | None = None,
    exclude: Sequence[str] = (),
    threshold: float | None = None,
    signature: Mapping[str, float] | None = None,
) -> Hits:
    """Return the conditions that most likely exceed a wanted effect.

    The effect of a condition is the root mean square over genes of its response, or with a signature the mean of its
    genes weighted by it (by signs, for a list of genes up and down). Its deviation is that of the prediction of one
    gene, as if the errors of all genes went together: the widest case.

    Parameters
    ----------
    engine
        A fitted one.
    contexts, budget, candidates, exclude
        As for `design.design`.
    threshold
        What a hit exceeds; by default the size (or agreement with the signature) that a tenth of the measured
        conditions exceed.
    signature
        Gene -> weight, its sign the wanted direction.

    Raises
    ------
    StateRagError
        If nothing was fitted, the threshold is no number, no gene of the signature is known or has a weight, or no
        candidate is left.
    """
    engine.check_fitted("design")
    check_budget(budget)
    if threshold is not None and not np.isfinite(threshold):
        raise StateRagError(f"design: the threshold of hits is {threshold}; give a number.")
    engine = engine.reaching(map(str, candidates or ()))
    bank = engine.bank
    weight = None if signature is None else _weights(engine.responses.genes, signature)
    wanted = (
        float(np.quantile(_effect(engine.responses.effects.astype(np.float64), weight), STRONG))
        if threshold is None
        else float(threshold)
    )
    offered = tuple(dict.fromkeys(map(str, bank.offered if candidates is None else candidates)))
    roster, unknown = Roster(engine, offered), dict[str, None]()
    banned = {roster.number_of(name) for name in map(str, exclude)} - {-1}
    rows: list[tuple[tuple[str, str], float, float]] = []
    for context in dict.fromkeys(map(str, contexts)):
        number = engine.combining.measured.number_of_context(context)
        asked = dict.fromkeys(map(roster.number_of, offered))
        unknown.update((name, None) for name in offered if roster.number_of(name) < 0)
        left = [p for p in asked if p >= 0 and p not in banned and not roster.measured(number, p)]
        single = [roster.names[p] for p in left if not roster.is_combination(p)]
        several = [roster.names[p] for p in left if roster.is_combination(p)]
        # many combinations would take the memory of all of their effects
        blocks = [single, *(several[start : start + BLOCK] for start in range(0, len(several), BLOCK))]
        for names in filter(None, blocks):
            found = engine.predict(context, names, trust=False)
            unknown.update((name, None) for name, lost in zip(names, found.nothing_known, strict=True) if lost)
            values = zip(names, _effect(found.mean, weight), np.sqrt(found.variance), found.nothing_known, strict=True)
            rows += [((context, name), float(e), float(d)) for name, e, d, lost in values if not lost]
    if not rows:
        raise StateRagError(
            f"design: no candidate is left of {listing(offered)}: each is excluded, measured in {', '.join(contexts)} "
            "already or without an embedding and a response elsewhere. Give other candidates."
        )
    effect, deviation = (np.array([row[column] for row in rows]) for column in (1, 2))
    probability = ndtr((effect - wanted) / np.maximum(deviation, 1e-12))
    order = np.argsort(-probability, kind="stable")[:budget]
    conditions = tuple(rows[place][0] for place in order)
    return Hits(
        conditions, probability[order], effect[order], deviation[order], wanted, tuple(unknown), len(rows) < budget
    )


def _effect(values: np.ndarray, weight: np.ndarray | None) -> np.ndarray:
    return np.sqrt(np.mean(values**2, axis=1)) if weight is None else values @ weight


def _weights(genes: Sequence[str], signature: Mapping[str, float]) -> np.ndarray:
    weight = np.array([float(signature.get(gene, 0.0)) for gene in genes])
    if not np.isfinite(weight).all() or not weight.any():
        raise StateRagError(
            f"design: none of the {len(signature)} genes of the signature is among the {len(genes)} of the run with a "
            "weight other than 0; give gene names as the run has them."
        )
    return weight / np.abs(weight).sum()
