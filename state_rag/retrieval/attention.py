"""Retrieval without a selector: attention over text neighbours (vanilla RAG) or over neighbours in hidden space."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from state_rag.retrieval.neighbours import distinct, top_neighbours


class CandidateAttention(nn.Module):
    """Single-head cross-attention from cells to their set's candidates (vanilla RAG; PT-RAG's baseline).

    Keys and values are computed once for each distinct candidate of the batch.

    Parameters
    ----------
    embedding_dim
        D, width of the candidates as given, which a layer of this module's own projects to H. None when they are
        H wide already (hidden-space retrieval), and there is no such layer.
    hidden_dim
        H.
    """

    def __init__(self, embedding_dim: int | None, hidden_dim: int) -> None:
        super().__init__()
        self.hidden_dim = hidden_dim
        self.project = None if embedding_dim is None else nn.Linear(embedding_dim, hidden_dim)
        self.query = nn.Linear(hidden_dim, hidden_dim)
        self.key = nn.Linear(hidden_dim, hidden_dim)
        self.value = nn.Linear(hidden_dim, hidden_dim)

    def forward(
        self, combined: Tensor, candidates: Tensor, index: Tensor, keep: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Attend.

        Parameters
        ----------
        combined
            Encoded cells plus encoded perturbation [B, S, H].
        candidates
            Distinct candidates [N, D], or [N, H] without a projection.
        index
            Each set's candidates, long [B, K] into `candidates`.
        keep
            Factor on each candidate's weight [B, K]; 0 switches a candidate off and leaves the others as they are.

        Returns
        -------
        context, weights
            [B, S, H] and [B, S, K]; the weights of a cell sum to 1 unless `keep` takes some away.
        """
        return self.attend(self.query(combined), candidates, index, keep)

    def attend(
        self, query: Tensor, candidates: Tensor, index: Tensor, keep: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Attend with queries [B, S, H] that have passed the query layer already; otherwise as `forward`."""
        hidden = candidates if self.project is None else self.project(candidates)
        keys, values = self.key(hidden)[index], self.value(hidden)[index]
        scores = torch.bmm(query, keys.transpose(1, 2)) / math.sqrt(self.hidden_dim)
        weights = torch.softmax(scores, dim=-1)
        if keep is not None:
            weights = weights * keep.to(weights).unsqueeze(1)
        return torch.bmm(weights.to(values.dtype), values), weights

    def zero_weight_terms(self) -> Tensor:
        """Return a scalar 0 that depends on every parameter, for batches without a retrieved set."""
        return torch.stack([parameter.sum() for parameter in self.parameters()]).sum() * 0.0


class HiddenSpaceRetrieval(nn.Module):
    """Retrieve in the space of encoded perturbations, then attend (`retrieve_than_predict=false`).

    The caller encodes the base with current weights; no gradient flows into it.

    Parameters
    ----------
    hidden_dim
        H.
    k
        Candidates of each set.
    rag_weight
        Above 0 the output is `query(combined) + rag_weight * context`; otherwise the context alone.
    """

    def __init__(self, hidden_dim: int, k: int, rag_weight: float = 0.0) -> None:
        super().__init__()
        self.k = k
        self.rag_weight = rag_weight
        self.attention = CandidateAttention(None, hidden_dim)

    def forward(
        self, combined: Tensor, base: Tensor, query: Tensor, own: Tensor, keep: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Retrieve and attend.

        Parameters
        ----------
        combined
            Encoded cells plus encoded perturbation [B, S, H].
        base
            Encoded base [P, H].
        query
            Encoded perturbation of each set [B, H].
        own
            Long [B]: each set's own row in the base, which is left out; -1 leaves nothing out.
        keep
            As in `CandidateAttention.forward`.

        Returns
        -------
        output, weights, index, similarity
            [B, S, H], [B, S, K], rows of the base [B, K], cosines [B, K].
        """
        base = base.detach()
        index, similarity = top_neighbours(query.detach(), base, self.k, own)
        rows, local = distinct(index)
        asked = self.attention.query(combined)
        context, weights = self.attention.attend(asked, base[rows], local, keep)
        output = asked + self.rag_weight * context if self.rag_weight > 0 else context
        return output, weights, index, similarity

    def zero_weight_terms(self) -> Tensor:
        """Return a scalar 0 that depends on every parameter, for batches without a retrieved set."""
        return self.attention.zero_weight_terms()
