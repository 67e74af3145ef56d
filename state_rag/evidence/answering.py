"""Answering one scene with what was learned for its use: kriging, then fusion where it wins."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from state_rag.evidence.bands import Spread, banded
from state_rag.evidence.bank import Bank
from state_rag.evidence.gene_features import ESTIMATES, GeneFeatures, gene_features
from state_rag.evidence.kriging import Answer, KernelWeights, Scene, apply, krige, nearest
from state_rag.evidence.own_gene import change_of_own, with_own, with_same_name
from state_rag.evidence.responses import UNTOLD
from state_rag.evidence.similarity import Similarity
from state_rag.evidence.training import KRIGING, Trained, is_blind


@dataclass(frozen=True)
class Answered:
    """An answered scene.

    Attributes
    ----------
    scene
        With the supports that were looked at.
    answer
        Of kriging.
    values
        Predicted effects [Q, G], in units of the bank.
    seen
        What is known of each gene; None where nothing needed it.
    spread
        Of the supports' effects.
    """

    scene: Scene
    answer: Answer
    values: Tensor
    seen: GeneFeatures | None
    spread: Spread


def answer_scene(
    bank: Bank, similarity: Similarity, scene: Scene, learned: Trained, limit: int, *, with_genes: bool = False
) -> Answered:
    """Return the answer to a scene.

    Parameters
    ----------
    bank, similarity
        Measured responses and the kernels of their perturbations.
    scene
        The question.
    learned
        For its use.
    limit
        Supports at most; above it, those with the highest covariance with a query.
    with_genes
        Make `seen` even where the prediction does not need it.
    """
    scene = nearest(bank, scene, learned.weights, similarity, limit)
    answer = krige(bank, scene, learned.weights, similarity)
    spread = Spread(bank, scene, learned.weights, bank.effects_on_others[scene.supports])
    plain = learned.fusion is None and learned.estimate == KRIGING
    seen = None
    if with_genes or not plain:
        seen = gene_features(answer, spread, similarity)
    if plain or seen is None:
        values = banded(answer, spread)
    elif learned.fusion is not None:
        values = learned.fusion(seen)
    else:
        values = seen.estimates[ESTIMATES.index(learned.estimate)]
    return Answered(scene, answer, own_corrected(bank, scene, answer, values.double(), learned), seen, spread)


def own_corrected(bank: Bank, scene: Scene, answer: Answer, values: Tensor, learned: Trained) -> Tensor:
    """Return predictions [Q, G] with what is known of effects on the perturbed genes themselves."""
    found = with_same_name(bank, scene, answer.weight, values)
    found = found if learned.own_gene is None else learned.own_gene.corrected(bank, scene, found)
    variance = learned.weights.prior_variances(bank, scene.queries)
    # a dose of 0 does nothing, whatever a correction says
    return found * (variance > 0).to(found.dtype)[:, None] if variance.ndim else found


def expected_error(bank: Bank, variance: Tensor, learned: Trained) -> np.ndarray:
    """Return variances [Q] in units of the bank as expected squared errors, in the unit of the responses squared."""
    return (variance * learned.calibration * bank.scale**2).numpy()


def blind_answer(bank: Bank, answered: Answered, use: str, learned: Trained) -> Answered:
    """Return the answers of fusions that have not learned from the queries, where there are such (`Trained.blind`)."""
    if not learned.blind or answered.seen is None:
        return answered
    values = torch.empty_like(answered.values)  # each query is of one half
    for half, fusion in enumerate(learned.blind):
        mask = is_blind(half, use, answered.scene.context, bank.named[answered.scene.queries])
        values[mask] = fusion(answered.seen).double()[mask]
    return replace(answered, values=own_corrected(bank, answered.scene, answered.answer, values, learned))


def chance_of_change(bank: Bank, answered: Answered, weights: KernelWeights, changes: Tensor) -> Tensor:
    """Return the chance [Q, G] that a gene changes: whether it did in each support, kriged with the answer's weights.

    It may be below 0 or above 1, as kriging of any indicator may. A support that does not tell counts like the mean of
    those that do. What supports do to the genes that they are named after is left out, as it is of effects, and tells
    of own genes alone: of a query's, the share of supports whose own gene changed, those of its name counting more.

    Parameters
    ----------
    bank, answered, weights
        The answer, and numbers of the covariance.
    changes
        int8 [N, G], as `Responses.changes`.
    """
    scene = answered.scene
    known = changes[scene.supports]
    told, changed = known != UNTOLD, ((known == 1) | (known == -1)).float()
    apart = None
    if bank.effects_on_others is not bank.effects:
        apart = change_of_own(bank, scene, changed, told)
        told[with_own(bank, bank.perturbation[scene.supports])] = False
    if not told.all():
        changed = torch.where(told, changed, (changed * told).sum(0) / told.sum(0).clamp_min(1))
    found = apply(answered.answer, bank, scene, weights, changed)
    if apart is not None:
        rows, own, chance = apart
        found[rows, own] = chance
    return found
