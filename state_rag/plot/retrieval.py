"""Pictures of what retrieval did. Each function draws on one `Axes` and returns it."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from state_rag.plot.style import BLUE, GREY, ORANGE, RED, SKY, axes_or_current, labels, plain, stroke, ticks


def jaccard(values: pd.DataFrame, counts: pd.DataFrame, title: str = "", ax: Axes | None = None) -> Axes:
    """Draw how alike the choices of cell lines are, as a map with numbers.

    Parameters
    ----------
    values
        Mean Jaccard index, lines x lines, 0 to 1.
    counts
        Number of perturbations each value is over.
    title
        Put above.
    ax
        Where to draw; pyplot's current axes by default.
    """
    ax = axes_or_current(ax)
    lines = list(values.index)
    ax.imshow(values, vmin=0, vmax=1, cmap="cividis")
    for row in range(len(lines)):
        for column in range(len(lines)):
            value = values.iloc[row, column]
            text = f"{value:.2f}\nn = {counts.iloc[row, column]}" if np.isfinite(value) else "-"
            color = "white" if value <= 0.5 else "black"
            ax.text(column, row, text, ha="center", va="center", fontsize=9, color=color)
    ax.set_title(title, fontsize=10)
    ticks(ax, labels(lines, 20), labels(lines, 20))
    return ax


def inclusion_by_rank(neighbours: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw mean inclusion against the rank of retrieval, one line a cell line; bands are two standard errors.

    Parameters
    ----------
    neighbours
        One row a condition and candidate: `cell_line`, `rank` (1 is nearest), `inclusion`.
    ax
        Where to draw; pyplot's current axes by default.
    """
    ax = axes_or_current(ax)
    for number, (line, rows) in enumerate(neighbours.groupby("cell_line")):
        grouped = rows.groupby("rank")["inclusion"].agg(["mean", "sem"]).fillna(0)
        color, style = stroke(number)
        ax.plot(grouped.index, grouped["mean"], style, marker="o", markersize=3.5, color=color, label=plain(str(line)))
        low, high = grouped["mean"] - 2 * grouped["sem"], grouped["mean"] + 2 * grouped["sem"]
        ax.fill_between(grouped.index, low, high, color=color, alpha=0.2, linewidth=0)
    ax.set(xlabel="rank of the neighbour (1 is most similar)", ylabel="mean inclusion weight")
    ax.set_ylim(0, 1.02 * max(1.0, float(neighbours["inclusion"].max())))
    ax.grid(alpha=0.3)
    ax.legend(title="cell line", fontsize=8)
    return ax


def inclusion_against(neighbours: pd.DataFrame, column: str, xlabel: str | None = None, ax: Axes | None = None) -> Axes:
    """Draw inclusion against a property of the neighbour: points, and means of at most ten equally large groups.

    A group has at least twenty neighbours; fewer than forty neighbours are shown as points alone.

    Parameters
    ----------
    neighbours
        One row a condition and candidate: `inclusion` and the column.
    column
        Such as `similarity` or `agreement`.
    xlabel
        What to call it.
    ax
        Where to draw; pyplot's current axes by default.
    """
    rows = neighbours.dropna(subset=[column])
    ax = axes_or_current(ax)
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
    ax.set(xlabel=xlabel or column, ylabel="mean inclusion weight")
    ax.grid(alpha=0.3)
    ax.legend(fontsize=8)
    return ax


def ablated_neighbours(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw each neighbour's change of the predicted effect against its inclusion.

    Parameters
    ----------
    table
        `analysis.ablation.ablation_table`; rows without a `rank` are conditions without all their neighbours.
    ax
        Where to draw; pyplot's current axes by default.
    """
    ax = axes_or_current(ax)
    single, none = table[table["rank"].notna()], table[table["rank"].isna()]
    for helps, color, marker, label in (
        (True, BLUE, "o", "nearer to the real effect with it"),
        (False, ORANGE, "^", "no nearer with it"),
    ):
        some = single[(single["help"] > 0) == helps]
        ax.scatter(
            some["inclusion"],
            100 * some["relative_change"],
            s=16,
            color=color,
            marker=marker,
            alpha=0.7,
            linewidths=0,
            label=f"{label} ({len(some)})",
        )
    ax.set(xlabel="mean weight of the neighbour", ylabel="change of the predicted effect\nwithout it (% of its length)")
    many = "s" if len(none) > 1 else ""
    ax.set_title(f"{len(single)} single neighbours of {len(none)} condition{many}", fontsize=10)
    ax.grid(alpha=0.3)
    ax.legend(fontsize=8, loc="best")
    return ax


def hanging_on_neighbours(table: pd.DataFrame, at_most: int) -> pd.DataFrame:
    """Return the conditions of an ablation table whose agreement hangs most on their neighbours, by agreement."""
    none = table[table["rank"].isna()]
    order = none["help"].abs().sort_values(ascending=False, kind="stable").index[:at_most]
    return none.loc[order].sort_values("pearson_delta", kind="stable")


def ablated_conditions(table: pd.DataFrame, at_most: int = 30, ax: Axes | None = None) -> Axes:
    """Draw the agreement of predicted and real effects with all neighbours, without one, and with none.

    Parameters
    ----------
    table
        As in `ablated_neighbours`.
    at_most
        Conditions: those whose agreement hangs most on their neighbours.
    ax
        Where to draw; pyplot's current axes by default.
    """
    ax = axes_or_current(ax)
    single, none = table[table["rank"].notna()], table[table["rank"].isna()]
    spans = single.groupby(["cell_line", "perturbation"])["pearson_delta_without"].agg(["min", "max"])
    rows = hanging_on_neighbours(table, at_most)
    places = np.arange(len(rows))
    for place, row in zip(places, rows.itertuples(), strict=True):
        low, high = spans.loc[(row.cell_line, row.perturbation)]
        ax.plot([low, high], [place, place], color=GREY, linewidth=9, alpha=0.5, solid_capstyle="butt")
    ax.plot([], [], color=GREY, linewidth=9, alpha=0.5, label="without one: from lowest to highest")
    ax.plot(rows["pearson_delta"], places, "o", color=BLUE, markersize=5, label="with all neighbours")
    ax.plot(rows["pearson_delta_without"], places, "^", color=ORANGE, markersize=5, label="with none")
    lines = table["cell_line"].nunique()
    names = [row.perturbation if lines == 1 else f"{row.perturbation} in {row.cell_line}" for row in rows.itertuples()]
    ax.set_yticks(places, labels(names), fontsize=8)
    ax.set_ylim(-0.8, len(rows) - 0.2)
    ax.set_xlabel("Pearson correlation of predicted and real effect")
    which = f"the {len(rows)} conditions that hang most on neighbours" if len(rows) < len(none) else "every condition"
    ax.set_title(which + (f", {plain(table['cell_line'].iloc[0])}" if lines == 1 else ""), fontsize=10)
    ax.grid(alpha=0.3)
    ax.legend(fontsize=8, loc="best")
    return ax
