"""Retrieval without a selector: attention over the neighbours by embedding (vanilla RAG)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from state_rag.retrieval.retriever import Base, Retrieved, TableRetriever


class CandidateAttention(TableRetriever):
    """Single-head cross-attention from cells to their set's candidates (vanilla RAG; PT-RAG's baseline).

    Keys and values are computed once for each distinct candidate of the batch.

    Parameters
    ----------
    embedding_dim
        D, width of the candidates as given, which a layer of this module's own projects to H. None when they are
        H wide already (hidden-space retrieval), and there is no such layer.
    hidden_dim
        H.
    sources
        M, sources of knowledge; of several each is trusted by a learned term of the score.
    """

    def __init__(self, embedding_dim: int | None, hidden_dim: int, sources: int = 1) -> None:
        super().__init__(sources)
        self.hidden_dim = hidden_dim
        self.project = None if embedding_dim is None else nn.Linear(embedding_dim, hidden_dim)
        self.query = nn.Linear(hidden_dim, hidden_dim)
        self.key = nn.Linear(hidden_dim, hidden_dim)
        self.value = nn.Linear(hidden_dim, hidden_dim)

    @classmethod
    def built_for(cls, settings: Any, *, hidden_dim: int, embedding_dim: int, dropout: float) -> CandidateAttention:
        """Return the module for a run; see `Retriever.built_for`."""
        return cls(embedding_dim, hidden_dim, len(settings.sources))

    def forward(
        self,
        cells: Tensor,
        query: Tensor,
        rows: Tensor,
        base: Base,
        told: Tensor | None = None,
        keep: Tensor | None = None,
    ) -> Retrieved:
        """Look up the candidates of R sets and attend; see `Retriever.forward`. `told` changes nothing."""
        found = self.look_up(rows, base, cells.device)
        asked = self.query(cells + query[:, None, :])
        context, weights = self.attend(asked, found.embeddings, found.index, keep, self.trusted(found))
        return Retrieved(context, found.rows, found.similarity, weights, proposed=found.proposed)

    def attend(
        self,
        asked: Tensor,
        candidates: Tensor,
        index: Tensor,
        keep: Tensor | None = None,
        trusted: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Attend.

        Parameters
        ----------
        asked
            Encoded cells plus encoded perturbation, after the layer `query`. [B, S, H]
        candidates
            Distinct candidates [N, D], or [N, H] without a projection.
        index
            Each set's candidates, long [B, K] into `candidates`.
        keep
            Factor on each candidate's weight [B, K]; 0 switches a candidate off and leaves the others as they are.
        trusted
            What is added to each candidate's score [B, K].

        Returns
        -------
        context, weights
            [B, S, H] and [B, S, K]; the weights of a cell sum to 1 unless `keep` takes some away.
        """
        hidden = candidates if self.project is None else self.project(candidates)
        keys, values = self.key(hidden)[index], self.value(hidden)[index]
        scores = torch.bmm(asked, keys.transpose(1, 2)) / math.sqrt(self.hidden_dim)
        if trusted is not None:
            scores = scores + trusted.to(scores.dtype).unsqueeze(1)
        weights = torch.softmax(scores, dim=-1)
        if keep is not None:
            weights = weights * keep.to(weights).unsqueeze(1)
        return torch.bmm(weights.to(values.dtype), values), weights
