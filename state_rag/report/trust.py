"""The report's section on trust: the accuracy that predictions expected of themselves against the one observed."""

from collections.abc import Mapping
from pathlib import Path

from state_rag.evaluation.results import load_table
from state_rag.evaluation.runs import Run
from state_rag.evaluation.trust_calibration import CALIBRATION, CONDITIONS, in_words
from state_rag.plot.trust import trust_figure
from state_rag.report.page import Report
from state_rag.report.tables import number, percent

HEAD = ("expected, from the least", "conditions", "expected (mean)", "observed (mean)", "in their 90 % interval")


def show_trust(report: Report, runs: Mapping[str, tuple[Run, Path]]) -> None:
    """Add a section for each run whose evaluation judged trust; nothing for others.

    Parameters
    ----------
    report
        The page.
    runs
        Name to run and results folder.
    """
    judged = {name: results for name, (_, results) in runs.items() if (results / CALIBRATION).is_file()}
    for name, results in judged.items():
        several = len(judged) > 1
        report.heading("Trust: expected and observed accuracy" + (f", {name}" if several else ""))
        table = load_table(results / CALIBRATION, ("expected",))
        conditions = load_table(results / CONDITIONS, ("context", "perturbation"))
        report.text(in_words(table))
        shown = zip(*(table[column] for column in table.columns[:5]), strict=True)
        report.table(
            list(HEAD),
            [
                [_fifth(str(which)), str(count), number(expected), number(observed), percent(covered)]
                for which, count, expected, observed, covered in shown
            ],
        )
        if conditions["expected_pearson"].notna().any():
            report.picture(
                report.file_name("trust", *((name,) if several else ())),
                trust_figure(conditions),
                "A point a condition: Pearson delta that the prediction expected of itself, with its 90 % interval "
                "(upright line), and the one observed. On the grey line both are the same.",
            )


def _fifth(which: str) -> str:
    return which if which == "all" else f"fifth {which}"
