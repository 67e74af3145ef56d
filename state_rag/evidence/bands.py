"""Bands of directions of response, each with noise and variances of its own.

With one covariance for all genes, kriging takes the same weights along every direction of response. Yet along the first
principal directions of what was measured effects are many times the noise, and along the last there is hardly anything
else. So noise, the part that contexts share, each context's own, and that of the same perturbation are multiplied by
numbers of a band of directions, and each band has weights of its own; kernels are the same. Regressions of their own
for principal components of a response are those of Higdon et al., "Computer model calibration using high-dimensional
output" (2008).
"""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from state_rag.evidence.bank import Bank
from state_rag.evidence.kriging import BAND_EDGES, Answer, KernelWeights, Scene, apply
from state_rag.evidence.prior import Prior, prior_of

EXACT, OVERSAMPLED = 200, 10
"""Up to so many conditions or genes directions are exact; beyond it by randomised iterations with so many more."""


class Spread:
    """How far the effects of a scene's supports are from their prior, and along which directions; made when asked for.

    Parameters
    ----------
    bank, scene, weights
        Of the question.
    values
        [S, G]: effects of the supports.
    """

    def __init__(self, bank: Bank, scene: Scene, weights: KernelWeights, values: Tensor) -> None:
        self.bank, self.scene, self.weights, self.values = bank, scene, weights, values

    @cached_property
    def prior(self) -> Prior:
        """The prior mean."""
        return prior_of(self.bank, self.scene, self.weights, self.values)

    @cached_property
    def deviations(self) -> Tensor:
        """[S, G]: of the supports' effects from their prior."""
        bank, supports = self.bank, self.scene.supports
        return self.values - self.prior.of(bank.context[supports], bank.perturbation[supports])

    @cached_property
    def directions(self) -> Tensor:
        """[<=100, G]: principal directions of the deviations."""
        return directions_of(self.deviations)

    @cached_property
    def along(self) -> Tensor:
        """[S, <=100]: the deviations along these."""
        return self.deviations @ self.directions.T


def banded(answer: Answer, spread: Spread) -> Tensor:
    """Return the predicted effects [Q, G]: prior mean plus, band by band, weighted deviations of the supports from it.

    Parameters
    ----------
    answer
        Of `krige`.
    spread
        Of its scene.
    """
    if answer.by_band is None:
        return apply(answer, spread.bank, spread.scene, spread.weights, spread.values)
    prior, parts = along_bands(answer, spread)
    return prior + parts.sum(0)


def along_bands(answer: Answer, spread: Spread) -> tuple[Tensor, Tensor]:
    """Return the prior mean [Q, G], and what the supports add to it along each band [bands, Q, G].

    Parameters are those of `banded`.
    """
    values, scene, along, directions = spread.values, spread.scene, spread.along, spread.directions
    by_band = [answer.weight] * (len(BAND_EDGES) + 1) if answer.by_band is None else list(answer.by_band)
    weight = [one.T.to(values.dtype) for one in by_band]
    parts = [values.new_zeros(len(scene.queries), values.shape[1]) for _ in BAND_EDGES]
    rest = weight[-1] @ spread.deviations - weight[-1] @ along @ directions
    for band, places in enumerate(bands_of(len(directions))):
        parts[band] = weight[band] @ along[:, places] @ directions[places]
    return spread.prior.at(scene.context, scene.queries), torch.stack([*parts, rest])


def contributions(answer: Answer, spread: Spread) -> Tensor:
    """Return what each support adds to the prediction of a single query [S, G]; parameters are those of `banded`."""
    if answer.by_band is None:
        return answer.weight[:, :1] * spread.deviations
    weight = answer.by_band[:, :, 0].to(spread.values.dtype)
    found = weight[-1][:, None] * spread.deviations
    for band, places in enumerate(bands_of(len(spread.directions))):
        found += ((weight[band] - weight[-1])[:, None] * spread.along[:, places]) @ spread.directions[places]
    return found


def overall_weights(answer: Answer, spread: Spread) -> Tensor:
    """Return how many times its deviation each support adds to each query [S, Q], by regression over genes.

    Parameters are those of `banded`.
    """
    if answer.by_band is None:
        return answer.weight
    along = spread.along.square()
    total = spread.deviations.square().sum(1).clamp_min(1e-300)
    shares = [along[:, places].sum(1) / total for places in bands_of(along.shape[1])]
    shares += [torch.zeros_like(total)] * (len(BAND_EDGES) - len(shares))
    rest = (1 - torch.stack(shares).sum(0)).clamp_min(0)
    return torch.einsum("bs,bsq->sq", torch.stack([*shares, rest]).to(answer.by_band.dtype), answer.by_band)


def directions_of(deviations: Tensor) -> Tensor:
    """Return the first principal directions of deviations [S, G], in rows of length 1, at most `BAND_EDGES[-1]`.

    Nothing is centred, since deviations are from a prior mean. The sign of a direction means nothing.
    """
    with torch.no_grad():
        count = min(BAND_EDGES[-1], *deviations.shape)
        if min(deviations.shape) <= EXACT:
            _, sizes, rows = torch.linalg.svd(deviations, full_matrices=False)
            sizes, rows = sizes[:count], rows[:count]
        else:
            # its draws are from torch's global stream, which belongs to the caller
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                _, sizes, columns = torch.svd_lowrank(deviations.float(), count + OVERSAMPLED, niter=3)
            sizes, rows = sizes[:count], columns.T[:count]
        there = sizes > 1e-6 * sizes[:1].clamp_min(1e-30)
        return rows[there].to(deviations.dtype)


def bands_of(n_directions: int) -> list[slice]:
    """Return the places of each band but the last among the first directions; the last has all others."""
    starts = (0, *BAND_EDGES[:-1])
    return [
        slice(start, min(end, n_directions))
        for start, end in zip(starts, BAND_EDGES, strict=True)
        if start < n_directions
    ]
