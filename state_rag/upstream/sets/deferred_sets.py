"""Predict the sets of `state tx infer` many at a time, although it asks for one after the other.

The command draws a set's control cells, asks for its prediction and writes it to the set's rows. It is handed zeros;
the sets wait until there are enough of them, and what was predicted takes the place of the zeros before anything is
written.
"""

import logging
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from state_rag.cells.anchored import LARGEST
from state_rag.upstream.sets.grouped_loader import WINDOW_BYTES, Sets
from state_rag.upstream.sets.grouped_sets import DECODED, GroupedSets, Predicted, TraceSink, decoded_width

if TYPE_CHECKING:
    import anndata


logger = logging.getLogger(__name__)


class DeferredSets:
    """Gathers sets, predicts them, and holds what was predicted; use it in a `with` block.

    Parameters
    ----------
    decoded
        Whether what the gene decoder makes of a prediction is wanted (`grouped_sets.keeps_decoded`).
    about
        Returns, for the set that is asked for, what its batch does not say: values by name, each for all of its cells.
    trace_sink
        Is called for each set as the model's own would be.
    """

    def __init__(self, decoded: bool, about: Callable[[], dict[str, Any]], trace_sink: TraceSink | None = None) -> None:
        self._group = GroupedSets(self._take, decoded)
        self._group.trace_sink = trace_sink
        self._decoded, self._about = decoded, about
        self._waiting: list[dict[str, Any]] = []
        self._done: dict[str, list[np.ndarray]] = {}
        self._model: Any = None
        self._n_cells, self._started = 0, 0.0

    def __enter__(self) -> "DeferredSets":
        self._group.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._group.__exit__(kind, error, trace)

    def deferring(self, model: type[torch.nn.Module]) -> type[torch.nn.Module]:
        """Return a subclass of `model` whose `predict_step` puts single sets off, where sets are independent."""
        deferred = self

        class Deferring(model):  # type: ignore[misc,valid-type]
            def predict_step(
                self, batch: dict[str, Any], batch_idx: int, padded: bool = True, **kwargs: Any
            ) -> dict[str, Any]:
                if padded or not deferred.can_defer(self):
                    output = super().predict_step(batch, batch_idx, padded=padded, **kwargs)
                    if not padded:
                        deferred.tell_trace(batch, output)
                    return output
                return deferred.put_off(self, batch)

        Deferring.__name__, Deferring.__doc__ = model.__name__, model.__doc__
        return Deferring

    def can_defer(self, model: Any) -> bool:
        """Tell whether sets can be put off: they are independent, and the size of the answer is known beforehand."""
        known = model.gene_decoder is None or decoded_width(model) is not None
        return bool(model.sets_are_independent and known)

    def tell_trace(self, batch: dict[str, Any], output: dict[str, Any]) -> None:
        """Pass on what was retrieved for a set that was predicted at once."""
        if self._group.trace_sink is not None and "trace" in batch:
            self._group.trace_sink(batch, output, batch["trace"])

    def put_off(self, model: Any, batch: dict[str, Any]) -> dict[str, Any]:
        """Take a set, and return zeros in the shapes of its prediction."""
        self._model = model
        self._started = self._started or time.monotonic()
        count = len(batch["pert_name"])
        self._waiting.append({**batch, **{name: [value] * count for name, value in self._about().items()}})
        held = sum(one["ctrl_cell_emb"].nbytes for one in self._waiting)
        if 2 * held >= WINDOW_BYTES:
            self._predict()
        answer = {"preds": torch.zeros(1, model.output_dim).expand(count, -1)}
        if model.gene_decoder is not None and (width := decoded_width(model)) is not None:
            answer[DECODED] = torch.zeros(1, width).expand(count, -1)
        return answer

    def _predict(self) -> None:
        sizes = [len(one["pert_name"]) for one in self._waiting]
        joined: dict[str, Any] = {}
        for name in ("ctrl_cell_emb", "batch"):
            if name in self._waiting[0]:
                joined[name] = torch.cat([one[name] for one in self._waiting])
        for name in set(self._waiting[0]) - {"ctrl_cell_emb", "batch", "pert_emb"}:
            joined[name] = [value for one in self._waiting for value in one[name]]
        self._waiting = []
        self._group.predict(self._model, Sets(joined, sizes))

    def _take(self, done: Predicted) -> None:
        self._n_cells += sum(done.sets.sizes)
        for name in ("preds", DECODED):
            if name in done.output:
                self._done.setdefault(name, []).append(done.output[name].numpy().astype(np.float32))

    def fill(self, result: "anndata.AnnData", rows: np.ndarray, key: str, beside: str | None, clipped: bool) -> None:
        """Put what was predicted in the place of the zeros; nothing to do where no set was put off.

        Parameters
        ----------
        result
            What STATE would write.
        rows
            Row of every predicted cell, in the order of the sets.
        key
            Where the main prediction stands, ``X`` or ``obsm/NAME``.
        beside
            Where the prediction in the model's own space stands if `key` holds decoded genes.
        clipped
            Whether STATE cuts values to [0, 14].
        """
        if self._waiting:
            self._predict()
        self._group.finish()
        if not self._done:
            return
        taken = max(time.monotonic() - self._started, 1e-9)
        logger.info("%d cells predicted, %.0f cells/s", self._n_cells, self._n_cells / taken)
        decoded = DECODED in self._done
        targets = {key: DECODED if decoded else "preds"}
        if decoded and beside is not None:
            targets[beside] = "preds"
        for place, name in targets.items():
            target = result.X if place == "X" else result.obsm[place.removeprefix("obsm/")]
            start = 0
            for values in self._done[name]:
                target[rows[start : start + len(values)]] = np.clip(values, 0, LARGEST) if clipped else values
                start += len(values)
        self._done = {}
