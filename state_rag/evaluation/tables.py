"""Comparison tables for the terminal, CSV, Markdown and LaTeX.

Daggers are the paper's: Mann-Whitney U against the reference, Benjamini-Hochberg over metrics, one dagger for
q < .01 and a double one for q < .05. Asterisks are the paired Wilcoxon test's: two for q < .01, one for q < .05.
"""

import math
from collections.abc import Callable

from state_rag.evaluation.compare import Comparison
from state_rag.evaluation.metrics.registry import Metric

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
    """Return the explanation of the marks, with a line for every predictor that lacks values or conditions."""
    lines = [LEGEND.format(reference=comparison.reference, n=comparison.n_conditions)]
    missing = comparison.rows[comparison.rows["n_missing"] > 0]
    for metric, rows in missing.groupby("metric", sort=False):
        counts = sorted(set(rows["n_missing"]))
        shown = str(counts[0]) if len(counts) == 1 else f"{counts[0]}-{counts[-1]}"
        lines.append(f"{metric}: undefined for {shown} conditions, which its mean leaves out.")
    lines += [f"{name}: {count} conditions not shared by all, left out." for name, count in comparison.left_out.items()]
    return "\n".join(lines)


def terminal_tables(comparison: Comparison, width: int = 80) -> list:
    """Return `rich` tables, metrics down and predictors across, each of which fits into `width` characters."""
    from rich.table import Table

    grid = list(_grid(comparison, lambda text: f"[bold]{text}[/bold]", lambda dagger, star: dagger + star))
    heads = [_head(metric, " \u2191", " \u2193") for metric, _ in grid]
    columns = [max([9, *map(len, name.split())]) for name in comparison.predictors]
    left = width - max(map(len, heads), default=0) - 4
    tables = []
    start = 0
    while start < len(columns):
        stop, used = start + 1, columns[start] + 3
        while stop < len(columns) and used + columns[stop] + 3 <= left:
            used += columns[stop] + 3
            stop += 1
        table = Table()
        table.add_column("metric", no_wrap=True)
        for number in range(start, stop):
            table.add_column(comparison.predictors[number], justify="right", min_width=columns[number])
        for head, (_, cells) in zip(heads, grid, strict=True):
            table.add_row(head, *cells[start:stop])
        tables.append(table)
        start = stop
    return tables


def markdown_table(comparison: Comparison) -> str:
    """Return the table and its legend as Markdown."""
    lines = [
        "| metric | " + " | ".join(comparison.predictors) + " |",
        "|---|" + "---:|" * len(comparison.predictors),
    ]
    for metric, cells in _grid(comparison, lambda text: f"**{text}**", lambda dagger, star: dagger + _escape(star)):
        lines.append(f"| {_head(metric, ' ↑', ' ↓')} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n\n" + _escape(legend(comparison)).replace("\n", "  \n") + "\n"


def latex_table(comparison: Comparison) -> str:
    """Return the table as a LaTeX `table` that needs the package booktabs."""
    names = [_latex_escape(name) for name in comparison.predictors]
    lines = [
        "\\begin{table}",
        "\\centering",
        "\\begin{tabular}{l" + "r" * len(names) + "}",
        "\\toprule",
        " & ".join(["Metric", *names]) + r" \\",
        "\\midrule",
    ]

    def superscript(dagger: str, star: str) -> str:
        text = dagger.replace("\u2020", r"\dagger").replace("\u2021", r"\ddagger") + star.replace("*", r"\ast")
        return f"$^{{{text}}}$" if text else ""

    for metric, cells in _grid(comparison, lambda text: rf"\textbf{{{text}}}", superscript):
        head = _latex_escape(_head(metric, "", "")) + (r" $\uparrow$" if metric.higher_is_better else r" $\downarrow$")
        lines.append(" & ".join([head, *(cell.replace("-", "$-$", 1) for cell in cells)]) + r" \\")
    words = _latex_escape(legend(comparison)).replace("\n", " ")
    words = words.replace("\u2020", r"$\dagger$").replace("\u2021", r"$\ddagger$").replace("<", "$<$")
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", f"\\caption{{{words}}}", "\\end{table}"]) + "\n"


def _grid(comparison: Comparison, bold: Callable[[str], str], mark: Callable[[str, str], str]):
    """Yield each metric with its formatted cells."""
    for metric in comparison.metrics:
        rows = [comparison.cell(predictor, metric.name) for predictor in comparison.predictors]
        means = [float(row["mean"]) for row in rows]
        known = [value for value in means if math.isfinite(value)]
        best = (max(known) if metric.higher_is_better else min(known)) if known else math.nan
        cells = []
        for row, mean in zip(rows, means, strict=True):
            text = number(mean)
            cells.append(
                (bold(text) if mean == best else text) + mark(*marks(row["q_mann_whitney"], row["q_wilcoxon"]))
            )
        yield metric, cells


def _head(metric: Metric, up: str, down: str) -> str:
    return metric.label + (up if metric.higher_is_better else down)


def _escape(text: str) -> str:
    return text.replace("*", "\\*")


def _latex_escape(text: str) -> str:
    for sign in ("\\", "&", "%", "_", "#"):
        text = text.replace(sign, r"\textbackslash{}" if sign == "\\" else "\\" + sign)
    return text
