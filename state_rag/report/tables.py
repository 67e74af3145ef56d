"""Comparison tables for the terminal, CSV, Markdown and LaTeX.

Daggers are the paper's: Mann-Whitney U against the reference, Benjamini-Hochberg over metrics, one dagger for
q < .01 and a double one for q < .05. Asterisks are the paired Wilcoxon test's: two for q < .01, one for q < .05.
"""

import math
from collections.abc import Mapping

import pandas as pd

from state_rag.evaluation.compare import Comparison
from state_rag.metrics.glossary import direction
from state_rag.metrics.registry import Metric
from state_rag.metrics.significance import out_of_reach, smallest_wilcoxon
from state_rag.report import grid
from state_rag.report.grid import Cell, Grid, mark_best

LEGEND = (
    "Marks: differs from {reference}; \u2020 q < .01, \u2021 q < .05 by Mann-Whitney U (as published; conservative on "
    "paired conditions), ** q < .01, * q < .05 by paired Wilcoxon; q: Benjamini-Hochberg over the metrics. "
    "{over} Best value of a row in bold."
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


def percent(share: float) -> str:
    """Return a share in percent, or a dash for none.

    Examples
    --------
    >>> percent(0.873), percent(float("nan"))
    ('87 %', '-')
    """
    return f"{100 * share:.0f} %" if math.isfinite(share) else "-"


def legend(comparison: Comparison) -> str:
    """Return the explanation of the marks, `limits` and `exceptions`."""
    marks_mean = LEGEND.format(reference=comparison.reference, over=mean_over(comparison))
    return "\n".join([marks_mean, *limits(comparison), *exceptions(comparison)])


def mean_over(comparison: Comparison) -> str:
    """Return a sentence on how many conditions the means are over."""
    fewer = any(count < comparison.n_conditions for count in _counts(comparison).values())
    if not fewer:
        return f"Mean over {comparison.n_conditions} conditions."
    return (
        f"Mean over at most {comparison.n_conditions} conditions, for each metric those where every predictor has a "
        "value (see below)."
    )


def limits(comparison: Comparison) -> list[str]:
    """Return a line on marks that the paired test cannot give to so few conditions, if there are any."""
    metrics, counts = len(comparison.metrics), sorted(set(_counts(comparison).values()) - {0})
    if len(comparison.predictors) < 2 or not counts:
        return []
    if len(counts) > 1:
        if smallest_wilcoxon(counts[0]) < 0.01:
            return []
        return [f"Metrics over {_conditions(counts[0])}: {_cannot(counts[0])}."]
    conditions = counts[0]
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
    return [f"{_conditions(conditions)}: {_cannot(conditions)}; {'; '.join(parts)}."]


def _conditions(count: int) -> str:
    return f"{count} condition{'s' * (count > 1)}"


def _cannot(conditions: int) -> str:
    smallest = f"{smallest_wilcoxon(conditions):.3g}".removeprefix("0")
    return f"the paired test cannot go below p = {smallest}"


def _counts(comparison: Comparison) -> dict[str, int]:
    """Return over how many conditions each metric's means are."""
    return {str(name): int(rows["n"].max()) for name, rows in comparison.rows.groupby("metric", sort=False)}


def exceptions(comparison: Comparison) -> list[str]:
    """Return lines on predictors that lack values, on the metrics that are over fewer conditions for it, and so on."""
    lines, whole = [], comparison.n_conditions
    counts = _counts(comparison)
    for name in comparison.predictors:
        mine = comparison.rows[comparison.rows["predictor"] == name]
        some = mine[(mine["n_missing"] > 0) & (mine["n_missing"] < whole)]
        for missing, rows in some.groupby("n_missing", sort=False):
            lines.append(f"{name} has no value in {missing} of {whole} conditions: {_told(rows, comparison)}.")
        none = mine[(mine["n_missing"] >= whole) & mine["metric"].map(lambda metric: counts[metric] > 0)]
        if len(none):
            lines.append(f"{name} has no value in any condition: {_told(none, comparison)}.")
    one_each = comparison.rows.drop_duplicates("metric")
    fewer = one_each.assign(n=one_each["metric"].map(counts))
    for count, rows in fewer[fewer["n"] < whole].groupby("n", sort=False):
        over = f"over the {_conditions(count)} where every predictor has a value" if count else "no condition to show"
        lines.append(f"{_told(rows, comparison)}: {over}.")
    for name, count in comparison.left_out.items():
        lines.append(f"{name}: {_conditions(count)} not shared by all, left out.")
    return lines


def _told(rows: pd.DataFrame, comparison: Comparison) -> str:
    """Return the names of some metrics, or of those that are not among them where these are fewer."""
    names, every = list(rows["metric"]), [metric.name for metric in comparison.metrics]
    others = [name for name in every if name not in names]
    if not others and len(names) > 1:
        return "every metric"
    return f"every metric but {', '.join(others)}" if len(others) < len(names) - 1 else ", ".join(names)


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
