"""What makes `state tx predict` fast: sets read and predicted many at a time, and cells written as they come."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from state_rag.settings import RagSettings
from state_rag.upstream.sets.cell_bar import counting_cells
from state_rag.upstream.sets.grouped_loader import GroupedLoader
from state_rag.upstream.sets.grouped_sets import GroupedSets, TraceSink, keeps_decoded
from state_rag.upstream.sets.streamed_cells import StreamedCells


class FastPrediction:
    """Loader, model and files of one prediction.

    Parameters
    ----------
    results
        Folder of the predictions.
    data
        The run's `data.kwargs`.
    settings
        The run's flags.
    streamed
        Whether cells are written as they come. STATE's own evaluation needs them all in memory.
    """

    def __init__(self, results: Path, data: Mapping[str, Any], settings: RagSettings, streamed: bool) -> None:
        embedding = data.get("embed_key") if data.get("output_space") == "embedding" else None
        self._cells = StreamedCells(results, lambda: self._n_cells, data, embedding) if streamed else None
        decoded = keeps_decoded(data.get("embed_key"), data.get("output_space", "gene"))
        self._sets = GroupedSets(None if self._cells is None else self._cells.take, decoded)
        self._n_cells = 0
        # Draws repeat with a seed, so nothing else may draw in between; STATE's loader is asked for its sets then.
        self._by_chance = settings.retrieves and settings.rag_inference == "sample"

    def loader(self, loader: Any) -> GroupedLoader:
        """Return what takes the place of the test loader."""
        grouped = GroupedLoader(loader, together=not self._by_chance, count_cells=self._cells is None)
        self._n_cells = grouped.n_cells
        return grouped

    def model(self, model: type, trace_sink: TraceSink | None) -> type:
        """Return a subclass that predicts what `loader` yields; `model` must keep its traces (`keep_trace`)."""
        self._sets.trace_sink = trace_sink
        return self._sets.grouping(model)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count cells in STATE's progress bar, and write them; stop all threads at the end."""
        with ExitStack() as stack:
            stack.enter_context(self._sets)
            stack.enter_context(counting_cells())
            if self._cells is not None:
                stack.enter_context(self._cells.completing(self._sets.finish))
            yield
