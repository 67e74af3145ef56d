"""Comparison tables for the terminal, CSV, Markdown and LaTeX.

Daggers are the paper's: Mann-Whitney U against the reference, Benjamini-Hochberg over metrics, one dagger for
q < .01 and a double one for q < .05. Asterisks are the paired Wilcoxon test's: two for q < .01, one for q < .05.
"""

import math
from collections.abc import Mapping

import pandas as pd

from state_rag.evaluation import grid
from state_rag.evaluation.compare import Comparison
from state_rag.evaluation.grid import Cell, Grid, mark_best
from state_rag.evaluation.metrics.glossary import direction
from state_rag.evaluation.metrics.registry import Metric
from state_rag.evaluation.significance import out_of_reach, smallest_wilcoxon

LEGEND = (
    "Marks: differs from {reference}; \u2020 q < .01, \u2021 q < .05 by Mann-Whitney U (as published; conservative on "
    "paired conditions), ** q < .01, * q < .05 by paired Wilcoxon; q: Benjamini-Hochberg over the metrics. "
    "Mean over {n} conditions. Best value of a row in bold."
)


def marks(q_mann_whitney: float, q_wilcoxon: float) -> tuple[str, str]:
    """Return the two tests' marks.

    Examples
    --------
    >>> marks(0.03, 0.001)
    ('\u2021', '**')
    """
    dagger = "\u2020" if q_mann_whitney < 0.01 else "\u2021" if q_mann_whitney < 0.05 else ""
    star = "**" if q_wilcoxon < 0.01 else "*" if q_wilcoxon < 0.05 else ""
    return dagger, star


def number(value: float) -> str:
    """Return a value with about four significant digits, or a dash for none.

    Examples
    --------
    >>> number(0.6331), number(633.71), number(float("nan"))
    ('.633', '633.7', '-')
    """
    if not math.isfinite(value):
        return "-"
    if abs(value) >= 100:
        return f"{value:.1f}"
    if abs(value) >= 1:
        return f"{value:.2f}"
    if 0 < abs(value) < 0.01:
        return f"{value:.4f}".replace("0.", ".", 1)
    return f"{value:.3f}".replace("0.", ".", 1)


def legend(comparison: Comparison) -> str:
    """Return the explanation of the marks, `limits` and `exceptions`."""
    marks_mean = LEGEND.format(reference=comparison.reference, n=comparison.n_conditions)
    return "\n".join([marks_mean, *limits(comparison), *exceptions(comparison)])


def limits(comparison: Comparison) -> list[str]:
    """Return a line on marks that the paired test cannot give to so few conditions, if there are any."""
    conditions, metrics = comparison.n_conditions, len(comparison.metrics)
    if len(comparison.predictors) < 2 or not metrics:
        return []
    needed = {mark: out_of_reach(conditions, metrics, level) for mark, level in (("*", 0.05), ("**", 0.01))}
    hard = {mark: count for mark, count in needed.items() if count > max(1, metrics / 2)}
    if not hard:
        return []
    parts = []
    if never := [mark for mark, count in hard.items() if count > metrics]:
        parts.append(f"no {' or '.join(never)} can appear")
    parts += [
        f"{mark} needs at least {count} of the {metrics} metrics at that p"
        for mark, count in hard.items()
        if count <= metrics
    ]
    smallest = f"{smallest_wilcoxon(conditions):.3g}".removeprefix("0")
    some = f"{conditions} condition{'s' * (conditions > 1)}"
    return [f"{some}: the paired test cannot go below p = {smallest}; {'; '.join(parts)}."]


def exceptions(comparison: Comparison) -> list[str]:
    """Return a line for every metric that lacks values, and for every predictor that lost conditions."""
    lines = []
    missing = comparison.rows[comparison.rows["n_missing"] > 0]
    for metric, rows in missing.groupby("metric", sort=False):
        counts = sorted(set(rows["n_missing"]))
        shown = str(counts[0]) if len(counts) == 1 else f"{counts[0]}-{counts[-1]}"
        lines.append(f"{metric}: undefined for {shown} conditions, which its mean leaves out.")
    lines += [f"{name}: {count} conditions not shared by all, left out." for name, count in comparison.left_out.items()]
    return lines


def terminal_tables(comparison: Comparison, width: int = 80) -> list:
    """Return `rich` tables, metrics down and predictors across, each of which fits into `width` characters."""
    return grid.terminal(comparison_grid(comparison), width)


def markdown_table(comparison: Comparison) -> str:
    """Return the table and its legend as Markdown."""
    return grid.markdown(comparison_grid(comparison))


def latex_table(comparison: Comparison) -> str:
    """Return the table as a LaTeX `table` that needs the package booktabs."""
    return grid.latex(comparison_grid(comparison))


def comparison_grid(comparison: Comparison) -> Grid:
    """Return metrics down and predictors across; the best value of each metric is marked."""
    rows: list[tuple[tuple[str, ...], list[Cell]]] = []
    for metric in comparison.metrics:
        found = [comparison.cell(predictor, metric.name) for predictor in comparison.predictors]
        best = mark_best([float(row["mean"]) for row in found], metric.higher_is_better)
        rows.append(((head(metric),), [value_cell(row, is_best) for row, is_best in zip(found, best, strict=True)]))
    return Grid(("metric",), list(comparison.predictors), rows, legend(comparison))


def value_cell(row: Mapping[str, float] | pd.Series, best: bool = False, spread: float = math.nan) -> Cell:
    """Return the cell of one row of `Comparison.rows`.

    `spread` is a standard deviation, written with the mean's decimals; NaN for none.
    """
    text = number(float(row["mean"]))
    decimals = len(text.partition(".")[2])
    spread_text = f"{spread:.{decimals}f}".removeprefix("0") if math.isfinite(spread) else ""
    return Cell(text, best, *marks(row["q_mann_whitney"], row["q_wilcoxon"]), spread_text)


def head(metric: Metric) -> str:
    """Return a metric's label with an arrow in the direction of better."""
    return f"{metric.label} {direction(metric)}"
