"""Co-kriging: one Gaussian process over (context, perturbation), with the same weights for all genes.

The covariance of two conditions is

    K((c, p), (c', p')) = sum_j k_j(p, p') (e^f_j + e^g_j [c = c']) + e^s [p = p'] + e^o [c = c'] [p = p']

(a part shared by contexts, a part of the context, and what a perturbation does whatever it resembles), the prior mean
that of a context. Where labels tell modes, doses or times, K is multiplied by a factor of these (`treatments`), and the
prior mean is that of a context and mode. Predictions are the regression of Rasmussen and Williams, "Gaussian Processes
for Machine Learning" (2006), equations 2.25 and 2.26, and the shared part is an intrinsic coregionalisation (Goovaerts
1997).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from state_rag.evidence.bank import Bank
from state_rag.evidence.conjugate import Parts, conjugate_solve
from state_rag.evidence.prior import prior_of
from state_rag.evidence.similarity import Similarity
from state_rag.evidence.treatments import Axes, TreatmentWeights

JITTER = 1e-6
"""Added to the diagonal, as a share of its mean, and tenfold again until a factor exists."""

BLOCK = 512
"""Conditions whose kernels are made at a time."""

BAND_EDGES = (30, 100)
"""Where bands of principal directions of response end (`bands`); a last one has all further directions."""

FEW_QUERIES, MANY_SUPPORTS = 4, 1500
"""Up to so many queries of more than so many supports are solved by conjugate gradients, without a factor."""


class KernelWeights(nn.Module):
    """The numbers of the covariance, as logarithms, and those of the prior mean.

    `bands` [3, 4] has what the shared part, the own part, that of the same perturbation and the noise are multiplied by
    for each band of directions; all 0 where bands do not differ.

    Parameters
    ----------
    n_kernels
        J.
    axes
        What labels tell of modes, doses and times; None where they are names.
    """

    def __init__(self, n_kernels: int, axes: Axes | None = None) -> None:
        super().__init__()
        self.treatments = None if axes is None else TreatmentWeights(axes)

        def number(value: float, *shape: int) -> nn.Parameter:
            return nn.Parameter(torch.full(shape, value, dtype=torch.float64))

        self.shared = number(-1.0, n_kernels)
        self.own = number(-1.0, n_kernels)
        self.same = number(-1.0)
        self.noise = number(0.0)
        self.scarcity = number(-1.0)
        self.shrink = number(2.0)
        self.borrow = number(0.0)
        self.bands = number(0.0, len(BAND_EDGES) + 1, 4)

    def parts(self, stack: Tensor) -> tuple[Tensor, Tensor]:
        """Return what contexts share and what each has of its own, float64 [A, B] each, from kernels [J, A, B]."""
        weights = torch.stack([self.shared, self.own]).exp().to(stack.dtype)
        parts = torch.einsum("wj,jab->wab", weights, stack).to(torch.float64)
        return parts[0], parts[1]

    def prior_variance(self) -> Tensor:
        """Return K of a condition with itself, of one whose label tells no more than a name and a mode."""
        return self.shared.exp().sum() + self.own.exp().sum() + self.same.exp()

    def prior_variances(self, bank: Bank, perturbations: Tensor) -> Tensor:
        """Return K of conditions with themselves, a scalar where it is the same for all, else [A]."""
        variance = self.prior_variance()
        if self.treatments is None or bank.treatments is None:
            return variance
        factor = self.treatments.variance(bank.treatments, perturbations)
        return variance if factor is None else variance * factor

    def prior_shares(self, bank: Bank, perturbations: Tensor) -> Tensor | None:
        """Return what the prior mean of perturbations is multiplied by [A]; None where it is 1 throughout."""
        if self.treatments is None or bank.treatments is None:
            return None
        return self.treatments.mean(bank.treatments, perturbations)

    def noise_of(self, scarcity: Tensor) -> Tensor:
        """Return the noise [N] on the diagonal: a part that all conditions have, and one that falls with cells."""
        return self.noise.exp() + self.scarcity.exp() * scarcity


def parts_among(
    similarity: Similarity,
    weights: KernelWeights,
    rows: Tensor,
    columns: Tensor,
    context: int,
    hidden: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the parts of the covariance of perturbations: shared and own, float64 [A, B], and that of the same one.

    The last is a scalar, added where a perturbation is itself; where labels tell treatments it is in the shared part
    already, and 0.

    Parameters
    ----------
    similarity, weights
        Kernels, and numbers of the covariance.
    rows, columns, context, hidden
        As for `Similarity.stack`.
    """
    shared, own = weights.parts(similarity.stack(rows, columns, context, hidden))
    same, told = weights.same.exp(), similarity.treatments
    if weights.treatments is None or told is None:
        return shared, own, same
    factor = weights.treatments.factor(told, rows, columns)
    return (shared + same * similarity.same(rows, columns)) * factor, own * factor, torch.zeros_like(same)


@dataclass(frozen=True)
class Scene:
    """What is asked, and what may be looked at to answer it.

    Attributes
    ----------
    context
        The context asked about; -1 for one without any response.
    queries
        Perturbations asked about, long [Q].
    supports
        Rows of the bank that may be looked at, long [S].
    hidden
        Bool [P]: perturbations treated as measured nowhere; None for none.
    """

    context: int
    queries: Tensor
    supports: Tensor
    hidden: Tensor | None = None


class _Solve(torch.autograd.Function):
    """Return `matrix^-1 right` for a symmetric positive definite matrix; backward reuses its Cholesky factor."""

    @staticmethod
    def forward(ctx: Any, matrix: Tensor, right: Tensor) -> Tensor:
        factor = factorise(matrix)
        solution = torch.cholesky_solve(right, factor)
        ctx.save_for_backward(factor, solution)
        return solution

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        factor, solution = ctx.saved_tensors
        back = torch.cholesky_solve(gradients[0], factor)
        return -back @ solution.T, back


def factorise(matrix: Tensor) -> Tensor:
    """Return the lower Cholesky factor of a symmetric matrix, with as much jitter as it takes.

    Cut powers of cosines are not exactly positive semi-definite, so that the noise may be too little.
    """
    jitter = JITTER * matrix.diagonal().mean()
    for _ in range(8):
        padded = matrix.clone()
        padded.diagonal().add_(jitter)
        factor, failed = torch.linalg.cholesky_ex(padded)
        if not failed:
            return factor
        jitter = jitter * 10
    raise ArithmeticError("the covariance of the supports has no Cholesky factor")  # jitter of 10 % always suffices


def solve(matrix: Tensor, right: Tensor) -> Tensor:
    """Return `matrix^-1 right`, differentiable; matrix [S, S] symmetric positive definite, right [S, Q]."""
    solution: Tensor = _Solve.apply(matrix, right)
    return solution


@dataclass(frozen=True)
class Answer:
    """What kriging says about the queries of a scene.

    Attributes
    ----------
    weight
        float64 [S, Q]: of each support in each query's prediction.
    covariance
        float64 [S, Q]: of each support with each query.
    variance
        float64 [Q]: left over after looking at the supports.
    by_band
        float64 [bands, S, Q]: of each support in each query's prediction along the directions of a band; None where
        bands do not differ.
    """

    weight: Tensor
    covariance: Tensor
    variance: Tensor
    by_band: Tensor | None = None


def krige(
    bank: Bank, scene: Scene, weights: KernelWeights, similarity: Similarity, *, with_bands: bool = True
) -> Answer:
    """Return the weights of the supports and the variance of each query.

    Parameters
    ----------
    bank
        Measured responses.
    scene
        The question.
    weights
        Numbers of the covariance.
    similarity
        The kernels of the bank's perturbations.
    with_bands
        Whether weights by band are wanted where bands differ; solving for each takes as long as for all.
    """
    support, query = bank.perturbation[scene.supports], scene.queries
    context = bank.context[scene.supports]
    # kernels among distinct perturbations, since a perturbation is a support in several contexts
    distinct, place = torch.unique(torch.cat([support, query]), return_inverse=True)
    at, asked = place[: len(support)], place[len(support) :]
    shared, own, same = parts_among(similarity, weights, distinct, distinct, scene.context, scene.hidden)
    noise = weights.noise_of(bank.scarcity[scene.supports])
    here = (context == scene.context)[:, None]
    of_shared, of_own = pick(shared, at, asked), pick(own, at, asked) * here
    of_same = same * (support[:, None] == query[None])
    cross = of_shared + of_own + of_same
    several = with_bands and (weights.bands.requires_grad or bool(weights.bands.any()))
    factors = [torch.ones_like(weights.bands[0]), *(weights.bands.exp() if several else ())]
    crosses = [cross, *(one[0] * of_shared + one[1] * of_own + one[2] * of_same for one in factors[1:])]
    found: list[Tensor] = []
    if len(query) <= FEW_QUERIES and len(support) > MANY_SUPPORTS and not cross.requires_grad:
        for one, right in zip(factors, crosses, strict=True):
            solved = conjugate_solve(
                Parts(one[0] * shared, one[1] * own, one[2] * same, one[3] * noise, at, context), right
            )
            found += [] if solved is None else [solved]
    if len(found) < len(factors):
        # with all supports each of these matrices is hundreds of megabytes
        within = pick(own, at, at).mul_(context[:, None] == context[None])
        between, itself = pick(shared, at, at), support[:, None] == support[None]
        found = []
        for one, right in zip(factors, crosses, strict=True):
            among = (one[1] * within).add_(one[0] * between).add_(one[2] * same * itself)
            among.diagonal().add_(one[3] * noise)
            found.append(solve(among, right))
    weight = found[0]
    variance = weights.prior_variances(bank, query) - (weight * cross).sum(0)
    return Answer(weight, cross, variance.clamp_min(0), torch.stack(found[1:]) if len(found) > 1 else None)


def nearest(bank: Bank, scene: Scene, weights: KernelWeights, similarity: Similarity, limit: int) -> Scene:
    """Return the scene with the supports alone that have the highest covariance with a query, `limit` of them at most.

    A solve takes time with the cube of the supports, and far ones weigh next to nothing.
    """
    if len(scene.supports) <= limit or not len(scene.queries):
        return scene
    support = bank.perturbation[scene.supports]
    here = (bank.context[scene.supports] == scene.context)[:, None]
    distinct, at = torch.unique(support, return_inverse=True)
    best = torch.full((len(support),), -torch.inf, dtype=torch.float64)
    for queries in scene.queries.split(64):
        shared, own, same = parts_among(similarity, weights, distinct, queries, scene.context, scene.hidden)
        covariance = shared[at] + own[at] * here + same * (support[:, None] == queries[None])
        # the opposite tells as much
        told = covariance if weights.treatments is None else covariance.abs()
        best = torch.maximum(best, told.amax(1))
    chosen = torch.argsort(best, descending=True, stable=True)[:limit]
    return replace(scene, supports=scene.supports[chosen.sort().values])


def pick(matrix: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return `matrix[rows][:, columns]`."""
    return matrix.index_select(0, rows).index_select(1, columns)


def covariance(
    similarity: Similarity,
    weights: KernelWeights,
    context: int,
    rows: tuple[Tensor, Tensor],
    columns: tuple[Tensor, Tensor],
) -> Tensor:
    """Return K of conditions without noise, float32 [A, B], made block by block.

    Parameters
    ----------
    similarity, weights
        Kernels, and numbers of the covariance.
    context
        From which similarities are seen; below 0 for one without any response.
    rows, columns
        Conditions: numbers of contexts, and of perturbations.
    """
    found = torch.empty(len(rows[1]), len(columns[1]))
    distinct, at = torch.unique(rows[1], return_inverse=True)
    for start in range(0, len(columns[1]), BLOCK):
        contexts, perturbations = (part[start : start + BLOCK] for part in columns)
        named, to = torch.unique(perturbations, return_inverse=True)
        parts = parts_among(similarity, weights, distinct, named, max(context, -1))
        shared, own, same = (part.float() for part in parts)
        block = pick(own, at, to).mul_(rows[0][:, None] == contexts[None])
        block.add_(pick(shared, at, to))
        block.add_(same * (rows[1][:, None] == perturbations[None]))
        found[:, start : start + BLOCK] = block
    return found


def apply(answer: Answer, bank: Bank, scene: Scene, weights: KernelWeights, values: Tensor) -> Tensor:
    """Return the prediction [Q, G] for values [S, G] of the supports: prior mean plus weighted deviations from it."""
    prior = prior_of(bank, scene, weights, values)
    weight, supports = answer.weight.T.to(values.dtype), bank.perturbation[scene.supports]
    group, shares = prior.group(bank.context[scene.supports], supports), prior.shares(supports)
    on_means = weight if shares is None else weight * shares.to(values.dtype)
    # the deviations are never made: they would be as large as the values, once for each function of them
    by_group = weight.new_zeros(len(weight), len(prior.means)).index_add_(1, group, on_means)
    return prior.at(scene.context, scene.queries) + weight @ values - by_group @ prior.means
