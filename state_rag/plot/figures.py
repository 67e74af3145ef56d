"""Whole figures of the report: panels of the pictures beside this module, laid out and with legends.

Each function returns a matplotlib figure that no window holds.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from state_rag.metrics.registry import Metric
from state_rag.plot import conditions, retrieval, training
from state_rag.plot.style import LONGEST

IN_A_ROW = 3
"""Panels beside each other at most."""
SHOWN_METRICS = (
    "pearson_deg",
    "pearson_delta",
    "pearson_delta_deg",
    "direction_deg",
    "discrimination",
    "mse",
    "w2_pca50",
    "energy_pca50",
    "mmd_pca50",
)


def distributions(tables: Mapping[str, pd.DataFrame], metrics: Sequence[Metric]) -> Figure:
    """Draw `conditions.distribution`, one panel a metric."""
    columns = 3
    rows = -(-len(metrics) // columns)
    figure = Figure(figsize=(12, rows * (0.9 + 0.34 * len(tables))), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for place, (ax, metric) in enumerate(zip(axes.flat, metrics, strict=False)):
        conditions.distribution(tables, metric, ax)
        if place % columns:
            ax.set_yticklabels([])
    for ax in axes.flat[len(metrics) :]:
        ax.set_visible(False)
    return figure


def effect_scatters(panels: Sequence[tuple[str, np.ndarray, np.ndarray, np.ndarray]]) -> Figure:
    """Draw `conditions.effect_scatter`, one panel a condition.

    Parameters
    ----------
    panels
        Title, real effect `[G]`, predicted effect `[G]`, differential genes (boolean `[G]`).
    """
    figure, axes = _panels(len(panels))
    for ax, (title, real, predicted, degs) in zip(axes, panels, strict=True):
        conditions.effect_scatter(real, predicted, degs, title, ax)
    axes[0].legend(fontsize=8, loc="upper left")
    _label_first_column_only(axes)
    return figure


def cell_map(
    panels: Sequence[tuple[str, np.ndarray, np.ndarray]], control: np.ndarray, axis_labels: tuple[str, str]
) -> Figure:
    """Draw `conditions.cells`, one panel a condition.

    Parameters
    ----------
    panels
        Title, real cells, predicted cells (coordinates `[n, 2]`).
    control
        Control cells `[n, 2]`.
    axis_labels
        What the two coordinates are.
    """
    figure, axes = _panels(len(panels), share=True)
    for ax, (title, real, predicted) in zip(axes, panels, strict=True):
        conditions.cells(control, real, predicted, title, ax)
        ax.set_xlabel(axis_labels[0], fontsize=9)
        ax.set_ylabel(axis_labels[1], fontsize=9)
    axes[0].legend(fontsize=8)
    _label_first_column_only(axes)
    return figure


class Overlap(Protocol):
    """Tables of lines x lines, as `analysis.overlap.LineOverlap` has them."""

    sets: pd.DataFrame
    n_sets: pd.DataFrame
    weighted: pd.DataFrame
    n_weighted: pd.DataFrame
    shared: pd.DataFrame


def jaccard_map(overlap: Overlap) -> Figure | None:
    """Draw the overlap of what pairs of cell lines choose: of selected sets, and weighted by inclusion.

    The first is left out where it is undefined for every pair. None where no two lines have a perturbation in common.
    """
    lines = list(overlap.shared.index)
    between = ~np.eye(len(lines), dtype=bool)
    if not overlap.shared.to_numpy()[between].any():
        return None
    panels = [("weighted by mean inclusion", overlap.weighted, overlap.n_weighted)]
    if overlap.n_sets.to_numpy()[between].any():
        panels.insert(0, ("selected sets (mean inclusion > 0.5)", overlap.sets, overlap.n_sets))
    else:
        panels = [("weighted by mean inclusion\n(no set is selected in any pair)", *panels[0][1:])]
    size = max(3.2, 1.6 + 0.95 * len(lines))
    figure = Figure(figsize=(size * len(panels) + 1.2, size + 0.3), layout="compressed")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for ax, (title, values, counts) in zip(axes, panels, strict=True):
        retrieval.jaccard(values, counts, title, ax)
        if ax is not axes[0]:
            ax.set_yticks([])
    figure.colorbar(axes[0].images[0], ax=list(axes), label="mean Jaccard index", shrink=0.8)
    return figure


def inclusion_by_rank(neighbours: pd.DataFrame) -> Figure:
    """Draw `retrieval.inclusion_by_rank`."""
    figure = Figure(figsize=(6, 3.8), layout="constrained")
    retrieval.inclusion_by_rank(neighbours, figure.subplots())
    return figure


def inclusion_against(neighbours: pd.DataFrame, column: str, xlabel: str) -> Figure:
    """Draw `retrieval.inclusion_against`."""
    figure = Figure(figsize=(6, 3.8), layout="constrained")
    retrieval.inclusion_against(neighbours, column, xlabel, figure.subplots())
    return figure


def ablation(table: pd.DataFrame, at_most: int = 30) -> Figure:
    """Draw `retrieval.ablated_neighbours` and, beside it, `retrieval.ablated_conditions`."""
    shown = len(retrieval.hanging_on_neighbours(table, at_most))
    figure = Figure(figsize=(12, max(4.2, 1.6 + 0.24 * shown)), layout="constrained")
    left, right = figure.subplots(1, 2)
    retrieval.ablated_neighbours(table, left)
    retrieval.ablated_conditions(table, at_most, right)
    return figure


def learning_curves(curves: Mapping[str, pd.DataFrame], column: str) -> Figure:
    """Draw `training.learning_curves`, with the legend below it."""
    figure = Figure(figsize=(7, 3.6 + 0.2 * len(curves)), layout="constrained")
    training.learning_curves(curves, column, figure.subplots())
    figure.legend(loc="outside lower center", fontsize=8, ncols=1 if max(map(len, curves)) > LONGEST / 2 else 3)
    return figure


def _panels(count: int, share: bool = False) -> tuple[Figure, list[Axes]]:
    """Return a figure with so many square panels, `IN_A_ROW` in a row."""
    rows, columns = -(-count // IN_A_ROW), min(count, IN_A_ROW)
    figure = Figure(figsize=(4 * columns, 4.1 * rows), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False, sharex=share, sharey=share).flat)
    for ax in axes[count:]:
        ax.set_visible(False)
    return figure, axes[:count]


def _label_first_column_only(axes: Sequence[Axes]) -> None:
    for number, ax in enumerate(axes):
        if number % IN_A_ROW:
            ax.set_ylabel("")
