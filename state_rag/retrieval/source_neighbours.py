"""Stage 1 with several sources of knowledge: each proposes its nearest, and those that rank best in any are taken."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from state_rag.retrieval.knowledge import Knowledge, nearness
from state_rag.retrieval.large_base import LargeBase
from state_rag.retrieval.neighbour_table import NeighbourTable
from state_rag.retrieval.neighbours import BLOCK_ELEMENTS, top_neighbours, unit

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
        Cosine of query and candidate by each source, times how near their treatments are; 0 where it does not know one
        of them. [R, K, M]
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

    Where entries have coordinates, a cosine is multiplied by how near these are (`knowledge.nearness`).

    Of a large base (`neighbours.LARGE`) candidates are looked up when a row asks for the first time.

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
        What each source says of these, in the same order.
    """

    def _prepare(self, knowledge: Knowledge, block: str | None) -> None:
        n_base, total, own = knowledge.n_candidates, len(knowledge), self._own
        blocks = [knowledge.block(name) for name in knowledge.block_names]
        if self._place is not None:
            self._blocks, self._bases = blocks, [LargeBase(values[:n_base], self.k) for values in blocks]
            none, wide = torch.zeros(0, self.k), torch.zeros(0, self.k, len(blocks))
            self._keep_all(none.long(), none, wide.bool(), wide)
            return
        sides = [unit(values) for values in blocks]
        where = knowledge.coordinates
        beside = None if where is None else (where, where[:n_base])
        nearest = [top_neighbours(values, values[:n_base], self.k, own, beside) for values in sides]
        parts = [
            _taken(rows, self.k, n_base, own, sides, nearest, where)
            for rows in torch.arange(total, device=own.device).split(ROWS)
        ]
        self._keep_all(*(torch.cat(part) for part in zip(*parts, strict=True)))

    def _keep_all(self, index: Tensor, similarity: Tensor, by: Tensor, cosines: Tensor) -> None:
        self._keep(index, similarity)
        self.proposals = Proposals(by.cpu(), cosines.cpu())

    def _add(self, rows: Tensor) -> None:
        """Look up the candidates of rows [B] that have not asked before."""
        queries = [values[rows.to(values.device)] for values in self._blocks]
        nearest = [base.nearest(query, self._own[rows]) for base, query in zip(self._bases, queries, strict=True)]
        new = [(self.index, self.similarity, self.proposals.by, self.proposals.cosines)]
        for number in range(len(rows)):
            one = [query[number : number + 1] for query in queries]
            found = [(index[number], cosine[number]) for index, cosine in nearest]
            taken = _taken_of_large(one, found, self._blocks, len(self._bases[0].base), int(self._own[rows[number]]))
            new.append(tuple(part[None].cpu() for part in taken))
        self._keep_all(*(torch.cat(part) for part in zip(*new, strict=True)))


def _taken(
    rows: Tensor,
    k: int,
    n_base: int,
    own: Tensor,
    sides: list[Tensor],
    nearest: list[tuple[Tensor, Tensor]],
    where: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return index and similarity [B, K], and what each source says [B, K, M], of some rows; they may lie somewhere."""
    device, sources = sides[0].device, len(sides)
    rows = rows.to(device)
    mean = sum(values[rows] @ values[:n_base].T for values in sides) / sources
    near = None if where is None else nearness(where[rows], where[:n_base]).to(mean)
    mean = mean if near is None else mean * near
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
    for values, (index, cosine) in zip(sides, nearest, strict=True):
        proposed = (index[rows][:, :, None] == chosen[:, None]) & (cosine[rows] > 0)[:, :, None]
        by.append(proposed.any(1))
        cosines.append(torch.einsum("bd,bkd->bk", values[rows], values[chosen]))
    said, alike = torch.stack(by, -1), torch.stack(cosines, -1)
    if near is not None:
        alike = alike * near.gather(1, chosen)[..., None]
    largest = alike.masked_fill(~said, -torch.inf).amax(-1)
    similarity = torch.where(said.any(-1), largest, alike.mean(-1))
    return chosen, similarity.float(), said, alike.float()


def _taken_of_large(
    query: list[Tensor], nearest: list[tuple[Tensor, Tensor]], blocks: list[Tensor], n_base: int, own: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the same as `_taken` of one row: index and similarity [K], and what each source says [K, M].

    Parameters
    ----------
    query
        The row in each of M sources [1, D].
    nearest
        Its neighbours there and their cosines [K].
    blocks
        The sources [P, D].
    n_base
        How many of their rows may be retrieved.
    own
        Which of these the row is; -1 for none.
    """
    k, device = len(nearest[0][0]), nearest[0][0].device
    found = torch.stack([index for index, _ in nearest], 1).flatten()
    says = torch.stack([cosine > 0 for _, cosine in nearest], 1).flatten()
    # by rank, earlier sources first; of a row the first place counts
    taken = list(dict.fromkeys(found[says].tolist()))[:k]
    if len(taken) < k:
        taken += _nearest_by_mean(query, blocks, n_base, k, {own, *taken})[: k - len(taken)]
    chosen = torch.tensor(taken, device=device)
    by = torch.stack([((index[:, None] == chosen) & (cosine > 0)[:, None]).any(0) for index, cosine in nearest], -1)
    alike = torch.stack(
        [(unit(values[chosen.to(values.device)]) @ unit(one)[0]) for one, values in zip(query, blocks, strict=True)], -1
    )
    largest = alike.masked_fill(~by, -torch.inf).amax(-1)
    return chosen, torch.where(by.any(-1), largest, alike.mean(-1)).float(), by, alike.float()


def _nearest_by_mean(query: list[Tensor], blocks: list[Tensor], n_base: int, k: int, without: set[int]) -> list[int]:
    """Return the k rows with the largest mean cosine, less those to leave out."""
    size = max(1, BLOCK_ELEMENTS // sum(values.shape[1] for values in blocks))
    keys = []
    for first in range(0, n_base, size):
        last = min(first + size, n_base)
        pairs = zip(query, blocks, strict=True)
        mean = torch.stack([unit(values[first:last]) @ unit(one)[0] for one, values in pairs]).sum(0) / len(blocks)
        key = (((1 - mean) * STEPS).round().long() << 32) + torch.arange(first, last, device=mean.device)
        keys.append(key.topk(min(k + len(without), len(key)), largest=False).values)
    rows = torch.cat(keys).sort().values & 0xFFFFFFFF
    return [row for row in rows.tolist() if row not in without]
