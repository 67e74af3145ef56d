"""Retrieval in the model's own encoding of perturbations, with its current weights, then attention."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from state_rag.retrieval.attention import CandidateAttention
from state_rag.retrieval.neighbours import distinct, top_neighbours
from state_rag.retrieval.retriever import Base, Retrieved, Retriever


class HiddenSpaceRetrieval(Retriever):
    """Retrieve in the space of encoded perturbations, then attend (`retrieve_than_predict=false`).

    The base is encoded anew with the current weights in every pass; no gradient flows into it.

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

    @classmethod
    def built_for(cls, settings: Any, *, hidden_dim: int, embedding_dim: int, dropout: float) -> HiddenSpaceRetrieval:
        """Return the module for a run; see `Retriever.built_for`."""
        return cls(hidden_dim, settings.topk_rag, settings.rag_weight)

    def forward(
        self,
        cells: Tensor,
        query: Tensor,
        rows: Tensor,
        base: Base,
        told: Tensor | None = None,
        keep: Tensor | None = None,
    ) -> Retrieved:
        """Encode the base, retrieve for R sets and attend; see `Retriever.forward`. `told` changes nothing."""
        combined = cells + query[:, None, :]
        own = torch.where(rows < base.knowledge.n_candidates, rows, torch.full_like(rows, -1))
        output, weights, candidates, similarity = self.retrieve(combined, base.encoded(), query, own, keep)
        return Retrieved(output, candidates, similarity, weights)

    def retrieve(
        self, combined: Tensor, encoded: Tensor, query: Tensor, own: Tensor, keep: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Retrieve and attend.

        Parameters
        ----------
        combined
            Encoded cells plus encoded perturbation [B, S, H].
        encoded
            Encoded base [P, H].
        query
            Encoded perturbation of each set [B, H].
        own
            Long [B]: each set's own row in the base, which is left out; -1 leaves nothing out.
        keep
            As in `CandidateAttention.attend`.

        Returns
        -------
        output, weights, index, similarity
            [B, S, H], [B, S, K], rows of the base [B, K], cosines [B, K].
        """
        encoded = encoded.detach()
        index, similarity = top_neighbours(query.detach(), encoded, self.k, own)
        rows, local = distinct(index)
        asked = self.attention.query(combined)
        context, weights = self.attention.attend(asked, encoded[rows], local, keep)
        output = asked + self.rag_weight * context if self.rag_weight > 0 else context
        return output, weights, index, similarity
