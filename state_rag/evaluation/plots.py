"""Pictures of evaluations and of retrieval. Each function but `save_figure` returns a matplotlib figure.

Colours are Okabe and Ito's (2008), which people with any of the common colour-vision deficiencies can tell apart.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from state_rag.evaluation.metrics.registry import Metric
from state_rag.files import atomic_path

BLUE, ORANGE, GREEN, PINK, SKY, RED, YELLOW, GREY = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#CC79A7",
    "#56B4E9",
    "#D55E00",
    "#F0E442",
    "#7F7F7F",
)
CYCLE = (BLUE, ORANGE, GREEN, PINK, SKY, RED, GREY, YELLOW)


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


def save_figure(figure: Figure, folder: Path, name: str) -> None:
    """Write a figure as `name.png` and `name.svg`."""
    settle(figure)
    for suffix in ("png", "svg"):
        with atomic_path(folder / f"{name}.{suffix}") as path:
            figure.savefig(path, format=suffix, dpi=150)


def settle(figure: Figure) -> None:
    """Lay a figure out once ahead: axes of equal aspect find their place, and room for their labels, only then."""
    figure.draw_without_rendering()


def distributions(tables: Mapping[str, pd.DataFrame], metrics: Sequence[Metric]) -> Figure:
    """Draw box plots of per-condition values, one panel a metric, one box a predictor.

    Boxes span the quartiles, whiskers reach 1.5 times that far, the triangle is the mean.
    """
    columns = 3
    rows = -(-len(metrics) // columns)
    names = list(tables)
    figure = Figure(figsize=(12, rows * (0.9 + 0.34 * len(names))), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for place, (ax, metric) in enumerate(zip(axes.flat, metrics, strict=False)):
        values = [table[metric.name].dropna().to_numpy() for table in tables.values()]
        boxes = ax.boxplot(
            values,
            orientation="horizontal",
            patch_artist=True,
            showmeans=True,
            widths=0.65,
            flierprops={"markersize": 2, "alpha": 0.4},
            meanprops={"marker": "^", "markerfacecolor": "white", "markeredgecolor": "black", "markersize": 5},
            medianprops={"color": "black"},
        )
        for number, box in enumerate(boxes["boxes"]):
            box.set_facecolor(CYCLE[number % len(CYCLE)])
        better = "higher is better" if metric.higher_is_better else "lower is better"
        ax.set_title(metric.label, fontsize=10)
        ax.set_xlabel(better, fontsize=8)
        ax.set_yticks(range(1, len(names) + 1), names if place % columns == 0 else [])
        ax.invert_yaxis()
        ax.grid(axis="x", alpha=0.3)
    for ax in axes.flat[len(metrics) :]:
        ax.set_visible(False)
    return figure


def effect_scatter(
    panels: Sequence[tuple[str, np.ndarray, np.ndarray, np.ndarray]], correlation: Sequence[float]
) -> Figure:
    """Draw predicted against real effects, one panel a condition.

    Parameters
    ----------
    panels
        Title, real effect `[G]`, predicted effect `[G]`, differential genes (boolean `[G]`).
    correlation
        Pearson correlation over all genes, for the titles.
    """
    figure = Figure(figsize=(4 * len(panels), 4.1), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)
    for ax, (title, real, predicted, degs), r in zip(axes.flat, panels, correlation, strict=True):
        ax.axline((0, 0), slope=1, color="black", linewidth=0.7, linestyle="--")
        ax.scatter(real[~degs], predicted[~degs], s=8, color=GREY, alpha=0.5, linewidths=0, label="other genes")
        ax.scatter(real[degs], predicted[degs], s=12, color=RED, alpha=0.8, linewidths=0, label="DEGs")
        limit = 1.05 * max(np.abs(real).max(), np.abs(predicted).max(), 1e-6)
        ax.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal")
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_locator(MaxNLocator(5, symmetric=True))
        ax.set_title(f"{title}\nr = {r:.2f}, {int(degs.sum())} DEGs", fontsize=10)
        ax.set_xlabel("real effect (difference of mean log expression)", fontsize=8)
    axes[0, 0].set_ylabel("predicted effect", fontsize=9)
    axes[0, 0].legend(fontsize=8, loc="upper left")
    return figure


def cell_map(
    panels: Sequence[tuple[str, np.ndarray, np.ndarray]], control: np.ndarray, axis_labels: tuple[str, str]
) -> Figure:
    """Draw cells in two dimensions: controls, real and predicted cells of each condition.

    Parameters
    ----------
    panels
        Title, real cells, predicted cells (coordinates `[n, 2]`).
    control
        Control cells `[n, 2]`.
    axis_labels
        What the two coordinates are.
    """
    figure = Figure(figsize=(4 * len(panels), 4), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False, sharex=True, sharey=True)
    for ax, (title, real, predicted) in zip(axes.flat, panels, strict=True):
        for cells, color, marker, label in (
            (control, "#C8C8C8", "o", "control"),
            (real, BLUE, "o", "real"),
            (predicted, ORANGE, "^", "predicted"),
        ):
            ax.scatter(
                cells[:, 0], cells[:, 1], s=14, color=color, marker=marker, alpha=0.75, linewidths=0, label=label
            )
        ax.set_title(title, fontsize=10)
        ax.set_xlabel(axis_labels[0], fontsize=9)
    axes[0, 0].set_ylabel(axis_labels[1], fontsize=9)
    axes[0, 0].legend(fontsize=8)
    return figure


def jaccard_map(jaccard: pd.DataFrame, shared: pd.DataFrame) -> Figure:
    """Draw the Jaccard index of selected sets for each pair of cell lines, with the number of perturbations."""
    size = 1.6 + 0.95 * len(jaccard)
    figure = Figure(figsize=(size + 1.2, size), layout="compressed")
    ax = figure.subplots()
    image = ax.imshow(jaccard, vmin=0, vmax=1, cmap="cividis")
    for row in range(len(jaccard)):
        for column in range(len(jaccard)):
            value = jaccard.iloc[row, column]
            text = "-" if not np.isfinite(value) else f"{value:.2f}\nn = {shared.iloc[row, column]}"
            ax.text(column, row, text, ha="center", va="center", fontsize=9, color="white" if value <= 0.5 else "black")
    _ticks(ax, list(jaccard.index))
    figure.colorbar(image, label="mean Jaccard index of selected neighbours", shrink=0.8)
    return figure


def inclusion_by_rank(neighbours: pd.DataFrame) -> Figure:
    """Draw mean inclusion against the rank of retrieval, one line a cell line; bands are two standard errors."""
    figure = Figure(figsize=(6, 3.8), layout="constrained")
    ax = figure.subplots()
    for number, (line, rows) in enumerate(neighbours.groupby("cell_line")):
        grouped = rows.groupby("rank")["inclusion"].agg(["mean", "sem"]).fillna(0)
        color = CYCLE[number % len(CYCLE)]
        ax.plot(grouped.index, grouped["mean"], marker="o", markersize=3.5, color=color, label=str(line))
        low, high = grouped["mean"] - 2 * grouped["sem"], grouped["mean"] + 2 * grouped["sem"]
        ax.fill_between(grouped.index, low, high, color=color, alpha=0.2, linewidth=0)
    ax.set(xlabel="rank of the neighbour (1 is most similar)", ylabel="mean inclusion weight")
    ax.set_ylim(0, 1.02 * max(1.0, float(neighbours["inclusion"].max())))
    ax.grid(alpha=0.3)
    ax.legend(title="cell line", fontsize=8)
    return figure


def inclusion_against(neighbours: pd.DataFrame, column: str, label: str) -> Figure:
    """Draw inclusion against a property of the neighbour: points, and means in ten bins of equal size."""
    rows = neighbours.dropna(subset=[column])
    figure = Figure(figsize=(6, 3.8), layout="constrained")
    ax = figure.subplots()
    ax.scatter(
        rows[column], rows["inclusion"], s=6, color=SKY, alpha=0.4, linewidths=0, label="neighbour of a condition"
    )
    if rows[column].nunique() > 10:
        bins = pd.qcut(rows[column], 10, duplicates="drop")
        means = rows.groupby(bins, observed=True).agg({column: "mean", "inclusion": "mean"})
        ax.plot(means[column], means["inclusion"], color=RED, marker="s", markersize=5, label="mean of a tenth")
    ax.set(xlabel=label, ylabel="mean inclusion weight")
    ax.grid(alpha=0.3)
    ax.legend(fontsize=8)
    return figure


def ablation(table: pd.DataFrame, at_most: int = 30) -> Figure:
    """Draw an `ablation.ablation_table`: each neighbour's change against its inclusion, and agreement without them.

    Parameters
    ----------
    table
        The table.
    at_most
        Conditions in the right panel: those whose agreement hangs most on their neighbours.
    """
    single, none = table[table["rank"].notna()], table[table["rank"].isna()]
    spans = single.groupby(["cell_line", "perturbation"])["pearson_delta_without"].agg(["min", "max"])
    order = none["help"].abs().sort_values(ascending=False, kind="stable").index[:at_most]
    rows = none.loc[order].sort_values("pearson_delta", kind="stable")
    figure = Figure(figsize=(12, max(4.2, 1.6 + 0.24 * len(rows))), layout="constrained")
    left, right = figure.subplots(1, 2)
    for helps, color, marker, label in (
        (True, BLUE, "o", "nearer to the real effect with it"),
        (False, ORANGE, "^", "no nearer with it"),
    ):
        some = single[(single["help"] > 0) == helps]
        left.scatter(
            some["inclusion"],
            100 * some["relative_change"],
            s=16,
            color=color,
            marker=marker,
            alpha=0.7,
            linewidths=0,
            label=f"{label} ({len(some)})",
        )
    left.set(
        xlabel="mean weight of the neighbour", ylabel="change of the predicted effect\nwithout it (% of its length)"
    )
    left.set_title(f"{len(single)} single neighbours of {len(none)} conditions", fontsize=10)
    places = np.arange(len(rows))
    for place, row in zip(places, rows.itertuples(), strict=True):
        low, high = spans.loc[(row.cell_line, row.perturbation)]
        right.plot([low, high], [place, place], color=GREY, linewidth=9, alpha=0.5, solid_capstyle="butt")
    right.plot([], [], color=GREY, linewidth=9, alpha=0.5, label="without one: from lowest to highest")
    right.plot(rows["pearson_delta"], places, "o", color=BLUE, markersize=5, label="with all neighbours")
    right.plot(rows["pearson_delta_without"], places, "^", color=ORANGE, markersize=5, label="with none")
    lines = table["cell_line"].nunique()
    names = [row.perturbation if lines == 1 else f"{row.perturbation} in {row.cell_line}" for row in rows.itertuples()]
    right.set_yticks(places, names, fontsize=8)
    right.set_ylim(-0.8, len(rows) - 0.2)
    right.set_xlabel("Pearson correlation of predicted and real effect")
    which = f"the {len(rows)} conditions that hang most on neighbours" if len(rows) < len(none) else "every condition"
    right.set_title(which + (f", {table['cell_line'].iloc[0]}" if lines == 1 else ""), fontsize=10)
    for ax in (left, right):
        ax.grid(alpha=0.3)
        ax.legend(fontsize=8, loc="best")
    return figure


def learning_curves(curves: Mapping[str, pd.DataFrame], column: str) -> Figure:
    """Draw a logged quantity against the training step, one line a run."""
    figure = Figure(figsize=(6, 3.8), layout="constrained")
    ax = figure.subplots()
    for number, (name, table) in enumerate(curves.items()):
        rows = table.dropna(subset=[column])
        ax.plot(rows["step"], rows[column], color=CYCLE[number % len(CYCLE)], linewidth=1.3, label=name)
    ax.set(xlabel="training step", ylabel=column)
    ax.grid(alpha=0.3)
    ax.legend(fontsize=8)
    return figure


def _ticks(ax: Axes, names: list[str]) -> None:
    ax.set_xticks(range(len(names)), names, rotation=30, ha="right")
    ax.set_yticks(range(len(names)), names)
