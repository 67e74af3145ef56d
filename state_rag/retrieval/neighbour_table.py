"""The candidates of every perturbation, by one source: looked up once and kept."""

from __future__ import annotations

import torch
from torch import Tensor

from state_rag.retrieval.knowledge import Knowledge
from state_rag.retrieval.large_base import LargeBase
from state_rag.retrieval.neighbours import LARGE, check_k, top_neighbours


class NeighbourTable:
    """The K neighbours of every row of the knowledge, computed once, where the knowledge lies, and kept on the CPU.

    Which perturbations a batch holds is known on the CPU, by name. Looked up there, neither a candidate nor the number
    of distinct ones has to be read back from an accelerator in a training step.

    Rows of the base leave themselves out; rows that may only ask (see `Knowledge.with_queries`) leave nothing out.

    Of more than `LARGE` rows, neighbours are looked up when a row asks for the first time, by `LargeBase`.

    Parameters
    ----------
    knowledge
        P rows, of which the first `n_candidates` may be retrieved.
    k
        Neighbours of each row; at most `n_candidates - 1`.
    block
        The block whose cosine decides; None for all side by side. Where entries have coordinates, how near these are
        decides too (`knowledge.nearness`), and all rows are looked up at once.

    Attributes
    ----------
    index, similarity
        Long and float32 [P, K], on the CPU; of a large base those of the rows that have asked, in that order.
    """

    def __init__(self, knowledge: Knowledge, k: int, block: str | None = None) -> None:
        self.k = k
        self._own = torch.arange(len(knowledge))
        self._own[knowledge.n_candidates :] = -1
        self._place: Tensor | None = None
        check_k(k, knowledge.n_candidates, True)
        if len(knowledge) > LARGE and knowledge.coordinates is None:
            self._place = torch.full((len(knowledge),), -1)
        self._prepare(knowledge, block)

    def _prepare(self, knowledge: Knowledge, block: str | None) -> None:
        """Look up the neighbours of all, or make ready for those that will ask."""
        values = knowledge.embeddings if block is None else knowledge.block(block)
        base = values[: knowledge.n_candidates]
        if self._place is None:
            where = knowledge.coordinates
            beside = None if where is None else (where, where[: knowledge.n_candidates])
            self._keep(*top_neighbours(values, base, self.k, self._own, beside))
            return
        self._values, self._base = values, LargeBase(base, self.k)
        self._keep(torch.zeros(0, self.k, dtype=torch.long), torch.zeros(0, self.k))

    def _keep(self, index: Tensor, similarity: Tensor) -> None:
        self.index, self.similarity = index.cpu(), similarity.cpu()

    def lookup(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return the neighbours of `rows` [B]: their rows, long [B, K], and similarities, float32 [B, K].

        All of them lie on the CPU.

        Raises
        ------
        IndexError
            For a negative row: an unknown name or a control has no neighbours, and must not be asked for.
        """
        return self.at(self.places(rows))

    def at(self, places: Tensor) -> tuple[Tensor, Tensor]:
        """Return what stands at `places` [B] of the table, as `lookup` does."""
        return self.index[places], self.similarity[places]

    def places(self, rows: Tensor) -> Tensor:
        """Return where in the table `rows` [B] stand, long [B]; those that ask for the first time are looked up.

        Raises
        ------
        IndexError
            As of `lookup`.
        """
        if bool((rows < 0).any()):
            raise IndexError("a row below 0 (an unknown name or a control) has no neighbours")
        if self._place is None:
            return rows
        new = torch.unique(rows[self._place[rows] < 0])
        if len(new):
            first = len(self.index)
            self._add(new)
            self._place[new] = first + torch.arange(len(new))
        return self._place[rows]

    def _add(self, rows: Tensor) -> None:
        """Look up the neighbours of rows [B] that have not asked before."""
        index, similarity = self._base.nearest(self._values[rows.to(self._values.device)], self._own[rows])
        self._keep(torch.cat([self.index, index.cpu()]), torch.cat([self.similarity, similarity.cpu()]))
