"""Stage 2, differentiable: which candidate helps which cell, and the context that follows (PT-RAG, section 1.3).

The published form, for cell x, query perturbation p and candidate k, each of width H: the triplet
`c_k = LayerNorm([x ; p ; k])`, two logits from `Linear(3H,H) -> GELU -> Dropout -> Linear(H,2)`, a straight-through
Gumbel-softmax that gives `w_k`, `h'_k = Linear(3H,H)(c_k)`, and the context `z = sum_k w_k h'_k`.

Here the triplet is never built (`state_rag.retrieval.triplets`): its layers are r (u + v_k) + c0 with u for the cell,
v_k for set and candidate, and r the triplet's inverse deviation, so that

    z = (sum_k w_k r_k) u + sum_k (w_k r_k) v_k + (sum_k w_k) c0.

Of several sources of knowledge, `source_trust` adds to a candidate's score what those that propose it are worth.

Two additions of ours, off by default. A layer on a concatenation learns products of its parts poorly (Rendle et al.
2020, arXiv 2005.09683), so it hardly tells how alike p and k are; `similarity` gives the scores their cosine with a
learned weight. And as long as p itself is in every h'_k, no candidate is needed to know what p does; `told` leaves p
out of the context of some sets, which then depends on the right candidates.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from state_rag.retrieval.retriever import Base, Retrieved, TableRetriever
from state_rag.retrieval.scoring import score_in_blocks
from state_rag.retrieval.together import moments
from state_rag.retrieval.triplets import HardGate, triplets

SMALLEST_CHANCE = 2**-25
"""Uniform draws are multiples of 2**-24; 0 and 1 have no logit."""
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
    is_hard
        Whether every weight is 0 or 1.
    """

    context: Tensor
    include: Tensor
    scores: Tensor
    share: Tensor | None = None
    is_hard: bool = False

    @cached_property
    def sparsity(self) -> Tensor:
        """Mean weight (times `share`), a scalar with gradient; 0 when nothing was retrieved.

        The published loss is the L1 norm of the weights: its value is the mean, but its gradient is 0 where a
        candidate was left out, so that it only ever pushes down what was included.
        """
        return self._mean(self.include.abs())

    @property
    def active_ratio(self) -> Tensor:
        """Part of the (cell, candidate) pairs with a weight above one half (times `share`), as `sparsity`."""
        if self.is_hard:
            return self.sparsity.detach()
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

    halves: Tensor
    versions: Tensor
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
        block_elements: int = 2**24,
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
        self.register_buffer("halves", torch.tensor((-0.5, 0.5)), persistent=False)
        self.register_buffer("versions", torch.tensor(((1.0,), (0.0,))), persistent=False)
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
        terms = self._sparsity_terms(chosen.sparsity, chosen.active_ratio) if self.training else {}
        return Retrieved(
            chosen.context,
            found.rows,
            found.similarity,
            chosen.include,
            chosen.scores,
            proposed=found.proposed,
            **terms,
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
            made = triplets(
                cells.to(dtype),
                query.to(dtype),
                candidates.to(dtype),
                index,
                self.norm,
                (self.scorer_in, self.project),
                cosine=self.similarity_weight is not None,
            )
            inverse = made.inverse(None if told is None else self._versions(told.to(dtype)))
            scored, projected = inverse.unbind() if told is not None else (inverse, inverse)
            u, v = made.u.split(self.hidden_dim, -1), made.v().split(self.hidden_dim, -1)
            constants = made.constant.split(self.hidden_dim)
            logits = score_in_blocks(
                u[0],
                v[0],
                scored,
                constants[0],
                self.scorer_out.weight.to(dtype),
                self.scorer_out.bias.to(dtype),
                dropout=self.dropout if self.training else 0.0,
                block_elements=self.block_elements,
            )
            logits = self._with_terms(logits, made.cosine, trusted)
            scale, share = self._scale(logits)
            scores = logits / scale
            include = self._gate(scores, noise)
            if keep is not None:
                include = include * keep.to(dtype).unsqueeze(1)
            shown = v[1] if told is None else made.told(told.to(dtype)[:, None]).split(self.hidden_dim, -1)[1]
            weight = include * projected
            context = torch.addcmul(torch.bmm(weight, shown), weight.sum(-1, keepdim=True), u[1])
            context = torch.addcmul(context, include.sum(-1, keepdim=True), constants[1])
        return Selection(context, include, scores, share, is_hard=keep is None and self._draws)

    def _versions(self, told: Tensor) -> Tensor:
        """Return what queries are multiplied by, as scores see them and as the context does [2, B, 1]."""
        return torch.maximum(told, self.versions.to(told.dtype)).unsqueeze(-1)

    @property
    def _draws(self) -> bool:
        """Whether a candidate is chosen or not; else it counts by its probability."""
        return self.training or self.inference != "expected"

    def _with_terms(self, logits: Tensor, cosine: Tensor | None, trusted: Tensor | None) -> Tensor:
        """Return the logits [B, S, K, 2] with what is added to their difference for each candidate [B, K]."""
        term = None if trusted is None else trusted.to(logits.dtype)
        if cosine is not None:
            assert self.similarity_weight is not None
            weight = self.similarity_weight.to(logits.dtype)
            term = cosine * weight if term is None else torch.addcmul(term, cosine, weight)
        if term is None:
            return logits
        return torch.addcmul(logits, term[:, None, :, None], self.halves.to(logits.dtype))

    def _sparsity_terms(self, sparsity: Tensor, active: Tensor) -> dict[str, Any]:
        """Return the parts of `Retrieved` that say what a sparsity means for training."""
        loss = None if self.sparsity_weight is None else self.sparsity_weight * sparsity
        return {"loss": loss, "logged": {"gumbel_sparsity": sparsity.detach(), "gumbel_active_ratio": active}}

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
        usable = new - new == 0  # one bad batch, with NaN or infinity, must not spoil the average for good
        weight = (1 - self.score_batches).clamp(min=self.momentum)  # 1 for the first batch
        self.score_std.lerp_(torch.where(usable, new, self.score_std), weight.to(self.score_std))
        self.score_batches += usable

    def _gate(self, scores: Tensor, noise: Tensor | None) -> Tensor:
        """Return weights [B, S, K]; a softmax over two logits is a sigmoid of their difference."""
        difference = scores[..., 1] - scores[..., 0]
        if not self._draws:
            return torch.sigmoid(difference)
        if self.training or self.inference == "sample":
            if noise is None:
                # the difference of two standard Gumbel draws is a standard logistic one
                difference = difference + torch.rand_like(difference).logit_(SMALLEST_CHANCE)
            else:
                difference = difference + (noise[..., 1] - noise[..., 0]).to(difference.dtype)
        return HardGate.apply(difference, self.temperature)
