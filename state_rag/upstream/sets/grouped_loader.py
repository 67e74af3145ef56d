"""A test loader that hands over many cell sets at a time, read ahead in a thread, in the order of the original."""

import queue
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch

from state_rag.upstream.sets.set_reader import SetReader

WINDOW_BYTES = 32 * 2**20
"""Predicted and control cells, as float32, that are read at a time; some four such windows exist at once."""

FIRST_PART = 4
"""The first window is so many times smaller."""


@dataclass
class Sets:
    """Some consecutive cell sets.

    Attributes
    ----------
    batch
        What STATE's loader gives of a set, for all cells of all sets in their order.
    sizes
        Cells of each set.
    """

    batch: dict[str, Any]
    sizes: list[int]


class GroupedLoader:
    """Stands in for cell-load's test loader; yields batches with ``sets``, a `Sets`.

    Parameters
    ----------
    loader
        cell-load's own.
    together
        Whether the cells are read together (`SetReader`), where that can be; otherwise the loader is asked for one set
        after the other.
    count_cells
        Whether `batch_sampler.tot_num`, from which STATE makes its arrays, is the number of cells; it is 0 where STATE
        is given none, see `grouped_sets`.
    """

    def __init__(self, loader: Any, *, together: bool, count_cells: bool) -> None:
        self._loader = loader
        self._together = together and SetReader.can_read(loader)
        self.n_cells = sum(len(rows) for rows in loader.batch_sampler.batches)
        self.batch_sampler = SimpleNamespace(tot_num=self.n_cells if count_cells else 0)

    def __len__(self) -> int:
        return len(self._loader.batch_sampler.batches)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        source = self._windows() if self._together else self._joined()
        for sets in read_ahead(source):
            # What STATE labels its cells with, beside what the model returns.
            labels = ("batch_name", "dataset_name") if self.batch_sampler.tot_num else ()
            yield {"sets": sets, **{name: sets.batch[name] for name in labels if name in sets.batch}}

    def _windows(self) -> Iterator[Sets]:
        reader = SetReader(self._loader)
        dataset = self._loader.dataset.base
        width = dataset.get_dim_for_obsm(dataset.embed_key) if dataset.embed_key else dataset.n_genes
        if dataset.store_raw_expression and dataset.output_space == "all":
            width = max(width, dataset.n_genes)
        # The first windows are small ones, so that predicting begins early.
        most = max(1, WINDOW_BYTES // (8 * width))
        allowed = most // FIRST_PART
        window: list[Sequence[int]] = []
        for rows in self._loader.batch_sampler:
            if window and sum(map(len, window)) + len(rows) > allowed:
                yield Sets(reader.read(window), list(map(len, window)))
                window, allowed = [], min(most, 2 * allowed + 1)
            window.append(rows)
        if window:
            yield Sets(reader.read(window), list(map(len, window)))

    def _joined(self) -> Iterator[Sets]:
        """Yield set after set as the loader gives them, several at a time."""
        window: list[dict[str, Any]] = []
        held = 0
        for batch in self._loader:
            window.append(batch)
            held += batch["pert_cell_emb"].nbytes + batch["ctrl_cell_emb"].nbytes
            if held > WINDOW_BYTES:
                yield _join(window)
                window, held = [], 0
        if window:
            yield _join(window)


def _join(batches: Sequence[dict[str, Any]]) -> Sets:
    joined: dict[str, Any] = {}
    for name, first in batches[0].items():
        parts = [batch[name] for batch in batches]
        joined[name] = torch.cat(parts) if isinstance(first, torch.Tensor) else [x for part in parts for x in part]
    return Sets(joined, [len(batch["pert_name"]) for batch in batches])


_END = object()


def read_ahead(source: Iterator[Any]) -> Iterator[Any]:
    """Yield what `source` yields, which is run in a thread and is at most two items ahead."""
    waiting: queue.Queue[Any] = queue.Queue(maxsize=1)
    stop = threading.Event()

    def put(item: Any) -> bool:
        while not stop.is_set():
            try:
                waiting.put(item, timeout=0.2)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            for item in source:
                if not put((item, None)):
                    return
            put((_END, None))
        except BaseException as error:  # noqa: BLE001  raised again by the consumer
            put((_END, error))

    thread = threading.Thread(target=work, name="state-rag-reader", daemon=True)
    thread.start()
    try:
        while True:
            item, error = waiting.get()
            if error is not None:
                raise error
            if item is _END:
                return
            yield item
    finally:
        stop.set()
        thread.join()
