"""Answering one scene with what was learned for its use: kriging, then fusion where it wins."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from state_rag.evidence.bank import Bank
from state_rag.evidence.gene_features import ESTIMATES, GeneFeatures, gene_features
from state_rag.evidence.kriging import Answer, Scene, apply, krige, nearest
from state_rag.evidence.similarity import Similarity
from state_rag.evidence.training import KRIGING, Trained


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
    """

    scene: Scene
    answer: Answer
    values: Tensor
    seen: GeneFeatures | None


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
    plain = learned.fusion is None and learned.estimate == KRIGING
    seen = None
    if with_genes or not plain:
        seen = gene_features(bank, scene, learned.weights, similarity, answer)
    if plain or seen is None:
        values = apply(answer, bank, scene, learned.weights, bank.effects[scene.supports])
    elif learned.fusion is not None:
        values = learned.fusion(seen)
    else:
        values = seen.estimates[ESTIMATES.index(learned.estimate)]
    return Answered(scene, answer, values.double(), seen)
