"""What the metrics mean, for the terminal, the report and Markdown; the words are the registry's."""

import textwrap
from collections.abc import Sequence

from state_rag.metrics.registry import METRICS, Metric

SYMBOLS = (
    "One value a condition (a perturbation in a cell line), then the mean over conditions. "
    "r, q: mean expression of its real and predicted cells. c: mean of the cell line's real controls, c': of the "
    "cells predicted for controls. m: mean of r over the cell line's C conditions, r_j: real mean of another one. "
    "x, y: real and predicted cells, P: projection, both in PCA space; j there: components. Index g: all genes; "
    "d: the condition's differential genes (DEGs). corr: Pearson's, "
    "of ranks: Spearman's. E: mean over pairs of cells. OT: entropic optimal transport."
)
SPACES = {
    "genes": "all genes",
    "degs": "DEGs: Welch's t-test of the condition's real cells against the controls, fitted for each condition",
    "pca": "PCA of the cell line's real cells and controls, 50 components",
}
SHORT_SPACES = {"genes": "all genes", "degs": "DEGs", "pca": "PCA"}
TEXT_WIDTH = 120
HEADS = ("metric", "`--metrics`", "space", "formula", "meaning", "values", "source")
SPACES_LINE = "Spaces: " + "; ".join(SPACES.values())


def direction(metric: Metric) -> str:
    """Return an arrow in the direction of better."""
    return "↑" if metric.higher_is_better else "↓"


def rows(metrics: Sequence[Metric] = METRICS) -> list[tuple[str, ...]]:
    """Return one row of plain text a metric, in the order of `HEADS`."""
    return [
        (
            f"{metric.label} {direction(metric)}",
            metric.name,
            SHORT_SPACES[metric.space],
            metric.formula,
            metric.meaning,
            metric.values,
            metric.source,
        )
        for metric in metrics
    ]


def lines(metrics: Sequence[Metric] = METRICS) -> list[str]:
    """Return the list for a terminal: four lines a metric."""
    found = []
    for metric in metrics:
        better = "higher is better" if metric.higher_is_better else "lower is better"
        table = "; in the paper's Table 1" if metric.in_paper else ""
        found += [
            f"{metric.name}: {metric.label}{table}",
            f"  {metric.meaning}",
            f"  {metric.formula}",
            f"  {better}; {metric.values}; over {SHORT_SPACES[metric.space]}; {metric.source}",
        ]
    return found


def markdown(metrics: Sequence[Metric] = METRICS) -> str:
    """Return the table as Markdown, what the letters stand for below it."""
    body = [
        f"| {' | '.join((label, f'`{name}`', space, f'`{_whole(formula)}`', *map(_whole, rest)))} |"
        for label, name, space, formula, *rest in rows(metrics)
    ]
    head = [f"| {' | '.join(HEADS)} |", "|" + "---|" * len(HEADS)]
    below = [textwrap.fill(text, TEXT_WIDTH) for text in (SYMBOLS, f"{SPACES_LINE}.")]
    return "\n".join([*head, *body, "", below[0], "", below[1], ""])


def _whole(text: str) -> str:
    """Escape what would end a cell of a table."""
    return text.replace("|", "\\|")
