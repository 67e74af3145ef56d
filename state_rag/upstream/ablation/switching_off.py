"""Predict one cell set with all its neighbours, without each, and without any."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from state_rag.retrieval.trace import RetrievalTrace
from state_rag.upstream.swap import replaced

OUTPUT_ELEMENTS = 2**26
CLIP = 14.0
"""Upstream clips gene values to 0 ... 14 before it writes predictions; so are they here."""


@dataclass
class LastTrace:
    """A trace sink (see `RagStateTransition.bound_to`) that keeps the latest trace."""

    trace: RetrievalTrace | None = None

    def __call__(self, batch: Mapping[str, Any], output: Mapping[str, Any], trace: RetrievalTrace) -> None:
        """Keep `trace`."""
        self.trace = trace


@dataclass(frozen=True)
class Variants:
    """One cell set of S cells predicted K + 2 times; sums over its cells.

    Attributes
    ----------
    whole, without_any
        Sum of the predicted cells with all K candidates and with none, `[G]`.
    without_one
        The same without each candidate, `[K, G]`.
    inclusion
        Sum of each candidate's weight over the cells, with all candidates, `[K]`.
    candidates, similarity
        Names and cosines, most similar first.
    """

    whole: np.ndarray
    without_one: np.ndarray
    without_any: np.ndarray
    inclusion: np.ndarray
    candidates: tuple[str, ...]
    similarity: np.ndarray


@dataclass(frozen=True)
class Space:
    """Which values of a batch upstream writes as predicted and real cells, and whether it may clip them."""

    predicted: str = "preds"
    real: str = "pert_cell_emb"
    clip: bool = True

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> "Space":
        """Return the space that a run's data settings lead to."""
        key, output = data.get("embed_key"), data.get("output_space", "all")
        if key is not None and (output == "all" or (output == "gene" and key != "X_hvg")):
            return cls("pert_cell_counts_preds", "pert_cell_counts")
        return cls(clip=output != "embedding")

    def clipped(self, cells: Tensor) -> Tensor:
        """Return float32 cells, clipped as upstream clips genes."""
        return cells.float().clamp(0, CLIP) if self.clip else cells.float()


@contextlib.contextmanager
def weights_times(model: Any, keep: Tensor) -> Iterator[None]:
    """Multiply the weights of the candidates by `keep` [B, K] in every forward pass of the block.

    Weights that are left are not scaled up: without candidate k, the context lacks `w_k h'_k` (or `w_k v_k`) and
    nothing else changes, whatever way of retrieving it is.
    """

    def add(_module: Any, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        return args, {**kwargs, "keep": keep}

    handle = model.retriever.register_forward_pre_hook(add, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def switch_off_each(model: Any, batch: Mapping[str, Any], last: LastTrace, space: Space | None = None) -> Variants:
    """Predict one cell set with all its candidates, without each, and without any.

    Parameters
    ----------
    model
        A `RagStateTransition` in evaluation mode, bound to `last` as its trace sink.
    batch
        One set of S cells of one perturbation, as a test loader yields it.
    last
        The sink.
    space
        What counts as the predicted cells; by default what the model calls so.

    Returns
    -------
    Variants
        Every variant starts from the same cells. Some go through the model together, the whole prediction with
        each group, so that a difference is never that of two batch sizes.
    """
    count = len(batch["pert_name"])
    k = model.settings.topk_rag
    keep = torch.ones(k + 2, k)
    keep[1 : k + 1] -= torch.eye(k)
    keep[k + 1] = 0
    size = max(1, OUTPUT_ELEMENTS // (count * model.output_dim) - 1)
    sums: list[np.ndarray] = []
    first: tuple[np.ndarray, RetrievalTrace] | None = None
    for start in range(1, k + 2, size):
        chosen = torch.cat((keep[:1], keep[start : start + size])).to(model.device)
        predicted = _predict(model, batch, chosen, space or Space())
        assert last.trace is not None
        if first is None:
            first = predicted[0], last.trace
        # Differences against the whole prediction of the same group.
        sums.extend(first[0] + (predicted[1:] - predicted[0]))
    assert first is not None
    whole, trace = first
    return Variants(
        whole,
        np.stack(sums[:k]),
        sums[k],
        trace.weights[0].sum(axis=0, dtype=np.float64),
        tuple(trace.candidates[0]),
        trace.similarity[0].astype(np.float64),
    )


def _predict(model: Any, batch: Mapping[str, Any], keep: Tensor, space: Space) -> np.ndarray:
    """Return the sum over cells of each variant's predicted cells, float64 `[len(keep), G]`."""
    variants, names = len(keep), list(batch["pert_name"])
    repeated: dict[str, Any] = {"pert_name": names * variants}
    for key in ("ctrl_cell_emb", "batch"):
        if torch.is_tensor(batch.get(key)):
            values = batch[key].to(model.device).reshape(len(names), *batch[key].shape[1:])
            repeated[key] = values.repeat(variants, *[1] * (values.dim() - 1))
    with torch.no_grad(), weights_times(model, keep), replaced(model, "cell_sentence_len", len(names)):
        output = model.predict_step(repeated, 0, padded=True)
    return (
        space.clipped(output[space.predicted])
        .reshape(variants, len(names), -1)
        .sum(dim=1, dtype=torch.float64)
        .cpu()
        .numpy()
    )
