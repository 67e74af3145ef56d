"""Stage 1 with several sources of knowledge: each proposes its nearest, and those that rank best in any are taken."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from state_rag.retrieval.knowledge import Knowledge
from state_rag.retrieval.neighbours import NeighbourTable, top_neighbours

ROWS = 128
"""Queries at a time."""
STEPS = 2**20
"""Similarities are compared in steps of 1 / this where no source proposes enough."""


@dataclass(frozen=True)
class Proposals:
    """What each of M sources says of the K candidates of R sets.

    Attributes
    ----------
    by
        Whether a source has the candidate among its own K nearest. Bool [R, K, M]
    cosines
        Cosine of query and candidate by each source; 0 where it does not know one of them. [R, K, M]
    """

    by: Tensor
    cosines: Tensor

    def rows(self, index: Tensor) -> Proposals:
        """Return those of some queries, long [R]."""
        return Proposals(self.by[index], self.cosines[index])

    def to(self, device: torch.device) -> Proposals:
        """Return them on a device."""
        return Proposals(self.by.to(device, non_blocking=True), self.cosines.to(device, non_blocking=True))


class SourceNeighbours(NeighbourTable):
    """The K candidates of every row of the knowledge, from all its sources.

    A source ranks what it knows by cosine, and proposes its K nearest among those with a cosine above 0. A candidate
    goes by its best rank in any source, earlier sources first among equals; a source that does not know the query, or
    knows few others, leaves its places to the others. Where all together propose less than K, the mean cosine over
    sources decides, lower rows first among equals.

    Parameters
    ----------
    knowledge
        P rows with M blocks, of which the first `n_candidates` rows may be retrieved.
    k
        Candidates of each row; at most `n_candidates - 1`.

    Attributes
    ----------
    index, similarity
        As of `NeighbourTable`, best rank first; the similarity is the largest cosine among the sources that propose a
        candidate, the mean over sources where none does.
    proposals
        What each source says of these, for all P rows.
    """

    def __init__(self, knowledge: Knowledge, k: int) -> None:
        n_base, total = knowledge.n_candidates, len(knowledge)
        own = torch.arange(total)
        own[n_base:] = -1
        unit = [functional.normalize(knowledge.block(name).double(), dim=1) for name in knowledge.block_names]
        nearest = [top_neighbours(values, values[:n_base], k, own) for values in unit]
        parts = [
            _taken(rows, k, n_base, own, unit, nearest) for rows in torch.arange(total, device=own.device).split(ROWS)
        ]
        index, similarity, by, cosines = (torch.cat(part).cpu() for part in zip(*parts, strict=True))
        self.k = k
        self.index, self.similarity = index, similarity
        self.proposals = Proposals(by, cosines)


def _taken(
    rows: Tensor, k: int, n_base: int, own: Tensor, unit: list[Tensor], nearest: list[tuple[Tensor, Tensor]]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return index and similarity [B, K], and what each source says [B, K, M], of some rows."""
    device, sources = unit[0].device, len(unit)
    rows = rows.to(device)
    mean = sum(values[rows] @ values[:n_base].T for values in unit) / sources
    last = k * sources
    # a key for each (rank, row): what sources propose comes first, the rest by mean cosine
    key = last + ((1 - mean) * STEPS).round().long()
    for number, (index, cosine) in enumerate(nearest):
        ranks = torch.arange(k, device=device) * sources + number
        ranks = ranks.expand(len(rows), k).masked_fill(cosine[rows] <= 0, torch.iinfo(torch.long).max)
        key = key.scatter_reduce(1, index[rows], ranks, "amin")
    itself = own.to(device)[rows]
    key[itself >= 0, itself[itself >= 0]] = 2**30
    chosen = ((key << 32) + torch.arange(n_base, device=device)).topk(k, dim=1, largest=False).values & 0xFFFFFFFF
    by, cosines = [], []
    for values, (index, cosine) in zip(unit, nearest, strict=True):
        proposed = (index[rows][:, :, None] == chosen[:, None]) & (cosine[rows] > 0)[:, :, None]
        by.append(proposed.any(1))
        cosines.append(torch.einsum("bd,bkd->bk", values[rows], values[chosen]))
    said, alike = torch.stack(by, -1), torch.stack(cosines, -1)
    largest = alike.masked_fill(~said, -torch.inf).amax(-1)
    similarity = torch.where(said.any(-1), largest, alike.mean(-1))
    return chosen, similarity.float(), said, alike.float()
