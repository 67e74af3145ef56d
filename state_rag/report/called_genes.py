"""The report's section on called genes: whether they change, beside naive callers."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from state_rag.evaluation.called_genes import LISTS, PRECISION, in_words
from state_rag.evaluation.results import load_table
from state_rag.evaluation.runs import Run
from state_rag.report.page import Report
from state_rag.report.tables import number, percent

CALLERS = ("genes ranked by", "conditions", "average precision", "p against probability", "over all genes together")
LISTED = ("false discovery rate", "called", "do not change", "change the other way", "of all changed genes")


def show_called_genes(report: Report, runs: Mapping[str, tuple[Run, Path]]) -> None:
    """Add a section for each run whose evaluation judged called genes; nothing for others.

    Parameters
    ----------
    report
        The page.
    runs
        Name to run and results folder.
    """
    judged = {name: results for name, (_, results) in runs.items() if (results / PRECISION).is_file()}
    for name, results in judged.items():
        report.heading("Called genes" + (f", {name}" if len(judged) > 1 else ""))
        precision, lists = (load_table(results / file) for file in (PRECISION, LISTS))
        report.text(in_words(precision, lists))
        rows = precision.itertuples(index=False, name=None)
        report.table(
            list(CALLERS),
            [[who, str(count), number(mean), _p(p), number(whole)] for who, count, mean, p, whole in rows],
        )
        rows = lists.itertuples(index=False, name=None)
        report.table(list(LISTED), [[f"{fdr:g}", str(count), *map(percent, shares)] for fdr, count, *shares in rows])
        report.text(
            "What changes is told by Welch's test between the real cells of a condition and its controls, false "
            "discovery rate .05 within the condition; gene frequency is the share of the line's training conditions "
            "that change a gene."
        )


def _p(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.1e}"
