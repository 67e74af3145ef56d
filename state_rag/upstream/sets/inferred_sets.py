"""Follow `state tx infer` from set to set: the control cells that each starts from, and what is retrieved for it."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from state_rag.cells.question import Names
from state_rag.retrieval.trace import SELECTED_ABOVE, RetrievalTrace
from state_rag.upstream.swap import replaced

if TYPE_CHECKING:
    import anndata


@dataclass
class MeanRetrieval:
    """Weights of candidates, summed over cells."""

    neighbours: tuple[str, ...]
    similarity: np.ndarray
    weights: np.ndarray
    cells: int
    sources: tuple[str, ...] = ()

    def table(self) -> pd.DataFrame:
        """Return a row for each candidate, see `candidates_table`."""
        return candidates_table(self.neighbours, self.similarity, self.weights / self.cells, self.cells, self.sources)


class InferredSets:
    """Watches `state tx infer` go from set to set: which controls each starts from, and what is retrieved for it.

    The command draws a set's control cells with the one generator that it makes, and predicts the set next. It goes by
    context and perturbation, both in sorted order, and through the cells of a condition in their order.
    """

    def __init__(self) -> None:
        self._draws: list[np.ndarray] = []
        self._traces: list[tuple[int, RetrievalTrace]] = []

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Record the draws of the block."""
        draws = self._draws

        class Recorded(np.random.RandomState):
            def choice(self, *args: Any, **kwargs: Any) -> Any:
                drawn = super().choice(*args, **kwargs)
                draws.append(np.asarray(drawn))
                return drawn

        with replaced(np.random, "RandomState", Recorded):
            yield

    def take(self, batch: Any, output: Any, trace: RetrievalTrace) -> None:
        """Take what was retrieved for a set: the one that its batch says, else the one that was drawn last."""
        drawn = batch.get("draw")
        self._traces.append((self.drawn_last if drawn is None else drawn[0], trace))

    @property
    def drawn_last(self) -> int:
        """Number of the last draw."""
        return len(self._draws) - 1

    def context(self, cells: "anndata.AnnData", names: Names) -> str:
        """Return the context of the set that is being predicted: that of the controls which were drawn last."""
        return "all" if names.context is None else str(cells.obs[names.context].iloc[int(self._draws[-1][0])])

    def _sets(self, cells: "anndata.AnnData", names: Names) -> tuple[int, list[tuple[tuple[str, str], np.ndarray]]]:
        """Return the number of the first set's draw, and the condition and rows of every set in the order of draws.

        STATE draws before, too, where it pads or thins the cells; the sets' draws are the last ones, a row each.
        """
        labels = cells.obs[names.perturbation].astype(str).to_numpy()
        contexts = names.contexts(cells.obs)
        first, rows_left = len(self._draws), len(labels)
        while rows_left > 0:
            first -= 1
            rows_left -= len(self._draws[first])
        found, draws = [], iter(self._draws[first:])
        for context in np.unique(contexts):
            rows = np.flatnonzero(contexts == context)
            for label in np.unique(labels[rows]):
                own = rows[labels[rows] == label]
                start = 0
                while start < len(own):
                    size = len(next(draws))
                    found.append(((str(context), str(label)), own[start : start + size]))
                    start += size
        return first, found

    def sources(self, cells: "anndata.AnnData", names: Names) -> np.ndarray:
        """Return, for each row, the row of the control cell that it was predicted from."""
        first, sets = self._sets(cells, names)
        sources = np.zeros(cells.n_obs, dtype=np.int64)
        for (_, rows), drawn in zip(sets, self._draws[first:], strict=True):
            sources[rows] = drawn
        return sources

    def rows(self, cells: "anndata.AnnData", names: Names) -> np.ndarray:
        """Return the rows of all cells in the order in which the sets were drawn."""
        return np.concatenate([rows for _, rows in self._sets(cells, names)[1]])

    def retrieved(self, cells: "anndata.AnnData", names: Names) -> dict[tuple[str, str], MeanRetrieval]:
        """Return what was retrieved for each condition, summed over its cells."""
        first, sets = self._sets(cells, names)
        found: dict[tuple[str, str], MeanRetrieval] = {}
        for number, trace in self._traces:
            condition, _ = sets[number - first]
            if not trace.candidates:
                continue
            weights = trace.weights[0]
            by = tuple(trace.candidate_sources[0]) if trace.candidate_sources else ()
            mean = MeanRetrieval(tuple(trace.candidates[0]), trace.similarity[0], weights.sum(axis=0), len(weights), by)
            if condition in found:
                mean.weights, mean.cells = mean.weights + found[condition].weights, mean.cells + found[condition].cells
            found[condition] = mean
        return found


def retrieval_table(retrieved: Mapping[tuple[str, str], MeanRetrieval]) -> pd.DataFrame:
    """Return what was retrieved, a row for each condition and candidate, most similar first."""
    parts = [
        mean.table().assign(context=context, perturbation=perturbation)
        for (context, perturbation), mean in retrieved.items()
    ]
    table = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame({"context": [], "perturbation": []})
    return table.set_index(pd.RangeIndex(len(table)).astype(str))


def candidates_table(
    neighbours: Sequence[str], similarity: np.ndarray, inclusion: np.ndarray, cells: int, sources: Sequence[str] = ()
) -> pd.DataFrame:
    """Return one row a candidate: `rank`, `neighbour`, `similarity`, `inclusion`, `selected`, `n_cells`.

    Of a run with several sources of knowledge also `source`: those that proposed it, joined by `+`.
    """
    table = pd.DataFrame(
        {
            "rank": np.arange(1, len(neighbours) + 1),
            "neighbour": list(neighbours),
            "similarity": similarity,
            "inclusion": inclusion,
            "selected": inclusion > SELECTED_ABOVE,
            "n_cells": cells,
        }
    )
    if sources:
        table.insert(2, "source", list(sources))
    return table
