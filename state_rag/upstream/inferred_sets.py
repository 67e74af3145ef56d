"""Follow `state tx infer` from set to set: the control cells that each starts from, and what is retrieved for it."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from state_rag.retrieval.trace import RetrievalTrace
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
        """Take what was retrieved for the set that was drawn last."""
        self._traces.append((len(self._draws) - 1, trace))

    def _sets(self, query: "anndata.AnnData", names) -> list[tuple[tuple[str, str], np.ndarray]]:
        """Return the condition and the rows of every set, in the order of their draws."""
        contexts, labels = (query.obs[names[kind]].astype(str).to_numpy() for kind in ("context", "perturbation"))
        found, draws = [], iter(self._draws)
        for context in np.unique(contexts):
            rows = np.flatnonzero(contexts == context)
            for label in np.unique(labels[rows]):
                own = rows[labels[rows] == label]
                start = 0
                while start < len(own):
                    size = len(next(draws))
                    found.append(((str(context), str(label)), own[start : start + size]))
                    start += size
        return found

    def sources(self, query: "anndata.AnnData", names) -> np.ndarray:
        """Return, for each row of the query, the row of the user's data that it was predicted from."""
        sources = np.zeros(query.n_obs, dtype=np.int64)
        for (_, rows), drawn in zip(self._sets(query, names), self._draws, strict=True):
            sources[rows] = drawn
        return query.obs["_source"].to_numpy(dtype=np.int64)[sources]

    def retrieved(self, query: "anndata.AnnData", names) -> dict[tuple[str, str], MeanRetrieval]:
        """Return what was retrieved for each condition, summed over its cells."""
        sets = self._sets(query, names)
        found: dict[tuple[str, str], MeanRetrieval] = {}
        for number, trace in self._traces:
            condition, _ = sets[number]
            if not trace.candidates:
                continue
            weights = trace.weights[0]
            mean = MeanRetrieval(tuple(trace.candidates[0]), trace.similarity[0], weights.sum(axis=0), len(weights))
            if condition in found:
                mean.weights, mean.cells = mean.weights + found[condition].weights, mean.cells + found[condition].cells
            found[condition] = mean
        return found
