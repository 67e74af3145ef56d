"""Stage 2, differentiable: which candidate helps which cell, and the context that follows (PT-RAG, section 1.3).

The published form, for cell x, query perturbation p and candidate k, each of width H: the triplet
`c_k = LayerNorm([x ; p ; k])`, two logits from `Linear(3H,H) -> GELU -> Dropout -> Linear(H,2)`, a straight-through
Gumbel-softmax that gives `w_k`, `h'_k = Linear(3H,H)(c_k)`, and the context `z = sum_k w_k h'_k`.

Here the triplet is never built. With mean mu and inverse deviation r of the triplet, W' = W * gamma, its three parts
W'x, W'p, W'k, and s = W' 1,

    W LayerNorm(c_k) + b = r (u + v_k) + c0,
    u = W'x x - mean(x)/3 s,  v_k = W'p p + W'k k - (mean(p) + mean(k))/3 s,  c0 = W beta + b,

so that one product for each cell, set and distinct candidate replaces one for each (cell, candidate), and

    z = (sum_k w_k r_k) u + sum_k (w_k r_k) v_k + (sum_k w_k) c0.

Of several sources of knowledge, `source_trust` adds to a candidate's score what those that propose it are worth.

Two additions of ours, off by default. A layer on a concatenation learns products of its parts poorly (Rendle et al.
2020, arXiv 2005.09683), so it hardly tells how alike p and k are; `similarity` gives the scores their cosine with a
learned weight. And as long as p itself is in every h'_k, no candidate is needed to know what p does; `told` leaves p
out of the context of some sets, which then depends on the right candidates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from state_rag.retrieval.retriever import Base, Retrieved, TableRetriever
from state_rag.retrieval.scoring import score_in_blocks
from state_rag.retrieval.together import moments

SCORE_SCALES = ("running", "batch", "none")
INFERENCES = ("expected", "sample", "argmax")


@dataclass(frozen=True)
class Selection:
    """What the selector decided for B sets of S cells with K candidates each.

    Attributes
    ----------
    context
        [B, S, H], at least float32.
    include
        Weight of each candidate, [B, S, K]: 0 or 1 (with a soft gradient) where a choice was made, the probability
        of inclusion under `expected`.
    scores
        Scaled logits [B, S, K, 2]; the last axis is (exclude, include).
    share
        Where several processes train together: what a mean over this one's pairs is multiplied by, so that the mean
        over processes is the mean over all pairs.
    """

    context: Tensor
    include: Tensor
    scores: Tensor
    share: Tensor | None = None

    @property
    def sparsity(self) -> Tensor:
        """Mean weight (times `share`), a scalar with gradient; 0 when nothing was retrieved.

        The published loss is the L1 norm of the weights: its value is the mean, but its gradient is 0 where a
        candidate was left out, so that it only ever pushes down what was included.
        """
        return self._mean(self.include.abs())

    @property
    def active_ratio(self) -> Tensor:
        """Part of the (cell, candidate) pairs with a weight above one half (times `share`), as `sparsity`."""
        return self._mean((self.include.detach() > 0.5).to(self.include.dtype))

    def _mean(self, values: Tensor) -> Tensor:
        mean = values.mean() if values.numel() else values.sum()
        return mean if self.share is None else mean * self.share


class CandidateSelector(TableRetriever):
    """Score every (cell, candidate) pair, choose, and sum the chosen into a context.

    Parameters
    ----------
    hidden_dim
        H, width of encoded cells, queries and candidates.
    dropout
        Dropout of the scorer's hidden layer.
    temperature
        Tau of the Gumbel-softmax.
    score_scale
        What the logits are divided by. `batch`: their standard deviation over the batch, both logits together, as in
        the authors' code (a set's prediction then depends on its batch-mates). `running`: the same in training, which
        also feeds a running average that evaluation divides by. `none`: nothing.
    inference
        The gate in evaluation mode. `expected`: softmax(scores)[include], which is how often a hard Gumbel draw
        includes the candidate, so that it matches training and needs no noise. `sample`: the draw, as in the authors'
        code. `argmax`: the noise-free choice, which does not match training.
    momentum
        Weight of a new batch in the running average.
    block_elements
        Elements of the scorer's hidden layer [B, S, K, H] that may exist at a time, in forward and backward.
    similarity
        Whether a learned weight (1 at first) times the cosine of query and candidate is added to the difference of
        the two logits.
    sparsity_weight
        Lambda: how much of the mean inclusion is added to a training step's loss. None adds nothing.
    sources
        M, sources of knowledge; of several each is trusted by a learned term of the score.
    """

    score_std: Tensor
    score_batches: Tensor

    def __init__(
        self,
        hidden_dim: int,
        dropout: float = 0.1,
        *,
        temperature: float = 0.5,
        score_scale: str = "running",
        inference: str = "expected",
        momentum: float = 0.01,
        block_elements: int = 2**22,
        similarity: bool = False,
        sparsity_weight: float | None = None,
        sources: int = 1,
    ) -> None:
        super().__init__(sources)
        if score_scale not in SCORE_SCALES:
            raise ValueError(f"score_scale is {score_scale!r}, expected one of {', '.join(SCORE_SCALES)}")
        if inference not in INFERENCES:
            raise ValueError(f"inference is {inference!r}, expected one of {', '.join(INFERENCES)}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout is {dropout}, expected 0 <= dropout < 1")
        self.hidden_dim = hidden_dim
        self.dropout = dropout
        self.temperature = temperature
        self.score_scale = score_scale
        self.inference = inference
        self.momentum = momentum
        self.block_elements = block_elements
        self.sparsity_weight = sparsity_weight
        self.norm = nn.LayerNorm(3 * hidden_dim)
        self.scorer_in = nn.Linear(3 * hidden_dim, hidden_dim)
        self.scorer_out = nn.Linear(hidden_dim, 2)
        self.project = nn.Linear(3 * hidden_dim, hidden_dim)
        self.similarity_weight = nn.Parameter(torch.ones(())) if similarity else None
        self.register_buffer("score_std", torch.ones(()))
        self.register_buffer("score_batches", torch.zeros((), dtype=torch.long))

    @classmethod
    def built_for(cls, settings: Any, *, hidden_dim: int, embedding_dim: int, dropout: float) -> CandidateSelector:
        """Return the module for a run; see `Retriever.built_for`."""
        return cls(
            hidden_dim,
            dropout=dropout,
            temperature=settings.gumbel_temperature,
            score_scale=settings.rag_score_scale,
            inference=settings.rag_inference,
            similarity=settings.rag_score_similarity,
            sparsity_weight=settings.gumbel_sparsity_weight if settings.gumbel_sparsity_loss else None,
            sources=len(settings.sources),
        )

    def forward(
        self,
        cells: Tensor,
        query: Tensor,
        rows: Tensor,
        base: Base,
        told: Tensor | None = None,
        keep: Tensor | None = None,
    ) -> Retrieved:
        """Look up the candidates of R sets, encode and select them; see `Retriever.forward`."""
        found = self.look_up(rows, base, cells.device)
        encoded, trusted = base.encode(found.embeddings), self.trusted(found)
        chosen = self.select(cells, query, encoded, found.index, told=told, keep=keep, trusted=trusted)
        return Retrieved(
            chosen.context,
            found.rows,
            found.similarity,
            chosen.include,
            chosen.scores,
            proposed=found.proposed,
            **self._sparsity_terms(chosen.sparsity, chosen.active_ratio),
        )

    def nothing(self, cells: Tensor) -> Retrieved:
        """Return the answer for a batch of controls, whose mean inclusion is 0."""
        zero = cells.new_zeros((), dtype=torch.float32)
        terms = self._sparsity_terms(zero, zero)
        if self.together is not None:
            # the other processes may have sets to retrieve for, and wait for this one in both directions
            scale, _ = self._scale(zero[None][:0])
            terms["loss"] = torch.nan_to_num(torch.as_tensor(scale, device=zero.device)) * 0
        return Retrieved.nothing(cells[:0], **terms)

    def facts(self) -> dict[str, float | Tensor]:
        """Return the temperature and, where there are such, the running scale of scores and trust in each source."""
        running = {"score_scale": self.score_std} if self.score_scale == "running" else {}
        return {"temperature": float(self.temperature), **running, **super().facts()}

    @property
    def depends_on_the_set_alone(self) -> bool:
        """No where scores are scaled by the batch's deviation, or candidates are drawn by chance."""
        return self.score_scale != "batch" and self.inference != "sample"

    def without_chance(self) -> bool:
        """Have evaluation take the expectation in place of draws; return whether it drew before."""
        if self.inference != "sample":
            return False
        self.inference = "expected"
        return True

    def select(
        self,
        cells: Tensor,
        query: Tensor,
        candidates: Tensor,
        index: Tensor,
        noise: Tensor | None = None,
        keep: Tensor | None = None,
        told: Tensor | None = None,
        trusted: Tensor | None = None,
    ) -> Selection:
        """Choose candidates for each cell.

        Computed in float32 (float64 for float64 input) whatever the autocast state.

        Parameters
        ----------
        cells
            Encoded control cells [B, S, H].
        query
            Encoded perturbation of each set [B, H].
        candidates
            Encoded distinct candidates of the batch [N, H].
        index
            Each set's candidates, long [B, K] into `candidates`.
        noise
            Standard Gumbel noise [B, S, K, 2] to use instead of a draw. Only training and `sample` use noise.
        keep
            Factor on each candidate's weight [B, K]; 0 switches a candidate off and leaves the others as they are.
        told
            [B], 0 for a set whose context is made as if its query were the zero vector; the scores still see it.
        trusted
            What is added to the difference of each candidate's two logits [B, K], before they are scaled.
        """
        dtype = torch.promote_types(cells.dtype, torch.float32)
        with torch.autocast(cells.device.type, enabled=False):
            parts = (cells.to(dtype), query.to(dtype), candidates.to(dtype))
            centred, means, inverse = self._normalise(parts, index)
            u, v, constant = self._affine(self.scorer_in, centred, means, index)
            logits = score_in_blocks(
                u,
                v,
                inverse,
                constant,
                self.scorer_out.weight.to(dtype),
                self.scorer_out.bias.to(dtype),
                dropout=self.dropout if self.training else 0.0,
                block_elements=self.block_elements,
            )
            if self.similarity_weight is not None:
                logits = logits + self._similarity_logits(parts[1], parts[2], index)
            if trusted is not None:
                half = trusted.to(dtype)[:, None] / 2
                logits = logits + torch.stack((-half, half), -1)
            scale, share = self._scale(logits)
            scores = logits / scale
            include = self._gate(scores, noise)
            if keep is not None:
                include = include * keep.to(dtype).unsqueeze(1)
            if told is not None:
                parts = (parts[0], parts[1] * told.to(dtype).unsqueeze(-1), parts[2])
                centred, means, inverse = self._normalise(parts, index)
            u, v, constant = self._affine(self.project, centred, means, index)
            weight = include * inverse
            context = torch.addcmul(torch.bmm(weight, v), weight.sum(-1, keepdim=True), u)
            context = context + include.sum(-1, keepdim=True) * constant
        return Selection(context, include, scores, share)

    def _sparsity_terms(self, sparsity: Tensor, active: Tensor) -> dict[str, Any]:
        """Return the parts of `Retrieved` that say what a sparsity means for training."""
        loss = None if self.sparsity_weight is None else self.sparsity_weight * sparsity
        return {"loss": loss, "logged": {"gumbel_sparsity": sparsity.detach(), "gumbel_active_ratio": active}}

    def _normalise(
        self, parts: tuple[Tensor, ...], index: Tensor
    ) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...], Tensor]:
        """Return the parts less their means, the means, and the inverse deviation of every triplet."""
        centred, means, variances = zip(*(_moments(part) for part in parts), strict=True)
        return centred, means, self._inverse_deviation(means, variances, index)

    def _similarity_logits(self, query: Tensor, candidates: Tensor, index: Tensor) -> Tensor:
        """Return the weighted cosine of query and candidate as logits [B, 1, K, 2] of opposite sign."""
        assert self.similarity_weight is not None
        query, candidates = F.normalize(query, dim=-1), F.normalize(candidates, dim=-1)
        half = (candidates[index] * query.unsqueeze(1)).sum(-1) * self.similarity_weight.to(query.dtype) / 2
        return torch.stack((-half, half), -1).unsqueeze(1)

    def _inverse_deviation(self, means: tuple[Tensor, ...], variances: tuple[Tensor, ...], index: Tensor) -> Tensor:
        """Return 1 / sqrt(variance + eps) of every triplet, [B, S, K], from the moments of its parts."""
        mean = _spread(means, index)
        overall = sum(mean) / 3
        between = sum((part - overall).square() for part in mean)
        within = sum(_spread(variances, index))
        return torch.rsqrt((within + between) / 3 + self.norm.eps)

    def _affine(
        self, linear: nn.Linear, centred: tuple[Tensor, ...], means: tuple[Tensor, ...], index: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return u [B, S, H], v [B, K, H] and c0 [H] with `linear(norm(triplet)) = r (u + v) + c0`."""
        dtype = centred[0].dtype
        weight, bias = linear.weight.to(dtype), linear.bias.to(dtype)
        scaled = (weight * self.norm.weight.to(dtype)).unflatten(1, (3, self.hidden_dim))
        sums = scaled.sum(-1)
        third = sums.sum(1) / 3
        u, of_query, of_candidate = (
            F.linear(centred[part], scaled[:, part]) + means[part].unsqueeze(-1) * (sums[:, part] - third)
            for part in range(3)
        )
        return u, of_query.unsqueeze(1) + of_candidate[index], F.linear(self.norm.bias.to(dtype), weight, bias)

    def _scale(self, logits: Tensor) -> tuple[Tensor | float, Tensor | None]:
        """Return what logits are divided by, and the share of this process (see `Selection`)."""
        share = None
        if self.together is not None:
            deviation, share = moments(logits, self.together, self.scorer_out.bias.sum() * 0)
        if self.score_scale == "none":
            return 1.0, share
        if self.together is None:
            if not logits.numel():
                return 1.0, None
            if self.score_scale == "running" and not self.training:
                return self.score_std.to(logits.dtype), None
            deviation = logits.std()
        scale = deviation.clamp(min=1e-8)
        if self.score_scale == "running":
            self._remember(scale.detach())
        return scale, share

    @torch.no_grad()
    def _remember(self, scale: Tensor) -> None:
        new = scale.to(self.score_std)
        moved = torch.where(self.score_batches == 0, new, self.score_std.lerp(new, self.momentum))
        usable = torch.isfinite(new)  # one bad batch must not spoil the average for good
        self.score_std.copy_(torch.where(usable, moved, self.score_std))
        self.score_batches += usable

    def _gate(self, scores: Tensor, noise: Tensor | None) -> Tensor:
        """Return weights [B, S, K]; a softmax over two logits is a sigmoid of their difference."""
        difference = scores[..., 1] - scores[..., 0]
        if not self.training and self.inference == "expected":
            return torch.sigmoid(difference)
        if self.training or self.inference == "sample":
            if noise is None:
                noise = -torch.empty_like(scores).exponential_().log()
            difference = difference + (noise[..., 1] - noise[..., 0]).to(difference.dtype)
        soft = torch.sigmoid(difference / self.temperature)
        hard = (difference > 0).to(soft.dtype)
        return hard + (soft - soft.detach())  # the difference is exactly 0: w is exactly 0 or 1


def _moments(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the values less their mean, the mean and the biased variance over the last axis."""
    mean = values.mean(-1)
    centred = values - mean.unsqueeze(-1)
    return centred, mean, centred.square().mean(-1)


def _spread(moments: tuple[Tensor, ...], index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return one moment of cells [B, S], query [B] and candidates [N] in shapes that broadcast to [B, S, K]."""
    cells, query, candidates = moments
    return cells.unsqueeze(-1), query[:, None, None], candidates[index].unsqueeze(1)
