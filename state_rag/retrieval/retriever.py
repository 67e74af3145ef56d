"""What every way of retrieving has in common: one signature, `Retriever.forward`, and one answer, `Retrieved`.

A new way is a file with a subclass of `Retriever`, and a line in `state_rag.retrieval.modes`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from state_rag.retrieval.knowledge import Knowledge
from state_rag.retrieval.neighbour_table import NeighbourTable
from state_rag.retrieval.neighbours import distinct
from state_rag.retrieval.source_neighbours import Proposals, SourceNeighbours
from state_rag.retrieval.source_trust import SourceTrust
from state_rag.retrieval.together import Together


@dataclass(frozen=True)
class Retrieved:
    """What was retrieved for R sets of S cells, K candidates each, and the context that it makes.

    Attributes
    ----------
    context
        In place of, or added to, encoded cells and perturbation. [R, S, H]
    candidates
        Rows of the knowledge, most similar first; on the CPU where they were looked up there. Long [R, K]
    similarity
        Cosines of query and candidate, where the candidates are. [R, K]
    weights
        Weight of each candidate for each cell: inclusion (or its probability), or attention. [R, S, K]
    scores
        Logits (exclude, include) of a way that selects [R, S, K, 2]; None for one that only weighs.
    loss
        Scalar with gradient that is added to a training step's loss; None for nothing.
    logged
        Scalars without gradient that a training step logs as ``train/NAME``.
    proposed
        Which of M sources proposes each candidate, bool [R, K, M]; None with a single source.
    """

    context: Tensor
    candidates: Tensor
    similarity: Tensor
    weights: Tensor
    scores: Tensor | None = None
    loss: Tensor | None = None
    logged: Mapping[str, Tensor] = field(default_factory=dict)
    proposed: Tensor | None = None

    @classmethod
    def nothing(cls, context: Tensor, **parts: Any) -> Retrieved:
        """Return the answer where no set is retrieved for, as in a batch of controls: R and K are 0."""
        none = torch.zeros(0, 0)
        return cls(context, none.long(), none, torch.zeros(0, 0, 0), **parts)


@dataclass(frozen=True)
class Base:
    """The knowledge, and the model's encoder of perturbations with its current weights.

    Attributes
    ----------
    knowledge
        P perturbations.
    encoder
        From embeddings [N, D] to [N, H].
    """

    knowledge: Knowledge
    encoder: nn.Module

    def encode(self, embeddings: Tensor) -> Tensor:
        """Return embeddings [N, D] encoded as the model encodes perturbations, float32 [N, H]."""
        return self.encoder(embeddings).float()

    @torch.no_grad()
    def encoded(self) -> Tensor:
        """Return all that may be retrieved as the model encodes it now: no gradient, no dropout, float32 [P, H]."""
        training = self.encoder.training
        self.encoder.eval()
        rows = self.encode(self.knowledge.block()[: self.knowledge.n_candidates])
        self.encoder.train(training)
        return rows


class Retriever(nn.Module):
    """A way to retrieve. It is a part of the model, and its parameters are trained with it.

    Attributes
    ----------
    together
        The processes that take the same training step, while they take it; None where this one trains alone.
    """

    together: Together | None = None

    @classmethod
    def built_for(cls, settings: Any, *, hidden_dim: int, embedding_dim: int, dropout: float) -> Retriever:
        """Return the module for a run.

        Parameters
        ----------
        settings
            The run's flags by their names, a `state_rag.settings.RagSettings`.
        hidden_dim, embedding_dim
            H, width of encoded cells and perturbations, and D, width of embeddings.
        dropout
            The model's own.
        """
        raise NotImplementedError

    def prepare(self, knowledge: Knowledge, k: int) -> None:
        """Look up once what depends on the knowledge alone; called again when the model is given another.

        Raises
        ------
        StateRagError
            If the knowledge lacks what this way of retrieving needs.
        """

    def forward(
        self,
        cells: Tensor,
        query: Tensor,
        rows: Tensor,
        base: Base,
        told: Tensor | None = None,
        keep: Tensor | None = None,
    ) -> Retrieved:
        """Retrieve for R sets of S cells.

        Parameters
        ----------
        cells
            Encoded control cells [R, S, H].
        query
            Encoded perturbation of each set [R, H].
        rows
            Row of each set's perturbation in the knowledge, long [R] on the CPU; none is below 0.
        base
            What is retrieved from.
        told
            [R], 0 for a set whose context shall not know its own perturbation; None: all do.
        keep
            Factor on each candidate's weight [R, K]; 0 switches a candidate off and leaves the others as they are.

        Returns
        -------
        Retrieved
            For these R sets.
        """
        raise NotImplementedError

    def nothing(self, cells: Tensor) -> Retrieved:
        """Return the answer for a batch without a set to retrieve for; `cells` are the encoded cells [B, S, H]."""
        return Retrieved.nothing(cells[:0])

    def facts(self) -> dict[str, float | Tensor]:
        """Return numbers of the module's own that are logged beside what it retrieves, by name."""
        return {}

    def without_chance(self) -> bool:
        """Have evaluation draw no random numbers from now on; return whether it did before."""
        return False

    @property
    def depends_on_the_set_alone(self) -> bool:
        """Whether evaluation gives a set the same answer whatever else is in the batch, and whenever it is asked.

        Sets are predicted several at a time only where this holds.
        """
        return True

    def zero_weight_terms(self) -> Tensor:
        """Return a scalar 0 that depends on every parameter, for batches without a retrieved set.

        Added to the transformer's input it gives each parameter a zero gradient, which distributed training needs.
        """
        return torch.stack([parameter.sum() for parameter in self.parameters()]).sum() * 0.0


@dataclass(frozen=True)
class Candidates:
    """The candidates of R sets.

    Attributes
    ----------
    rows, similarity
        Rows of the knowledge and cosines [R, K], on the CPU.
    embeddings
        Of the N distinct candidates [N, D].
    index
        Each set's candidates among these, long [R, K].
    proposals
        What each source says of them; None with a single source.
    """

    rows: Tensor
    similarity: Tensor
    embeddings: Tensor
    index: Tensor
    proposals: Proposals | None = None

    @property
    def proposed(self) -> Tensor | None:
        """Which source proposes each candidate, bool [R, K, M]; None with a single source."""
        return None if self.proposals is None else self.proposals.by


class TableRetriever(Retriever):
    """A way to retrieve whose candidates are the K neighbours by embedding, from a table that is made once.

    Parameters
    ----------
    sources
        M, sources of knowledge.

    Attributes
    ----------
    trust
        How much each source counts in a candidate's score; None with a single source.
    """

    neighbours: NeighbourTable | None = None
    names: tuple[str, ...] = ()

    def __init__(self, sources: int = 1) -> None:
        super().__init__()
        self.trust = None if sources == 1 else SourceTrust(sources)

    def prepare(self, knowledge: Knowledge, k: int) -> None:
        """Make the table of neighbours."""
        self.names = knowledge.block_names
        self.neighbours = NeighbourTable(knowledge, k) if len(self.names) == 1 else SourceNeighbours(knowledge, k)

    def trusted(self, found: Candidates) -> Tensor | None:
        """Return what the candidates' scores gain from the sources that propose them [R, K]; None for one source."""
        return None if self.trust is None or found.proposals is None else self.trust(found.proposals)

    def facts(self) -> dict[str, float | Tensor]:
        """Return how much each source is trusted."""
        return {} if self.trust is None else dict(self.trust.facts(self.names))

    def look_up(self, rows: Tensor, base: Base, device: torch.device) -> Candidates:
        """Return the candidates of `rows` [R], with what is indexed by cells on `device`."""
        if self.neighbours is None:
            raise RuntimeError("prepare() has not been called")
        places = self.neighbours.places(rows)
        candidates, similarity = self.neighbours.at(places)
        distinct_rows, local = distinct(candidates)
        local = local.to(device, non_blocking=True)
        proposals = None
        if isinstance(self.neighbours, SourceNeighbours):
            proposals = self.neighbours.proposals.rows(places).to(device)
        return Candidates(candidates, similarity, base.knowledge.rows(distinct_rows), local, proposals)
