"""Neighbours in a base that is too large for a table of all its rows: searched for those who ask, when they ask.

Without an index every row of the base is compared: in float32, and then in float64 those that rounding may have kept
from being among the nearest, so that the answer is that of `neighbours.top_neighbours`. On the CPU FAISS, where it is
installed, cuts the base into cells around k-means centres and compares those cells alone that lie next to the
query (an inverted file, Jégou et al. 2011, https://doi.org/10.1109/TPAMI.2010.57). How many cells that takes is
measured on the base itself: rows of it are searched exactly, and cells are added until the index finds what these
found. What the index proposes is then compared exactly, so that similarities are those of the exact search.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from state_rag.errors import StateRagError
from state_rag.retrieval.neighbours import BLOCK_ELEMENTS, CHUNK_ELEMENTS, best_of, check_k, top_neighbours, unit

logger = logging.getLogger(__name__)

BACKENDS = ("auto", "exact", "faiss")
RECALL = 0.99
"""Share of the K nearest that an index has to find."""
MARGIN = 0.002
"""What is asked beyond that while cells are counted, for the chance of the sample."""
SAMPLE = 256
"""Rows of the base by which the recall is measured."""
POINTS_A_CELL = 64
"""Rows for each k-means centre in training."""
ROUNDS = 10
"""Of k-means."""
SPARE = 16
"""Further rows that the index proposes, since it keeps rows in half precision."""
SHORTEST = 1e-20
"""Length of a row below which products in float32 lose digits."""
ADDED_ELEMENTS = 2**24
"""Values that are handed to the index at a time (float32: 64 MiB)."""


class LargeBase:
    """The nearest rows of a large base, for those who ask.

    Parameters
    ----------
    base
        [P, D], any lengths; it is not copied.
    k
        Neighbours that will be asked for.
    backend
        `exact`; `faiss`, an inverted file in FAISS; `auto`: FAISS for a base on the CPU where it is installed.
    recall
        Share of the k nearest that FAISS has to find, over `SAMPLE` rows of the base.

    Attributes
    ----------
    recall, cells
        Measured share and how many cells are looked at for it; 1 and None of an exact search. They are there from the
        first question on, which builds the index.

    Raises
    ------
    StateRagError
        For an unknown backend, or FAISS asked for but not installed.

    Examples
    --------
    >>> base = LargeBase(torch.eye(3), 1, "exact")
    >>> base.nearest(torch.tensor([[0.9, 0.1, 0.0]]), torch.tensor([-1]))[0]
    tensor([[0]])
    """

    def __init__(self, base: Tensor, k: int, backend: str = "auto", recall: float = RECALL) -> None:
        if backend not in BACKENDS:
            raise StateRagError(f"neighbours: unknown backend {backend!r}; choose {', '.join(BACKENDS)}.")
        installed = importlib.util.find_spec("faiss") is not None
        if backend == "faiss" and not installed:
            raise StateRagError(
                "neighbours: backend is faiss, but FAISS is not installed; `pip install 'state-rag[faiss]'`, or use "
                "exact."
            )
        self.base, self.k, self.wanted = base, k, recall
        self.uses_faiss = backend == "faiss" or (backend == "auto" and installed and base.device.type == "cpu")
        self.recall = 1.0
        self.cells: int | None = None
        self._index: Any = None
        self._length: Tensor | None = None
        self._exponents_suffice = True
        # of a sum of D products of float32, and of the two roundings before
        self._error = (base.shape[1] + 8) * torch.finfo(torch.float32).eps
        self._told = backend != "auto" or base.device.type != "cpu"

    def nearest(self, queries: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
        """Return the k nearest rows for each query, most similar first, lower rows first among equals.

        Parameters
        ----------
        queries
            [Q, D].
        own
            Long [Q]: the row that is the query itself, to be left out; -1 leaves nothing out.

        Returns
        -------
        index, similarity
            Long [Q, k] and float32 [Q, k].

        Raises
        ------
        StateRagError
            If k is below 1 or above the rows available.
        """
        check_k(self.k, len(self.base), bool((own >= 0).any()))
        if not self.uses_faiss:
            self._tell_cost()
            return self._compared(queries, own.cpu())
        if self._index is None:
            self._build()
        return self._searched(queries, own.cpu())

    @torch.no_grad()
    def _compared(self, queries: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
        """Return the k nearest by comparing all, first in float32."""
        if self.base.dtype != torch.float32 or not len(queries):
            return top_neighbours(queries, self.base, self.k, own)
        if self._length is None:
            self._length = _lengths(self.base)
            self._exponents_suffice = bool(self._length.min() > SHORTEST)
        if not self._exponents_suffice:
            return top_neighbours(queries, self.base, self.k, own)
        index = torch.empty(len(queries), self.k, dtype=torch.long, device=self.base.device)
        similarity = torch.empty(len(queries), self.k, device=self.base.device)
        step = max(1, CHUNK_ELEMENTS // len(self.base))
        for start in range(0, len(queries), step):
            some = unit(queries[start : start + step])
            with _whole_float32(self.base.device):
                cosines = (some.float() @ self.base.T).div_(self._length)
            for place, row in enumerate(own[start : start + step].tolist()):
                near = cosines[place]
                if row >= 0:
                    near[row] = -torch.inf
                least = near.topk(self.k).values[-1]
                rows = torch.nonzero(near >= least - 2 * self._error).flatten()
                products = some[place : place + 1] @ unit(self.base[rows]).T
                places, similarity[start + place : start + place + 1] = best_of(products, self.k)
                index[start + place] = rows[places[0]]
        return index, similarity

    def _tell_cost(self) -> None:
        if not self._told:
            gigabytes = self.base.numel() * self.base.element_size() / 1e9
            logger.warning(
                "%d perturbations are compared one by one for each that is new, %.1f GB a time, since FAISS is not "
                "installed; an index is quicker: pip install 'state-rag[faiss]'.",
                len(self.base),
                gigabytes,
            )
        self._told = True

    def _build(self) -> None:
        faiss = importlib.import_module("faiss")
        count, width = self.base.shape
        centres = max(1, min(round(4 * math.sqrt(count)), count // POINTS_A_CELL))
        start = time.perf_counter()
        logger.info("An index of %d perturbations, %d wide, is built, once: minutes for a million.", count, width)
        index = faiss.IndexIVFScalarQuantizer(
            faiss.IndexFlatIP(width), width, centres, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT, False
        )
        index.cp.niter, index.cp.seed, index.cp.spherical = ROUNDS, 0, True
        draw = torch.Generator().manual_seed(0)
        some = torch.randperm(count, generator=draw)[: max(centres * POINTS_A_CELL, 1)].sort().values
        index.train(_float_rows(self.base[some]))
        step = max(1, ADDED_ELEMENTS // width)
        for first in range(0, count, step):
            index.add(_float_rows(self.base[first : first + step]))
        self._index = index
        sample = torch.randperm(count, generator=draw)[:SAMPLE]
        self._count_cells(sample, centres)
        logger.info(
            "Index of %d perturbations: %d of %d cells are looked at, which finds %.2f %% of the %d nearest; built in "
            "%.0f s.",
            *(count, self.cells, centres, 100 * self.recall, self.k, time.perf_counter() - start),
        )

    def _count_cells(self, sample: Tensor, centres: int) -> None:
        """Look at so many cells that the recall over some rows is what is wanted."""
        queries = self.base[sample]
        # two rows of the same vector may stand for each other, so similarities are compared
        least = top_neighbours(queries, self.base, self.k, sample)[1][:, -1:]
        aim = min(self.wanted + MARGIN, 1.0)
        cells = min(4, centres)
        while True:
            self._index.nprobe = self.cells = cells
            found = self._searched(queries, sample)[1]
            self.recall = float((found >= least).double().mean())
            if self.recall >= aim or cells >= centres:
                return
            cells = min(centres, math.ceil(cells * 1.5))

    def _searched(self, queries: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
        if not len(queries):
            return torch.zeros(0, self.k, dtype=torch.long), torch.zeros(0, self.k)
        asked = min(self.k + 1 + SPARE, len(self.base))
        found = torch.from_numpy(self._index.search(_float_rows(queries), asked)[1])
        found = found.masked_fill(found == own[:, None], -1)
        index = torch.zeros(len(queries), self.k, dtype=torch.long)
        similarity = torch.zeros(len(queries), self.k)
        # a cell may hold too few rows
        whole = (found >= 0).sum(1) >= self.k
        for row in torch.nonzero(whole).flatten().tolist():
            rows = found[row][found[row] >= 0].sort().values
            products = unit(queries[row : row + 1]) @ unit(self.base[rows]).T
            places, similarity[row : row + 1] = best_of(products, self.k)
            index[row] = rows[places[0]]
        few = torch.nonzero(~whole).flatten()
        if len(few):
            index[few], similarity[few] = top_neighbours(queries[few], self.base, self.k, own[few])
        return index, similarity


@contextmanager
def _whole_float32(device: torch.device) -> Iterator[None]:
    """Have products in float32 made with all of its digits, whatever a training has allowed."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


def _lengths(base: Tensor) -> Tensor:
    """Return the length of each row [P, D], float32 [P]; 1 for rows of zeros."""
    step = max(1, BLOCK_ELEMENTS // base.shape[1])
    parts = [
        torch.linalg.vector_norm(base[first : first + step].double(), dim=1) for first in range(0, len(base), step)
    ]
    lengths = torch.cat(parts)
    return torch.where(lengths > 0, lengths, torch.ones_like(lengths)).float()


def _float_rows(rows: Tensor) -> Any:
    """Return rows of length 1 as FAISS takes them."""
    return torch.nn.functional.normalize(rows.detach().to("cpu", torch.float32), dim=1).numpy()
