"""Predict many cell sets in a forward pass: those of equal length together, on all cores, with the same results.

STATE predicts one set in each pass. A set's result does not depend on the others of a batch, except where
`RagStateTransition.sets_are_independent` says so: scores scaled by the batch, candidates drawn by chance, the
confidence token. Those are predicted one after the other, as STATE does it.
"""

import copy
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from state_rag.retrieval.trace import RetrievalTrace
from state_rag.upstream.sets.grouped_loader import Sets
from state_rag.upstream.sets.lean_layers import lean

CELLS_A_PASS = {"cpu": 384, "cuda": 2**14}
"""Cells in one forward pass. On a CPU what a pass makes shall stay in the cache."""

INPUTS = ("ctrl_cell_emb", "pert_name", "cell_type", "batch")
DECODED = "pert_cell_counts_preds"
BARCODES = ("pert_cell_barcode", "ctrl_cell_barcode")

TraceSink = Callable[[Mapping[str, Any], Mapping[str, Any], RetrievalTrace], None]


def keeps_decoded(embed_key: str | None, output_space: str) -> bool:
    """Tell whether STATE writes what its gene decoder makes of a prediction, rather than the prediction alone."""
    return (output_space == "gene" and embed_key not in (None, "X_hvg")) or (
        output_space == "all" and embed_key is not None
    )


def keep_trace(batch: Any, output: Any, trace: RetrievalTrace) -> None:
    """Take the trace of a pass, for the caller to find in its batch: `RagStateTransition`'s sink for `GroupedSets`."""
    batch["trace"] = trace


@dataclass
class Predicted:
    """Sets, what STATE's `predict_step` returns for all their cells, and what was retrieved for each set."""

    sets: Sets
    output: dict[str, Any]
    traces: list[RetrievalTrace | None]


class GroupedSets:
    """Predicts the sets that `GroupedLoader` yields; use it in a `with` block.

    On a CPU each of torch's threads has passes of its own, which wait for each other far less than the threads of one
    pass do, above all where the cores have other work.

    Parameters
    ----------
    take
        Is given everything that was predicted, in the order of the sets, while the next sets are being predicted. STATE
        is then handed outputs without cells, so that it keeps nothing. None: STATE gets what was predicted.

    decoded
        Whether what the gene decoder makes of a prediction is wanted (`keeps_decoded`); STATE decodes always.

    Attributes
    ----------
    trace_sink
        Is called for each set, in order, with its batch, its output and what was retrieved; the model's own sink must
        be `keep_trace` then.
    """

    trace_sink: TraceSink | None = None

    def __init__(self, take: Callable[[Predicted], None] | None = None, decoded: bool = True) -> None:
        self._take, self._decoded = take, decoded
        self._threads = torch.get_num_threads()
        self._pool: ThreadPoolExecutor | None = None
        self._running: deque[Callable[[], Predicted]] = deque()
        self._backbone: tuple[Any, torch.nn.Module] | None = None

    def __enter__(self) -> "GroupedSets":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            torch.set_num_threads(self._threads)

    def grouping(self, model: type[torch.nn.Module]) -> type[torch.nn.Module]:
        """Return a subclass of `model` whose `predict_step` takes ``{"sets": Sets}`` too."""
        group = self

        class Grouping(model):  # type: ignore[misc,valid-type]
            def predict_step(self, batch: dict[str, Any], batch_idx: int, **kwargs: Any) -> dict[str, Any]:
                if "sets" not in batch:
                    return super().predict_step(batch, batch_idx, **kwargs)
                return group.predict(self, batch["sets"])

        Grouping.__name__, Grouping.__doc__ = model.__name__, model.__doc__
        return Grouping

    def predict(self, model: Any, sets: Sets) -> dict[str, Any]:
        """Predict some sets; return the output for all their cells, or one without cells where `take` gets them."""
        self._running.append(self._start(model, sets))
        if self._take is None:
            return self._next().output
        if len(self._running) > 1:
            self._take(self._next())
        return _without_cells(sets.batch)

    def finish(self) -> None:
        """Wait for what is still being predicted, and have it taken."""
        while self._running:
            done = self._next()
            if self._take is not None:
                self._take(done)

    def _next(self) -> Predicted:
        done = self._running.popleft()()
        if self.trace_sink is not None:
            for batch, output, trace in _one_by_one(done):
                if trace is not None:
                    self.trace_sink(batch, output, trace)
        return done

    def _start(self, model: Any, sets: Sets) -> Callable[[], Predicted]:
        """Start to predict, and return what waits for the result."""
        device = next(model.parameters()).device
        starts = [0]
        for size in sets.sizes:
            starts.append(starts[-1] + size)
        independent = model.sets_are_independent
        most = CELLS_A_PASS.get(device.type, CELLS_A_PASS["cuda"]) if independent else 0
        decodes = model.gene_decoder is not None and self._decoded
        if self._backbone is None or self._backbone[0] is not model:
            self._backbone = model, lean(model.transformer_backbone)
        alone_of = _copies(model, self._backbone[1], without_decoder=not decodes and _undecoded_alike(model))
        passes = [(places, _rows(places, starts)) for places in _equally_long(sets.sizes, most)]

        def run(places: Sequence[int], rows: slice | Tensor) -> tuple[dict[str, Tensor], Any]:
            alone = alone_of(sets.sizes[places[0]])
            batch = {name: _part(sets.batch[name], rows, device) for name in INPUTS if name in sets.batch}
            with torch.no_grad():
                output = alone.predict_step(batch, 0, padded=True)
            names = ("preds", DECODED) if decodes else ("preds",)
            found = {name: output[name].float().cpu() for name in names}
            return found, batch.get("trace")

        jobs: list[Callable[[], Any]]
        if device.type == "cpu" and independent and self._threads > 1:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self._threads, "state-rag-set", torch.set_num_threads, (1,))
            futures: list[Future[Any]] = [self._pool.submit(run, *task) for task in passes]
            jobs = [future.result for future in futures]
        else:
            results = [run(*task) for task in passes]
            jobs = [lambda result=result: result for result in results]  # type: ignore[misc]

        def wait() -> Predicted:
            return _put_together(sets, starts, passes, [job() for job in jobs])

        return wait


def decoded_width(model: Any) -> int | None:
    """Return how many genes a model's decoder makes; None where it does not say."""
    width = getattr(model.gene_decoder, "gene_dim", None)
    found = width() if callable(width) else width
    return None if found is None else int(found)


def _copies(model: Any, backbone: torch.nn.Module, *, without_decoder: bool) -> Callable[[int], Any]:
    """Return a function that makes a copy for a pass over sets of some size.

    What a pass notes in the model is the copy's own; the parameters are shared.
    """
    parts = {**model._modules, "transformer_backbone": backbone}
    if without_decoder:
        parts["gene_decoder"] = None

    def make(size: int) -> Any:
        alone = copy.copy(model)
        alone.__dict__["_modules"] = parts
        alone.cell_sentence_len = size
        return alone

    return make


def _undecoded_alike(model: Any) -> bool:
    """Tell whether a prediction is the same where the model has no decoder: STATE cuts negative values off then."""
    anchored = getattr(model, "anchor", None)
    return model.hparams["embed_key"] in (None, "X_hvg") and (anchored is None or not anchored.decoded)


def _equally_long(sizes: Sequence[int], most: int) -> list[list[int]]:
    """Return the places of sets of equal length in groups of at most `most` cells, at least one set."""
    by_size: dict[int, list[int]] = {}
    for place, size in enumerate(sizes):
        by_size.setdefault(size, []).append(place)
    groups = []
    for size, places in by_size.items():
        step = max(1, most // size)
        groups += [places[start : start + step] for start in range(0, len(places), step)]
    return groups if most else sorted(groups)


def _rows(places: Sequence[int], starts: Sequence[int]) -> slice | Tensor:
    """Return the cells of some sets; those that follow each other need no copy."""
    if places[-1] - places[0] == len(places) - 1:
        return slice(starts[places[0]], starts[places[-1] + 1])
    return torch.cat([torch.arange(starts[place], starts[place + 1]) for place in places])


def _part(values: Any, rows: slice | Tensor, device: torch.device) -> Any:
    if isinstance(values, Tensor):
        return values[rows].to(device)
    return values[rows] if isinstance(rows, slice) else [values[row] for row in rows.tolist()]


def _put_together(sets: Sets, starts: Sequence[int], passes: Any, results: Any) -> Predicted:
    output: dict[str, Any] = {}
    traces: list[RetrievalTrace | None] = [None] * len(sets.sizes)
    for (places, rows), (found, trace) in zip(passes, results, strict=True):
        for name, values in found.items():
            if name not in output:
                output[name] = values.new_empty(starts[-1], values.shape[1])
            # by NumPy: torch's threads would wait here for cores that the next passes have
            output[name].numpy()[rows if isinstance(rows, slice) else rows.numpy()] = values.numpy()
        if trace is not None:
            names = [str(sets.batch["pert_name"][starts[place]]) for place in places]
            for place, part in zip(places, trace.of_sets(names), strict=True):
                traces[place] = part
    kept = ("pert_cell_emb", "pert_cell_counts", "pert_name", "batch", "ctrl_cell_emb")
    output |= {name: sets.batch.get(name) for name in kept}
    output |= {"celltype_name": sets.batch.get("cell_type"), "batch_name": sets.batch.get("batch_name")}
    output |= {name: sets.batch[name] for name in BARCODES if name in sets.batch}
    return Predicted(sets, output, traces)


def _one_by_one(done: Predicted) -> Any:
    start = 0
    for size, trace in zip(done.sets.sizes, done.traces, strict=True):
        own = slice(start, start + size)
        start += size

        def part(values: Any, own: slice = own) -> Any:
            return None if values is None else values[own]

        batch = {name: part(values) for name, values in done.sets.batch.items()}
        yield batch, {name: part(values) for name, values in done.output.items()}, trace


def _without_cells(batch: Mapping[str, Any]) -> dict[str, Any]:
    """Return an output of no cells; a single column fits arrays of any width."""
    barcodes = [name for name in BARCODES if name in batch]
    lists: dict[str, Any] = {name: [] for name in ("pert_name", "celltype_name", *barcodes)}
    names = ("preds", "pert_cell_emb", "pert_cell_counts", DECODED)
    return {**lists, **{name: torch.zeros(0, 1) for name in names}}
