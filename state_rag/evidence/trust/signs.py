"""What tells beforehand how right a prediction will be; the answers are not at hand."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from state_rag.evidence.answering import Answered
from state_rag.evidence.bank import Bank
from state_rag.evidence.fusion import correlations
from state_rag.evidence.gene_features import ESTIMATES, FEATURES
from state_rag.evidence.kriging import KernelWeights

SIGNS = (
    "size",
    "own size",
    "share told",
    "variance told",
    "likeness",
    "cells",
    "agrees with kriging",
    "agrees with ridge",
    "agrees with similar conditions",
    "agrees with the same perturbation elsewhere",
    "size elsewhere",
    "lines elsewhere",
)
"""Columns of `Signs.values`, in each of which more is better. Sizes are logarithms of deviations over genes, agreements
correlations over genes."""

ALIKE = 0.3
"""Covariance of a similar condition with the query, as a share of the prior variance."""

AGREES = 0.3
"""Correlation over genes from which the same perturbation in another context agrees with a prediction."""

TINY = 1e-6


@dataclass(frozen=True)
class Signs:
    """Of the queries of a scene.

    Attributes
    ----------
    values
        float64 [Q, len(SIGNS)].
    agreeing, elsewhere
        Int [Q]: other contexts where the same perturbation was measured and did what is predicted, and all such.
    alike
        Int [Q]: other perturbations that were measured and are similar.
    treated
        Whether labels tell modes, doses or times, so that `agreeing` and `elsewhere` count all those of a name.
    """

    values: np.ndarray
    agreeing: np.ndarray
    elsewhere: np.ndarray
    alike: np.ndarray
    treated: bool = False


def signs_of(bank: Bank, answered: Answered, weights: KernelWeights) -> Signs:
    """Return the signs of the queries.

    Parameters
    ----------
    bank
        Measured responses.
    answered
        A scene answered with `with_genes`.
    weights
        Numbers of the covariance.
    """
    scene, answer, predicted, seen = answered.scene, answered.answer, answered.values, answered.seen
    assert seen is not None  # of `with_genes`
    supports = answered.spread.values
    prior = answered.spread.prior.at(scene.context, scene.queries)
    prior_variance = weights.prior_variances(bank, scene.queries).clamp_min(TINY)
    estimates = dict(zip(ESTIMATES, seen.estimates.double(), strict=True))
    square = seen.features[FEATURES.index("square")].double().mean(1).clamp_min(TINY)
    same = bank.named[bank.perturbation[scene.supports]][:, None] == bank.named[scene.queries][None]
    count = same.sum(0)
    weight = answer.weight.abs()
    share = weight / weight.sum(0).clamp_min(TINY)
    covariance = answer.covariance
    others = (covariance if bank.treatments is None else covariance.abs()).masked_fill(same, 0.0)
    there = (count > 0).double()
    elsewhere = correlations(predicted, estimates["same perturbation elsewhere"])
    columns = [
        _size(predicted),
        _size(predicted - prior),
        (predicted.square().mean(1).clamp_min(TINY) / square).log(),
        1 - answer.variance / prior_variance,
        others.amax(0) / prior_variance,
        (share * bank.scarcity[scene.supports][:, None]).sum(0).clamp_min(TINY).log().neg(),
        correlations(predicted, estimates["co-kriging"]),
        correlations(predicted, estimates["ridge"]),
        correlations(predicted, estimates["similar conditions"]),
        elsewhere * there,
        _size(estimates["same perturbation elsewhere"]) * there,
        count.double().log1p(),
    ]
    agreeing = torch.zeros(len(scene.queries), dtype=torch.long)
    for query, rows in enumerate(same.T):
        if rows.any():
            own = supports[rows]
            if bank.treatments is not None:  # what does the opposite agrees where it was measured so
                own = own * covariance[rows, query].sign()[:, None]
            agreeing[query] = (correlations(own, predicted[query].expand_as(own)) >= AGREES).sum()
    distinct, place = torch.unique(bank.perturbation[scene.supports], return_inverse=True)
    alike = _any_of(others >= ALIKE * prior_variance, place, len(distinct))
    counts = agreeing.numpy(), count.numpy(), alike.sum(0).numpy()
    return Signs(torch.stack(columns, 1).detach().numpy(), *counts, bank.treatments is not None)


def _any_of(near: Tensor, place: Tensor, n_distinct: int) -> Tensor:
    return torch.zeros(n_distinct, near.shape[1]).index_add_(0, place, near.float()) > 0


def _size(values: Tensor) -> Tensor:
    return values.std(1, correction=0).clamp_min(TINY).log()
