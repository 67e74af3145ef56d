"""Why a prediction is what it is: a prior, plus what each measured response adds, plus a correction; they add up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from state_rag.errors import StateRagError
from state_rag.evidence.answering import answer_scene, expected_error
from state_rag.evidence.bands import Spread, contributions, overall_weights
from state_rag.evidence.bank import Bank
from state_rag.evidence.kriging import Answer, KernelWeights, Scene
from state_rag.evidence.questions import ask
from state_rag.evidence.similarity import Similarity
from state_rag.evidence.trust.expected import Trust, Trusting
from state_rag.evidence.trust.gene_calls import GeneCalls

if TYPE_CHECKING:
    from state_rag.evidence.estimator import Evidence

SAME = "same perturbation elsewhere"
"""Why a condition contributes that is of the perturbation asked about."""


@dataclass(frozen=True)
class Explanation:
    """Where a predicted effect comes from.

    `prior + contributions.sum(0) + correction` is the prediction: `prediction` is computed as that sum.

    Attributes
    ----------
    context, perturbation, genes
        What was asked, and the G genes.
    prior
        [G]: mean effect of the context, shrunken.
    conditions
        [S]: (context, perturbation) of each contributing condition, heaviest first.
    weights
        [S]: of each, signed: how many times its deviation (measured effect minus prior) its contribution is, by
        regression over genes, since directions of response may be weighted each in its own way. What a condition does
        to the gene that it is named after adds nothing.
    contributions
        [S, G]: what it adds to the prediction.
    effects
        [S, G]: its measured effect.
    why
        [S]: what makes it alike most: a source by name, or `same perturbation elsewhere`.
    reasons
        Source -> [S]: share of the covariance with the query that comes from it; 0 where that is 0.
    cells
        [S]: cells behind each; NaN where unknown.
    correction
        [G]: what fusion adds, gene by gene, and what is learned of the perturbed gene itself.
    priors
        Context -> [G]: its prior, for each context of `conditions`.
    trust
        How far the prediction can be trusted; None where the engine knows nothing of it.
    calls
        Which genes it changes; None where the engine knows nothing of it.
    of_combination
        Whether the prediction is that of a combination of perturbations.
    """

    context: str
    perturbation: str
    genes: tuple[str, ...]
    prior: np.ndarray
    conditions: tuple[tuple[str, str], ...]
    weights: np.ndarray
    contributions: np.ndarray
    effects: np.ndarray
    why: tuple[str, ...]
    reasons: dict[str, np.ndarray]
    cells: np.ndarray
    correction: np.ndarray
    priors: dict[str, np.ndarray]
    trust: Trust | None = None
    calls: GeneCalls | None = None
    of_combination: bool = False

    @property
    def prediction(self) -> np.ndarray:
        """Return the predicted effect [G]."""
        return self.prior + self.contributions.sum(0) + self.correction

    def shares(self) -> tuple[float, np.ndarray, float]:
        """Return the share of the predicted effect by the prior, each condition [S], and the correction.

        A share is the projection of a contribution on the prediction, over the latter's square; shares add up to 1,
        and are 0 where the prediction is.
        """
        prediction = self.prediction
        square = float(prediction @ prediction)
        over = prediction / square if square > 0 else prediction
        return float(self.prior @ over), self.contributions @ over, float(self.correction @ over)

    def top_genes(self, place: int, count: int = 10) -> list[str]:
        """Return the genes that a condition moves most."""
        order = np.argsort(-np.abs(self.contributions[place]), kind="stable")[:count]
        return [self.genes[gene] for gene in order]


def explain(engine: Evidence, context: str, perturbation: str) -> Explanation:
    """Return where the prediction of a single perturbation comes from.

    Parameters
    ----------
    engine
        A fitted one that has the label.
    context, perturbation
        Names.

    Raises
    ------
    StateRagError
        If nothing is known of the perturbation.
    """
    bank, similarity = engine.bank, engine.similarity
    (question,) = ask(bank, similarity, bank.number_of_context(context), [perturbation])
    learned = engine.learned_for(question.use)
    if not question.known:
        raise StateRagError(
            f"explain: {perturbation} has no response in another context than {context} and no embedding, so that "
            "its prediction is the context's mean effect; give embeddings that know it."
        )
    shape = 1, len(engine.responses.genes)
    trusting, calling = Trusting(engine.calibrated, bank.scale, shape), engine.calling(shape)
    limit, with_genes = engine.settings.final_supports, bool(engine.calibrated)
    answered = answer_scene(bank, similarity, question.scene, learned, limit, with_genes=with_genes)
    if engine.calibrated:
        variance = expected_error(bank, answered.answer.variance, learned)
        expected = trusting.known([0], question.use, bank, answered, learned, variance)
        if calling is not None:
            calling.known([0], question.use, bank, answered, learned.weights, expected)
        trusting.nothing([0] if engine.does_nothing(perturbation) else [])
    return explain_answer(
        answered.answer,
        answered.spread,
        similarity,
        names=(context, perturbation),
        genes=engine.responses.genes,
        cells=engine.responses.cells,
        predicted=(answered.values * bank.scale).numpy()[0],
        trust=trusting.trust() if engine.calibrated else None,
        calls=None if calling is None else calling.calls(),
    )


def explain_answer(
    answer: Answer,
    spread: Spread,
    similarity: Similarity,
    *,
    names: tuple[str, str],
    genes: tuple[str, ...],
    cells: np.ndarray | None,
    predicted: np.ndarray,
    trust: Trust | None = None,
    calls: GeneCalls | None = None,
) -> Explanation:
    """Take the answer to a scene of one query apart.

    Parameters
    ----------
    answer
        Of `krige`.
    spread
        Of the effects of its scene's supports.
    similarity
        The kernels of the bank's perturbations.
    names
        Context and perturbation.
    genes
        G names.
    cells
        [N]: cells behind each row of the bank, where known.
    predicted
        [G]: the prediction, in the unit of the responses; what the prior and the conditions do not add up to is the
        correction.
    trust, calls
        Of the prediction, where they are known.
    """
    bank, scene, expected = spread.bank, spread.scene, spread.prior
    added = contributions(answer, spread)
    weight = overall_weights(answer, spread)[:, 0]
    order = torch.argsort(-weight.abs(), stable=True)
    rows = scene.supports[order]
    prior = (expected.at(scene.context, scene.queries)[0] * bank.scale).numpy()
    reasons = _reasons(bank, similarity, spread.weights, scene, rows)
    same = bank.named[bank.perturbation[rows]] == bank.named[scene.queries[0]]
    strongest = np.stack([reasons[source] for source in reasons]).argmax(0)
    sources = list(reasons)
    return Explanation(
        *names,
        genes,
        prior,
        tuple((bank.contexts[c], bank.perturbations[p]) for c, p in _numbers(bank, rows)),
        weight[order].numpy(),
        (added[order] * bank.scale).numpy(),
        (bank.effects[scene.supports][order] * bank.scale).numpy(),
        tuple(SAME if yes else sources[k] for yes, k in zip(same.tolist(), strongest, strict=True)),
        reasons,
        np.full(len(rows), np.nan) if cells is None else cells[rows.numpy()],
        predicted - (prior + (added.sum(0) * bank.scale).numpy()),
        {
            bank.contexts[number]: (expected.at(number, scene.queries)[0] * bank.scale).numpy()
            for number in set(bank.context[rows].tolist())
        },
        trust,
        calls,
    )


def _numbers(bank: Bank, rows: torch.Tensor) -> list[tuple[int, int]]:
    return list(zip(bank.context[rows].tolist(), bank.perturbation[rows].tolist(), strict=True))


def _reasons(
    bank: Bank, similarity: Similarity, weights: KernelWeights, scene: Scene, rows: torch.Tensor
) -> dict[str, np.ndarray]:
    perturbation = bank.perturbation[rows]
    stack = similarity.stack(perturbation, scene.queries, scene.context, scene.hidden)[:, :, 0].double()
    here = (bank.context[rows] == scene.context).double()
    factor = weights.shared.exp()[:, None] + weights.own.exp()[:, None] * here
    parts: dict[str, torch.Tensor] = {}
    for kernel, part in zip(similarity.kernels, factor * stack, strict=True):
        parts[kernel.source] = parts.get(kernel.source, torch.zeros(len(rows), dtype=torch.float64)) + part
    parts[SAME] = (weights.same.exp() * similarity.same(perturbation, scene.queries))[:, 0]
    if weights.treatments is not None and similarity.treatments is not None:
        told = weights.treatments.factor(similarity.treatments, perturbation, scene.queries)[:, 0]
        parts = {name: part * told for name, part in parts.items()}
    # cosines may be negative: shares are of the sizes
    total = torch.stack(list(parts.values())).abs().sum(0)
    return {name: (part.abs() / total.clamp_min(1e-300)).numpy() for name, part in parts.items()}
