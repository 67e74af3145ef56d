"""Pictures of evaluations and of retrieval. Each function but `save_figure` returns a matplotlib figure.

Colours are Okabe and Ito's (2008), which people with any of the common colour-vision deficiencies can tell apart.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from state_rag.evaluation.metrics.registry import Metric
from state_rag.evaluation.retrieval_analysis import LineOverlap
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
STROKES = ("-", "--", ":", "-.")
"""Of lines, from one round of colours to the next."""
LONGEST = 36
"""Characters of a name in a picture; longer ones are cut in the middle."""
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


def save_figure(figure: Figure, folder: Path, name: str) -> None:
    """Write a figure as `name.png` and `name.svg`."""
    settle(figure)
    for suffix in ("png", "svg"):
        with atomic_path(folder / f"{name}.{suffix}") as path:
            figure.savefig(path, format=suffix, dpi=150)


def settle(figure: Figure) -> None:
    """Lay a figure out once ahead: axes of equal aspect find their place, and room for their labels, only then."""
    figure.draw_without_rendering()


def plain(text: str) -> str:
    """Return a text that matplotlib draws as it is, dollar signs included."""
    return text.replace("$", r"\$")


def labels(names: Iterable[str], longest: int = LONGEST) -> list[str]:
    """Return names to draw: plain, long ones cut in the middle unless that would make two of them alike.

    Examples
    --------
    >>> labels(["short", "a_run_of_ptrag_with_K_32_and_hidden_128"], longest=17)
    ['short', 'a_run_of…dden_128']
    """
    names = list(names)
    head = (longest - 1) // 2
    tail = longest - 1 - head
    short = [name if len(name) <= longest else f"{name[:head]}…{name[-tail:]}" for name in names]
    return [plain(cut if short.count(cut) == 1 else name) for cut, name in zip(short, names, strict=True)]


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
        ax.set_title(plain(metric.label), fontsize=10)
        ax.set_xlabel(better, fontsize=8)
        ax.set_yticks(range(1, len(names) + 1), labels(names) if place % columns == 0 else [])
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
    figure, axes = _panels(len(panels))
    for ax, (title, real, predicted, degs), r in zip(axes, panels, correlation, strict=True):
        ax.axline((0, 0), slope=1, color="black", linewidth=0.7, linestyle="--")
        ax.scatter(real[~degs], predicted[~degs], s=8, color=GREY, alpha=0.5, linewidths=0, label="other genes")
        ax.scatter(real[degs], predicted[degs], s=12, color=RED, alpha=0.8, linewidths=0, label="DEGs")
        limit = 1.05 * max(np.abs(real).max(), np.abs(predicted).max(), 1e-6)
        ax.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal")
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_locator(MaxNLocator(5, symmetric=True))
        ax.set_title(f"{plain(title)}\nr = {r:.2f}, {int(degs.sum())} DEGs", fontsize=10)
        ax.set_xlabel("real effect (difference of mean log expression)", fontsize=8)
    axes[0].legend(fontsize=8, loc="upper left")
    for ax in axes[::IN_A_ROW]:
        ax.set_ylabel("predicted effect", fontsize=9)
    return figure


def _panels(count: int, share: bool = False) -> tuple[Figure, list[Axes]]:
    """Return a figure with so many square panels, `IN_A_ROW` in a row."""
    rows, columns = -(-count // IN_A_ROW), min(count, IN_A_ROW)
    figure = Figure(figsize=(4 * columns, 4.1 * rows), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False, sharex=share, sharey=share).flat)
    for ax in axes[count:]:
        ax.set_visible(False)
    return figure, axes[:count]


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
    figure, axes = _panels(len(panels), share=True)
    for ax, (title, real, predicted) in zip(axes, panels, strict=True):
        for cells, color, marker, label in (
            (control, "#C8C8C8", "o", "control"),
            (real, BLUE, "o", "real"),
            (predicted, ORANGE, "^", "predicted"),
        ):
            ax.scatter(
                cells[:, 0], cells[:, 1], s=14, color=color, marker=marker, alpha=0.75, linewidths=0, label=label
            )
        ax.set_title(plain(title), fontsize=10)
        ax.set_xlabel(axis_labels[0], fontsize=9)
    axes[0].legend(fontsize=8)
    for ax in axes[::IN_A_ROW]:
        ax.set_ylabel(axis_labels[1], fontsize=9)
    return figure


def jaccard_map(overlap: LineOverlap) -> Figure | None:
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
        image = ax.imshow(values, vmin=0, vmax=1, cmap="cividis")
        for row in range(len(lines)):
            for column in range(len(lines)):
                value = values.iloc[row, column]
                text = f"{value:.2f}\nn = {counts.iloc[row, column]}" if np.isfinite(value) else "-"
                color = "white" if value <= 0.5 else "black"
                ax.text(column, row, text, ha="center", va="center", fontsize=9, color=color)
        ax.set_title(title, fontsize=10)
        _ticks(ax, labels(lines, 20) if ax is axes[0] else [], labels(lines, 20))
    figure.colorbar(image, ax=list(axes), label="mean Jaccard index", shrink=0.8)
    return figure


def inclusion_by_rank(neighbours: pd.DataFrame) -> Figure:
    """Draw mean inclusion against the rank of retrieval, one line a cell line; bands are two standard errors."""
    figure = Figure(figsize=(6, 3.8), layout="constrained")
    ax = figure.subplots()
    for number, (line, rows) in enumerate(neighbours.groupby("cell_line")):
        grouped = rows.groupby("rank")["inclusion"].agg(["mean", "sem"]).fillna(0)
        color, stroke = _stroke(number)
        ax.plot(grouped.index, grouped["mean"], stroke, marker="o", markersize=3.5, color=color, label=plain(str(line)))
        low, high = grouped["mean"] - 2 * grouped["sem"], grouped["mean"] + 2 * grouped["sem"]
        ax.fill_between(grouped.index, low, high, color=color, alpha=0.2, linewidth=0)
    ax.set(xlabel="rank of the neighbour (1 is most similar)", ylabel="mean inclusion weight")
    ax.set_ylim(0, 1.02 * max(1.0, float(neighbours["inclusion"].max())))
    ax.grid(alpha=0.3)
    ax.legend(title="cell line", fontsize=8)
    return figure


def inclusion_against(neighbours: pd.DataFrame, column: str, xlabel: str) -> Figure:
    """Draw inclusion against a property of the neighbour: points, and means of at most ten equally large groups.

    A group has at least twenty neighbours; fewer than forty neighbours are shown as points alone.
    """
    rows = neighbours.dropna(subset=[column])
    figure = Figure(figsize=(6, 3.8), layout="constrained")
    ax = figure.subplots()
    size, alpha = (6, 0.4) if len(rows) > 500 else (14, 0.9)
    ax.scatter(
        rows[column], rows["inclusion"], s=size, color=SKY, alpha=alpha, linewidths=0, label="neighbour of a condition"
    )
    groups = min(10, len(rows) // 20)
    if groups > 1 and rows[column].nunique() > groups:
        bins = pd.qcut(rows[column], groups, duplicates="drop")
        means = rows.groupby(bins, observed=True).agg({column: "mean", "inclusion": "mean"})
        label = f"mean of each of {len(means)} equal groups"
        ax.plot(means[column], means["inclusion"], color=RED, marker="s", markersize=5, label=label)
    ax.set(xlabel=xlabel, ylabel="mean inclusion weight")
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
    many = "s" if len(none) > 1 else ""
    left.set_title(f"{len(single)} single neighbours of {len(none)} condition{many}", fontsize=10)
    places = np.arange(len(rows))
    for place, row in zip(places, rows.itertuples(), strict=True):
        low, high = spans.loc[(row.cell_line, row.perturbation)]
        right.plot([low, high], [place, place], color=GREY, linewidth=9, alpha=0.5, solid_capstyle="butt")
    right.plot([], [], color=GREY, linewidth=9, alpha=0.5, label="without one: from lowest to highest")
    right.plot(rows["pearson_delta"], places, "o", color=BLUE, markersize=5, label="with all neighbours")
    right.plot(rows["pearson_delta_without"], places, "^", color=ORANGE, markersize=5, label="with none")
    lines = table["cell_line"].nunique()
    names = [row.perturbation if lines == 1 else f"{row.perturbation} in {row.cell_line}" for row in rows.itertuples()]
    right.set_yticks(places, labels(names), fontsize=8)
    right.set_ylim(-0.8, len(rows) - 0.2)
    right.set_xlabel("Pearson correlation of predicted and real effect")
    which = f"the {len(rows)} conditions that hang most on neighbours" if len(rows) < len(none) else "every condition"
    right.set_title(which + (f", {plain(table['cell_line'].iloc[0])}" if lines == 1 else ""), fontsize=10)
    for ax in (left, right):
        ax.grid(alpha=0.3)
        ax.legend(fontsize=8, loc="best")
    return figure


def learning_curves(curves: Mapping[str, pd.DataFrame], column: str) -> Figure:
    """Draw a logged quantity against the training step, one line a run."""
    figure = Figure(figsize=(7, 3.6 + 0.2 * len(curves)), layout="constrained")
    ax = figure.subplots()
    for number, (name, table) in enumerate(zip(labels(curves), curves.values(), strict=True)):
        rows = table.dropna(subset=[column])
        color, stroke = _stroke(number)
        ax.plot(rows["step"], rows[column], color=color, linestyle=stroke, linewidth=1.3, label=name)
    ax.set(xlabel="training step", ylabel=column)
    ax.grid(alpha=0.3)
    figure.legend(loc="outside lower center", fontsize=8, ncols=1 if max(map(len, curves)) > LONGEST / 2 else 3)
    return figure


def _stroke(number: int) -> tuple[str, str]:
    """Return colour and style of a line; only the styles of `STROKES` times as many lines repeat both."""
    return CYCLE[number % len(CYCLE)], STROKES[number // len(CYCLE) % len(STROKES)]


def _ticks(ax: Axes, down: list[str], across: list[str]) -> None:
    ax.set_xticks(range(len(across)), across, rotation=30, ha="right")
    ax.set_yticks(range(len(down)), down)
