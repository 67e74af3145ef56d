"""The report's section on the evidence behind predictions: chosen conditions, each as a table and a picture."""

import html
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from state_rag.engine.evidence_of import evidence_of, has_evidence
from state_rag.engine.explaining.explain import explain
from state_rag.engine.explaining.words import HEAD, LEGEND, facts, rows
from state_rag.engine.knowledge import similarity_words
from state_rag.errors import StateRagError
from state_rag.evaluation.results import load_profiles
from state_rag.evaluation.runs import Run
from state_rag.plot.evidence_map import evidence_figure
from state_rag.report.page import Report
from state_rag.report.tables import number

RANKS = (("best", 1.0), ("upper quartile", 0.75), ("typical", 0.5), ("lower quartile", 0.25), ("worst", 0.0))
"""What is shown of the conditions ranked by Pearson delta."""
CONDITIONS = 8
"""Lines of the table and columns of the picture, of conditions."""

Ranked = tuple[str, str, str]
"""A cell line, a perturbation, and a heading in words."""


def ranked_conditions(table: pd.DataFrame, wanted: Sequence[str] | None = None) -> list[Ranked]:
    """Return the conditions to show: the best- and the worst-predicted, and some between them; or those wanted.

    Parameters
    ----------
    table
        One row a condition: `cell_line`, `perturbation`, `pearson_delta`.
    wanted
        Perturbations, in every line that has them.
    """
    value = "pearson_delta"
    if wanted:
        rows_ = table[table["perturbation"].isin(list(wanted))]
        said = [f", Pearson delta {number(score)}" for score in rows_[value]] if value in rows_ else [""] * len(rows_)
        keys = rows_[["cell_line", "perturbation"]].itertuples(index=False, name=None)
        return [(line, name, f"{name} in {line}{how}") for (line, name), how in zip(keys, said, strict=True)]
    if value not in table:
        return []
    order = table.dropna(subset=[value]).sort_values([value, "cell_line", "perturbation"], kind="stable")
    found: dict[int, str] = {}
    # the best and the worst first, so that they keep their names where there are few conditions
    for what, share in sorted(RANKS, key=lambda rank: -abs(rank[1] - 0.5)) if len(order) else ():
        found.setdefault(round(share * (len(order) - 1)), what)
    return [
        (
            row.cell_line,
            row.perturbation,
            f"{what}: {row.perturbation} in {row.cell_line}, Pearson delta {number(score)}",
        )
        for place, what in sorted(found.items(), reverse=True)
        for row, score in [(order.iloc[place], float(order[value].iloc[place]))]
    ]


def show_evidence(
    report: Report,
    runs: Mapping[str, tuple[Run, Path]],
    values: Mapping[str, pd.DataFrame],
    wanted: Sequence[str] | None = None,
) -> None:
    """Add a section for each run whose predictions are explained by measured responses; nothing for others.

    Parameters
    ----------
    report
        The page.
    runs
        Name to run and results folder.
    values
        Name to the values of each condition.
    wanted
        Perturbations to show; by default the best- and worst-predicted conditions and typical ones.
    """
    explained = [name for name, (run, _) in runs.items() if has_evidence(run.config)]
    for name in explained:
        report.heading("Why: evidence behind predictions" + (f", {name}" if len(explained) > 1 else ""))
        _section(report, name, *runs[name], values[name], wanted, (name,) if len(explained) > 1 else ())


def _section(
    report: Report,
    name: str,
    run: Run,
    results: Path,
    table: pd.DataFrame,
    wanted: Sequence[str] | None,
    of: tuple[str, ...],
) -> None:
    chosen = ranked_conditions(table, wanted)
    report.text(
        f"What {name} predicts is a sum: the mean effect of the cell line, measured effects of other conditions times "
        "their weights, and a correction gene by gene. "
        + ("Shown as asked for." if wanted else f"Shown of {len(table)} tested conditions, ranked by Pearson delta.")
    )
    if not chosen:
        report.note("Nothing is shown, since no condition has a Pearson delta; or name --perturbations.")
        return
    try:
        evidence = evidence_of(run.folder, run.config)
    except StateRagError as error:
        report.note(f"Not shown: {error}")
        return
    if words := similarity_words(evidence.engine):
        report.text(words)
    profiles, _ = load_profiles(results)
    for line, perturbation, heading in chosen:
        report.subheading(heading[0].upper() + heading[1:])
        try:
            found = explain(evidence, perturbation, line)
        except StateRagError as error:  # nothing is known of it, so that the mean of the line was predicted
            report.note(str(error))
            continue
        here = profiles[line]
        place = here.perturbations.index(perturbation)
        measured = np.asarray(here.real[place] - here.control, dtype=np.float64)
        usable = measured.shape == found.prediction.shape and bool(np.isfinite(measured).all())
        for fact in facts(found):
            report.text(fact)
        cells = [[html.escape(text) for text in row.texts] for row in rows(found, CONDITIONS)]
        cells[-1] = [f"<b>{text}</b>" for text in cells[-1]]
        report.table(list(HEAD), cells, "words")
        report.picture(
            report.file_name("evidence", *of, line, perturbation),
            evidence_figure(found, measured if usable else None, conditions=CONDITIONS),
            f"{perturbation} in {line}: the genes with the largest predicted effect, from the one raised most to the "
            "one lowered most. Predicted and measured effect, the mean of the line, and the measured effects of the "
            "conditions with the largest weights; all against controls, on one scale of colours.",
        )
    report.note(f"{LEGEND} Any other condition: state-rag explain {run.folder.name} --perturbation NAME --context LINE")
