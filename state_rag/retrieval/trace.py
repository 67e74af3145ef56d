"""What was retrieved for each set and selected for each cell, as arrays and as the published strings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import compress
from operator import add

import numpy as np
from torch import Tensor

SELECTED_ABOVE = 0.5
"""A candidate counts as selected when its weight exceeds this."""


@dataclass(frozen=True)
class RetrievalTrace:
    """The retrieval of one batch: B sets of S cells, K candidates each.

    Attributes
    ----------
    queries
        The perturbation of each set, B names.
    names
        Names of the knowledge; `rows` points into them.
    rows
        Candidates, int64 [B, K].
    similarity
        Cosines [B, K].
    weights
        Weight of each candidate for each cell [B, S, K]: inclusion (or its probability), or attention.
    sources
        Names of M sources of knowledge; none where there is a single one.
    proposed
        Which of them proposed each candidate, bool [B, K, M]; None likewise.
    """

    queries: tuple[str, ...]
    names: Sequence[str]
    rows: np.ndarray
    similarity: np.ndarray
    weights: np.ndarray
    sources: tuple[str, ...] = ()
    proposed: np.ndarray | None = None

    @classmethod
    def from_tensors(
        cls,
        queries: Sequence[str],
        names: Sequence[str],
        rows: Tensor,
        similarity: Tensor,
        weights: Tensor,
        sources: Sequence[str] = (),
        proposed: Tensor | None = None,
    ) -> RetrievalTrace:
        """Copy tensors on any device, with or without gradient, into a trace."""
        proposing = None if proposed is None else proposed.detach().cpu().numpy()
        return cls(
            tuple(queries),
            names,
            rows.detach().cpu().numpy(),
            similarity.detach().float().cpu().numpy(),
            weights.detach().float().cpu().numpy(),
            () if proposing is None else tuple(sources),
            proposing,
        )

    def of_sets(self, names: Sequence[str]) -> list[RetrievalTrace]:
        """Return the trace of each set of a batch by itself; an empty one for controls.

        Parameters
        ----------
        names
            The perturbation of every set of the batch, in its order, those that were not retrieved for too.
        """
        asking, parts = iter(range(len(self.queries))), []
        following = next(asking, None)
        for name in names:
            if following is not None and self.queries[following] == name:
                one = slice(following, following + 1)
                following = next(asking, None)
                proposed = None if self.proposed is None else self.proposed[one]
                arrays = (self.rows[one], self.similarity[one], self.weights[one])
                parts.append(RetrievalTrace((name,), self.names, *arrays, self.sources, proposed))
            else:
                none = np.zeros((0, 0))
                parts.append(RetrievalTrace((), self.names, none.astype(int), none, np.zeros((0, 0, 0))))
        return parts

    @property
    def n_retrieved(self) -> int:
        """K."""
        return self.rows.shape[1]

    @cached_property
    def candidates(self) -> list[list[str]]:
        """Names of the candidates of each set, most similar first."""
        return [[self.names[row] for row in rows] for rows in self.rows.tolist()]

    @cached_property
    def candidate_sources(self) -> list[list[str]]:
        """The sources that proposed each candidate, joined by `+`; `none` where none did. Empty for one source."""
        if self.proposed is None:
            return []
        return [
            ["+".join(name for name, yes in zip(self.sources, by, strict=True) if yes) or "none" for by in candidates]
            for candidates in self.proposed.tolist()
        ]

    @property
    def selected(self) -> np.ndarray:
        """Which candidates each cell selected, bool [B, S, K]."""
        return self.weights > SELECTED_ABOVE

    def cells(self) -> Iterator[tuple[str, str, str, int]]:
        """Yield (query, `NAME(w=1.00)|...`, selected `A|B` or `none`, number selected) for each cell, set after set."""
        # Exact: a float32 times 100 fits a float64, and both ways of rounding go to the even digit between two.
        hundredths = np.rint(self.weights.astype(np.float64) * 100)
        shown = np.unique(hundredths)
        endings = np.array([f"(w={value / 100:.2f})" for value in shown.tolist()], dtype=object)
        texts = endings[np.searchsorted(shown, hundredths)].tolist()
        for query, names, own, taken in zip(self.queries, self.candidates, texts, self.selected.tolist(), strict=True):
            for ending, chosen in zip(own, taken, strict=True):
                selected = list(compress(names, chosen))
                yield query, "|".join(map(add, names, ending)), "|".join(selected) or "none", len(selected)
