"""How much each source counts in a learned covariance, and what it is without some."""

from __future__ import annotations

import copy
from collections.abc import Collection

import torch

from state_rag.evidence.kriging import KernelWeights
from state_rag.evidence.similarity import Similarity


def source_weights(weights: KernelWeights, similarity: Similarity) -> dict[str, float]:
    """Return the share of each source in the variance that likeness explains; shares add up to 1.

    A source that was dropped has 0.

    Parameters
    ----------
    weights
        Numbers of the covariance.
    similarity
        Its kernels.
    """
    size = (weights.shared.detach().exp() + weights.own.detach().exp()).tolist()
    total = max(sum(size), 1e-300)
    shares = dict.fromkeys(similarity.names, 0.0)
    for kernel, one in zip(similarity.kernels, size, strict=True):
        shares[kernel.source] += one / total
    return shares


def without_sources(weights: KernelWeights, similarity: Similarity, names: Collection[str]) -> KernelWeights:
    """Return numbers of the covariance in which some sources count for nothing, their variance as nugget and noise.

    Parameters
    ----------
    weights, similarity
        As for `source_weights`.
    names
        Sources to leave out.
    """
    found = copy.deepcopy(weights)
    gone = torch.tensor([kernel.source in names for kernel in similarity.kernels])
    with torch.no_grad():
        found.same.copy_((found.same.exp() + found.shared.exp()[gone].sum()).log())
        found.noise.copy_((found.noise.exp() + found.own.exp()[gone].sum()).log())
        found.shared[gone] = -torch.inf
        found.own[gone] = -torch.inf
    return found
