"""Which sources help: those without which episodes are answered worse.

A source that tells nothing does not fade by itself: what makes a perturbation like itself and like no other is a
nugget, or noise, and the covariance can use these. So each source of several is left out in turn, its variance kept as
such, on episodes with known answers; one whose absence costs nothing is dropped, and the numbers of the covariance are
learned again without it. What is left is what would have been learned had it never been given.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import torch

from state_rag.evidence.bank import Bank
from state_rag.evidence.episodes import Episodes
from state_rag.evidence.fusion import effect_loss
from state_rag.evidence.kriging import KernelWeights, apply, krige
from state_rag.evidence.similarity import Similarity
from state_rag.evidence.source_weights import without_sources

COST = 0.004
"""What the absence of a source must cost in `effect_loss`, a scaled error minus a correlation, for it to be kept."""

SURE = 2.0
"""Standard errors over episodes that this cost must have."""


def useless_sources(
    bank: Bank,
    similarity: Similarity,
    episodes: Episodes,
    weights: KernelWeights,
    count: int,
    rng: np.random.Generator,
) -> tuple[str, ...]:
    """Return the tables whose absence costs nothing, judged one after the other, the cheapest first.

    Two that say the same are not both dropped, and the last one stays: without a table nothing is known of a
    perturbation that was measured nowhere.

    Parameters
    ----------
    bank, similarity, weights
        Measured responses, kernels, and the numbers learned with all sources.
    episodes
        Of the use.
    count
        Episodes that judge, at least 2.
    rng
        Of their draw.
    """
    drawn = [episodes.draw(rng) for _ in range(max(2, count))]

    def losses(left_out: Collection[str]) -> np.ndarray:
        chosen = without_sources(weights, similarity, left_out) if left_out else weights
        found = []
        for scene, truth in drawn:
            answer = krige(bank, scene, chosen, similarity)
            predicted = apply(answer, bank, scene, chosen, bank.effects_on_others[scene.supports])
            found.append(float(effect_loss(predicted, bank.effects_on_others[truth])))
        return np.array(found)

    gone: tuple[str, ...] = ()
    tables = [source.name for source in similarity.sources]
    with torch.no_grad():
        before = losses(())
        while len(tables) > 1:
            after = {name: losses((*gone, name)) for name in tables}
            cheapest = min(tables, key=lambda name: float(after[name].mean()))
            cost = after[cheapest] - before
            if cost.mean() > max(COST, SURE * cost.std(ddof=1) / np.sqrt(len(cost))):
                break
            gone, before = (*gone, cheapest), after[cheapest]
            tables.remove(cheapest)
    return gone
