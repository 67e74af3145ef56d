"""What is known of one gene's response before it is seen: several estimates, and what tells how far to trust them.

Everything here is computed from the supports of a scene; the answers are not at hand.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from state_rag.evidence.bands import Spread, along_bands
from state_rag.evidence.bank import Bank
from state_rag.evidence.kriging import Answer, KernelWeights, Scene, apply, factorise
from state_rag.evidence.similarity import Similarity
from state_rag.evidence.source_weights import source_weights

ESTIMATES = ("co-kriging", "same perturbation elsewhere", "ridge", "similar conditions", "context mean", "others' mean")
"""Estimates of the response, in the order of `GeneFeatures.estimates`; the first is the one to be corrected."""

LEVELS = (0.5, 1.0, 2.0)
"""Sizes of an effect, in root mean squares of all, whose chance of being exceeded is kriged, in either direction."""

SHARPER = (2, 4)
"""Powers of the covariance that weight similar conditions."""

FEATURES = (
    "positive part",
    "square",
    *(f"{side} {level:g}" for level in LEVELS for side in ("above", "below")),
    *(f"{what} of similar^{power}" for power in SHARPER for what in ("mean", "spread")),
    "spread elsewhere",
    "least size elsewhere",
    "spread here",
    "spread of others",
    "control here",
    "control elsewhere",
    "variance",
    "strength",
    "contexts",
    "first directions",
    "middle directions",
)
"""Further features, in the order of `GeneFeatures.features`."""

CLOSE = 0.5
"""Share of the best row's factor from which on rows of other modes, doses and times have a say in the least size."""

RIDGE = 2.0
"""Noise of the ridge estimate, whose kernel is the sum of all cosines (each 1 for a perturbation with itself)."""


@dataclass(frozen=True)
class GeneFeatures:
    """Of the queries of a scene.

    Attributes
    ----------
    estimates
        [len(ESTIMATES), Q, G].
    features
        [len(FEATURES), Q, G].
    """

    estimates: Tensor
    features: Tensor

    def of_genes(self, genes: Tensor) -> GeneFeatures:
        """Return those of some genes."""
        return GeneFeatures(self.estimates[:, :, genes], self.features[:, :, genes])


def gene_features(answer: Answer, spread: Spread, similarity: Similarity) -> GeneFeatures:
    """Return estimates and features of every gene of every query.

    Parameters
    ----------
    answer
        Of `krige`.
    spread
        Of the effects of its scene's supports.
    similarity
        The kernels of the bank's perturbations.
    """
    bank, scene, weights, values = spread.bank, spread.scene, spread.weights, spread.values
    prior, parts = along_bands(answer, spread)
    mean = prior + parts.sum(0)
    here = bank.context[scene.supports] == scene.context
    mean_here, spread_here = _moments(values[here])
    mean_others, spread_others = _moments(values[~here])
    if not here.any():
        mean_here, spread_here = mean_others, spread_others
    if here.all():
        mean_others, spread_others = mean_here, spread_here
    # what does the opposite is as similar, with the other sign, where modes tell that
    covariance = answer.covariance if bank.treatments is not None else answer.covariance.clamp_min(0)
    donors, spread_elsewhere, least, count = _same_elsewhere(bank, scene, weights, values, mean_others)
    estimates = [
        mean,
        donors,
        _ridge(bank, scene, weights, similarity, values[here], here, mean_here),
        _similar(covariance, values, mean),
        mean_here.expand_as(mean),
        mean_others.expand_as(mean),
    ]
    control_here, control_others = _controls(bank, scene)
    strength = mean.square().mean(1, keepdim=True).sqrt()
    features = [
        *(apply(answer, bank, scene, weights, seen) for seen in _seen_otherwise(values.float())),
        *_similar_sharper(covariance.float(), values.float()),
        spread_elsewhere,
        least,
        spread_here.expand_as(mean),
        spread_others.expand_as(mean),
        control_here.expand_as(mean),
        control_others.expand_as(mean),
        answer.variance[:, None].expand_as(mean),
        strength.expand_as(mean),
        count[:, None].expand_as(mean),
        *parts[:-1],
    ]
    # float32 is what fusion takes, and halves the time of the many products
    stacked = (torch.stack([part.float() for part in parts]) for parts in (estimates, features))
    return GeneFeatures(*stacked)


def _seen_otherwise(values: Tensor) -> list[Tensor]:
    """Return functions of the effects that tell their distribution: what kriging of the mean alone cannot."""
    chances = [above.to(values.dtype) for level in LEVELS for above in (values > level, values < -level)]
    return [values.clamp_min(0), values.square().clamp_max(50.0), *chances]


def _moments(values: Tensor) -> tuple[Tensor, Tensor]:
    if not len(values):
        return values.new_zeros(values.shape[1]), values.new_zeros(values.shape[1])
    return values.mean(0), values.std(0, correction=0)


def _same_elsewhere(
    bank: Bank, scene: Scene, weights: KernelWeights, values: Tensor, fallback: Tensor
) -> tuple[Tensor, ...]:
    """Return mean, spread, least size (0 where signs differ) [Q, G] and count [Q] over the same perturbation's rows.

    Rows of other modes, doses and times count by how far they tell of what is asked, with the sign that they have then.
    """
    if bank.treatments is not None and weights.treatments is not None:
        return _same_name_elsewhere(bank, scene, weights, values, fallback)
    same = bank.perturbation[scene.supports][None] == scene.queries[:, None]
    count = same.sum(1)
    query_of, support_of = same.nonzero(as_tuple=True)
    own_values = values[support_of]
    nothing = values.new_zeros(len(scene.queries), values.shape[1])
    share = 1 / count.clamp_min(1)[:, None]
    mean = nothing.index_add(0, query_of, own_values) * share
    square = nothing.index_add(0, query_of, own_values.square()) * share
    spread = (square - mean.square()).clamp_min(0).sqrt()
    least = torch.zeros_like(mean)
    for query in torch.nonzero(count > 0).flatten().tolist():
        own = values[same[query]]
        agree = (own > 0).all(0) | (own < 0).all(0)
        least[query] = own.abs().amin(0) * agree * own[0].sign()
    mean[count == 0] = fallback
    return mean, spread, least, count.to(values.dtype)


def _same_name_elsewhere(
    bank: Bank, scene: Scene, weights: KernelWeights, values: Tensor, fallback: Tensor
) -> tuple[Tensor, ...]:
    assert weights.treatments is not None
    assert bank.treatments is not None
    supports = bank.perturbation[scene.supports]
    same = bank.named[supports][None] == bank.named[scene.queries][:, None]
    told = weights.treatments.factor(bank.treatments, scene.queries, supports).detach() * same
    total = told.abs().sum(1)
    told = told.to(values.dtype)
    share = told.abs() / total.clamp_min(1e-12)[:, None]
    mean = (share * told.sign()) @ values
    spread = (share @ values.square() - mean.square()).clamp_min(0).sqrt()
    least = torch.zeros_like(mean)
    for query in torch.nonzero(total > 0).flatten().tolist():
        heavy = told[query].abs() >= CLOSE * told[query].abs().max()
        own = values[heavy] * told[query, heavy].sign()[:, None]
        agree = (own > 0).all(0) | (own < 0).all(0)
        least[query] = own.abs().amin(0) * agree * own[0].sign()
    mean[total == 0] = fallback
    return mean, spread, least, total.to(values.dtype)


def _ridge(
    bank: Bank,
    scene: Scene,
    weights: KernelWeights,
    similarity: Similarity,
    values: Tensor,
    here: Tensor,
    mean: Tensor,
) -> Tensor:
    """Return the plain regression within the context; its mean where it has no supports.

    All sources that count for anything are weighted alike.
    """
    if not len(values):
        return mean.expand(len(scene.queries), -1)
    known = bank.perturbation[scene.supports[here]]
    counts = [share > 0 for share in source_weights(weights, similarity).values()]
    among, cross = (
        sum(
            cosine
            for cosine, yes in zip(similarity.cosines(known, columns, scene.context, scene.hidden), counts, strict=True)
            if yes
        ).double()
        for columns in (known, scene.queries)
    )
    if weights.treatments is not None and bank.treatments is not None:
        among = among * weights.treatments.factor(bank.treatments, known, known).detach()
        cross = cross * weights.treatments.factor(bank.treatments, known, scene.queries).detach()
    factor = factorise(among + RIDGE * torch.eye(len(known), dtype=torch.float64))
    return mean + torch.cholesky_solve(cross, factor).T @ (values - mean)


def _similar(weight: Tensor, values: Tensor, fallback: Tensor) -> Tensor:
    """Return the mean of the supports' responses weighted by covariance [S, Q] with the query."""
    total = weight.abs().sum(0)[:, None]
    return torch.where(total > 0, (weight.T @ values) / total.clamp_min(1e-12), fallback)


def _similar_sharper(covariance: Tensor, values: Tensor) -> list[Tensor]:
    """Return mean and spread [Q, G] over the most similar conditions: whether neighbours agree about a gene."""
    found = []
    for power in SHARPER:
        weight = covariance.abs() ** power
        weight = weight / weight.sum(0).clamp_min(1e-30)
        mean = (weight * covariance.sign()).T @ values
        found += [mean, (weight.T @ values.square() - mean.square()).clamp_min(0).sqrt()]
    return found


def _controls(bank: Bank, scene: Scene) -> tuple[Tensor, Tensor]:
    if bank.control is None:
        nothing = bank.effects.new_zeros(bank.effects.shape[1])
        return nothing, nothing
    others = [number for number in range(len(bank.contexts)) if number != scene.context]
    elsewhere = bank.control[others].mean(0) if others else bank.control[scene.context]
    return (bank.control[scene.context] if scene.context >= 0 else elsewhere), elsewhere
