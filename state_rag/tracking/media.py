"""Pictures and tables for W&B. The only module of this room that makes W&B objects while a model trains."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from state_rag.tracking.probe import Answer
from state_rag.tracking.watched import COLUMNS

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

MAX_BINS = 512
"""What W&B accepts in a histogram."""


def wandb_loggers(trainer: Trainer) -> list[Any]:
    """Return the trainer's W&B loggers whose run is recorded; none where ``WANDB_MODE=disabled``."""
    if "wandb" not in sys.modules:
        return []
    from lightning.pytorch.loggers import WandbLogger

    found = [logger for logger in trainer.loggers if isinstance(logger, WandbLogger)]
    return [logger for logger in found if not getattr(logger.experiment, "disabled", False)]


def rank_histogram(shares: Tensor) -> Any:
    """Return the mean weight of each rank [K] as a histogram, which W&B shows as a heat map over steps."""
    import wandb

    heights = shares.detach().cpu().numpy()[:MAX_BINS]
    return wandb.Histogram(np_histogram=(heights, np.arange(len(heights) + 1) + 0.5))


def rank_table(answer: Answer) -> Any:
    """Return the mean weight by cell type and rank."""
    import wandb

    means = answer.weights.mean(1).tolist()
    rows = [
        [cell_type, rank, weight]
        for cell_type, weights in zip(answer.cell_types, means, strict=True)
        for rank, weight in enumerate(weights, start=1)
    ]
    return wandb.Table(columns=["cell_type", "rank", "weight"], data=rows)


def jaccard_table(indices: Tensor, counts: Tensor, names: Sequence[str]) -> Any:
    """Return the Jaccard index of each pair of cell types."""
    import wandb

    rows = [
        [names[first], names[second], float(indices[first, second]), int(counts[first, second])]
        for first in range(len(names))
        for second in range(first + 1, len(names))
    ]
    return wandb.Table(columns=["cell_type", "other_cell_type", "jaccard", "perturbations"], data=rows)


def watched_table(rows: Sequence[dict[str, Any]]) -> Any:
    """Return the rows of `state_rag.tracking.watched` so far."""
    import wandb

    return wandb.Table(columns=list(COLUMNS), data=[[row[name] for name in COLUMNS] for row in rows])


def heat_map(indices: Tensor, names: Sequence[str]) -> Any:
    """Return a picture of the Jaccard indices, cell types x cell types."""
    import wandb

    figure = heat_map_figure(indices.numpy(), names)
    return wandb.Image(figure)


def heat_map_figure(indices: np.ndarray, names: Sequence[str]) -> Any:
    """Draw the heat map without touching pyplot's global state."""
    from matplotlib.figure import Figure

    side = 1.8 + 0.55 * len(names)
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.subplots()
    picture = axes.imshow(indices, vmin=0, vmax=1, cmap="viridis")
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
    axes.set_yticks(range(len(names)), names)
    for (row, column), value in np.ndenumerate(indices):
        if np.isfinite(value):
            shade = "white" if value < 0.6 else "black"
            axes.text(column, row, f"{value:.2f}", ha="center", va="center", color=shade, fontsize=8)
    axes.set_title("neighbours shared (blank: none selected)", fontsize=10)
    figure.colorbar(picture, ax=axes, label="Jaccard index", shrink=0.8)
    return figure
