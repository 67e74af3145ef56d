"""The report's sections on retrieval: what each method retrieves, and what single neighbours do."""

import html
from collections.abc import Sequence
from dataclasses import dataclass

from state_rag.analysis import ablation
from state_rag.analysis.ablation_files import SwitchedOff
from state_rag.analysis.overlap import RetrievalAnalysis
from state_rag.analysis.tables import overlap_line
from state_rag.plot import figures
from state_rag.report.page import Report
from state_rag.report.tables import number


@dataclass(frozen=True)
class Analysed:
    """What runs of one method retrieve.

    Attributes
    ----------
    runs
        Their names.
    analysis
        Of all of them together.
    """

    runs: Sequence[str]
    analysis: RetrievalAnalysis


def show_retrieval(report: Report, sections: Sequence[Analysed]) -> None:
    """Add a section on what is retrieved for each method."""
    for section in sections:
        alone = len(sections) == 1
        report.heading("Retrieval" if alone else f"Retrieval: {', '.join(section.runs)}")
        _section(report, section, () if alone else (section.runs[0],))


def _section(report: Report, section: Analysed, of: tuple[str, ...]) -> None:
    """Add what one method retrieves; `of` goes into the names of its pictures."""
    table, summary = section.analysis.neighbours, section.analysis.summary
    report.text(
        f"Analysed: {', '.join(section.runs)}, {summary['conditions']} conditions in "
        f"{', '.join(summary['cell_lines'])}. {summary['mean_number_selected']:.1f} of "
        f"{summary['mean_number_retrieved']:.1f} retrieved neighbours are selected (mean inclusion above one half); "
        f"mean inclusion {summary['mean_inclusion']:.3f}."
    )
    report.picture(
        report.file_name("inclusion_by_rank", *of),
        figures.inclusion_by_rank(table),
        "Mean inclusion by rank of retrieval; bands: two standard errors over conditions.",
    )
    labels = {
        "similarity": "cosine similarity of the embeddings",
        "agreement": "correlation of the two true effects",
    }
    for column, label in labels.items():
        if column in table and table[column].notna().sum() > 2:
            result = summary[f"inclusion_against_{column}"]
            rho = result["mean_spearman_within_conditions"]
            within = f"; mean Spearman correlation within conditions {rho:.2f}" if rho is not None else ""
            figure = figures.inclusion_against(table, column, label)
            name = report.file_name(f"inclusion_by_{column}", *of)
            report.picture(name, figure, f"Inclusion against {label}{within}.")
    if (overlap := figures.jaccard_map(section.analysis.overlap)) is not None:
        report.picture(
            report.file_name("jaccard", *of),
            overlap,
            "Do cell lines choose the same neighbours for the same perturbation? n: perturbations that both lines "
            f"have. In all: {overlap_line(summary)}.",
        )
    for remark in summary.get("remarks", ()):
        report.note(remark)
    groups = {"source": "proposed by", "relation": "relation (simulated truth)"}
    for kind, label in groups.items():
        if f"inclusion_by_{kind}" in summary:
            rows = [
                [html.escape(name), number(value["mean"]), str(value["candidates"])]
                for name, value in summary[f"inclusion_by_{kind}"].items()
            ]
            report.table([label, "mean inclusion", "candidates"], rows)


def show_switched_off(report: Report, found: Sequence[SwitchedOff]) -> None:
    """Add what came of switching neighbours off, for each run that has it."""
    if found:
        report.heading("Neighbours switched off")
    for one in found:
        report.subheading(", ".join(one.runs))
        for remark in one.remarks:
            report.note(remark)
        if one.table is not None:
            report.note("\n".join(ablation.describe(ablation.summarise(one.table))))
            report.picture(
                report.file_name("ablation", *(one.runs if len(found) > 1 else ())),
                figures.ablation(one.table),
                "Left: how far the predicted mean effect moves when one neighbour's weight is set to zero and nothing "
                "else changes. Right: agreement with the real effect with all neighbours, with none, and without "
                f"single ones. {ablation.OTHER_CONTROLS}",
            )
