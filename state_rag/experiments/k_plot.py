"""The picture of Table 2: a metric against the number of candidates K."""

import textwrap
from collections.abc import Iterable

import pandas as pd
from matplotlib.figure import Figure

from state_rag.experiments.methods import TITLES
from state_rag.metrics.registry import Metric
from state_rag.plot.style import BLUE, GREEN, GREY, ORANGE, PINK, RED, SKY, YELLOW

COLORS = dict(zip(TITLES.values(), (GREEN, PINK, ORANGE, RED, BLUE), strict=False))
VARIANTS = (SKY, YELLOW)
"""For methods of another name, after the colours above that the picture does not need."""

MARKERS = "osD^vP"
DASHES = ((0, (1, 1.5)), (0, (4, 2)), (0, (6, 2, 1, 2)), (0, (1, 4)), (0, (9, 2)))


def k_plot(rows: pd.DataFrame, metric: Metric, title: str) -> Figure:
    """Draw a metric against K: a line for each method that retrieves, a level for each predictor that does not.

    Parameters
    ----------
    rows
        Of `tables.table2`: `method`, `K`, `mean`, `sd_over_seeds`, `status`, `finished_runs`.
    metric
        What is drawn.
    title
        What the means are over.

    Returns
    -------
    matplotlib.figure.Figure
        K on a logarithmic axis (base 2); a line is broken where a K is missing; error bars and bands are one
        standard deviation over seeds.
    """
    figure = Figure(figsize=(7.2, 4.2), layout="constrained")
    ax = figure.subplots()
    every_k = sorted(int(k) for k in rows["K"].dropna().unique())
    known = rows[rows["status"] == "shown"]
    if known.empty:
        ax.text(0.5, 0.5, "no run has been evaluated yet", ha="center", va="center", transform=ax.transAxes)
    methods = list(dict.fromkeys(known[known["K"].notna()]["method"]))
    colors = _colors(known[known["finished_runs"].notna()]["method"])
    for place, name in enumerate(methods):
        points = known[known["method"] == name].set_index("K").reindex(every_k)
        absent = [str(k) for k in points.index[points["mean"].isna()]]
        ax.errorbar(
            every_k,
            points["mean"].to_numpy(dtype=float),
            yerr=points["sd_over_seeds"].fillna(0).to_numpy(dtype=float),
            color=colors[name],
            marker=MARKERS[place % len(MARKERS)],
            capsize=3,
            linewidth=1.6,
            label=name + (f"\n(missing: K = {', '.join(absent)})" if absent else ""),
            zorder=3,
        )
    levels = known[known["K"].isna()]
    baselines = 0
    for row in levels.itertuples():
        is_method = not pd.isna(row.finished_runs)
        color = colors[row.method] if is_method else GREY
        style = "--" if is_method else DASHES[baselines % len(DASHES)]
        baselines += not is_method
        ax.axhline(row.mean, color=color, linestyle=style, linewidth=1.4 if is_method else 1.0, label=row.method)
        if is_method and row.sd_over_seeds > 0:
            ax.axhspan(row.mean - row.sd_over_seeds, row.mean + row.sd_over_seeds, color=color, alpha=0.12, linewidth=0)
    ax.set_xscale("log", base=2)
    ax.set_xticks(every_k, [str(k) for k in every_k])
    ax.minorticks_off()
    ax.set_xlim(every_k[0] / 1.3, every_k[-1] * 1.3)
    ax.set_xlabel("candidates K (logarithmic)")
    ax.set_ylabel(f"{metric.label} ({'higher' if metric.higher_is_better else 'lower'} is better)")
    ax.set_title(textwrap.fill(title, 84), fontsize=9, loc="left")
    ax.grid(alpha=0.3)
    if not known.empty:
        figure.legend(loc="outside right center", fontsize=8)
    return figure


def _colors(names: Iterable[str]) -> dict[str, str]:
    """Return a colour for each method, all different for up to seven, and none that of the naive baselines."""
    names = list(dict.fromkeys(names))
    found = {name: COLORS[name] for name in names if name in COLORS}
    free = [color for color in (*COLORS.values(), *VARIANTS) if color not in found.values()]
    for place, name in enumerate(name for name in names if name not in COLORS):
        found[name] = free[place % len(free)]
    return found
