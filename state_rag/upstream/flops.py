"""`--count-flops`: the floating-point operations of a prediction, and what retrieval adds to them."""

import json
import logging
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from state_rag.files import atomic_path

logger = logging.getLogger(__name__)


class FlopStats:
    """Counts matrix products (as `torch.utils.flop_counter` sees them) and writes ``flops_stats.json``.

    The same sets are counted once more without retrieval for the first sets of a run, from which the ratio
    follows: it depends on the sizes of sets only, not on their values.

    Parameters
    ----------
    path
        The file to write.
    compared
        Number of sets that are counted without retrieval as well.
    """

    def __init__(self, path: Path, compared: int = 8) -> None:
        self.path = path
        self._compared = compared
        self._total = self._batches = self._cells = self._parameters = 0
        self._with = self._without = 0

    def __enter__(self) -> "FlopStats":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None and self._batches:
            self._write()

    def counting(self, model: type[torch.nn.Module]) -> type[torch.nn.Module]:
        """Return a subclass of `model` whose `predict_step` is counted."""
        stats = self

        class Counting(model):  # type: ignore[misc,valid-type]
            def predict_step(self, batch: dict[str, Any], batch_idx: int, **kwargs: Any) -> dict[str, Any]:
                with FlopCounterMode(display=False) as counter:
                    output = super().predict_step(batch, batch_idx, **kwargs)
                stats._add(self, batch, counter.get_total_flops(), kwargs)
                return output

        Counting.__name__, Counting.__doc__ = model.__name__, model.__doc__
        return Counting

    def _add(self, model: Any, batch: Mapping[str, Any], count: int, kwargs: Mapping[str, Any]) -> None:
        self._total += count
        self._batches += 1
        self._cells += len(batch["pert_name"])
        self._parameters = sum(parameter.numel() for parameter in model.parameters())
        if self._batches <= self._compared:
            plain = getattr(model, "without_retrieval", nullcontext)
            with plain(), FlopCounterMode(display=False) as counter:
                model.forward(batch, **kwargs)
            self._without += counter.get_total_flops()
            with FlopCounterMode(display=False) as counter:
                model.forward(batch, **kwargs)
            self._with += counter.get_total_flops()

    def _write(self) -> None:
        values = {
            "total_flops": self._total,
            "batches": self._batches,
            "cells": self._cells,
            "flops_per_batch": self._total / self._batches,
            "flops_per_cell": self._total / max(self._cells, 1),
            "parameters": self._parameters,
            "ratio_to_no_retrieval": self._with / self._without if self._without else None,
        }
        with atomic_path(self.path) as temporary:
            temporary.write_text(json.dumps(values, indent=2) + "\n")
        logger.info(
            "%.3g FLOPs a cell, %s times the same model without retrieval: %s",
            values["flops_per_cell"],
            "?" if values["ratio_to_no_retrieval"] is None else f"{values['ratio_to_no_retrieval']:.4f}",
            self.path,
        )
