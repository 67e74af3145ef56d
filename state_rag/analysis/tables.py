"""What an analysis of retrieval found, for the terminal."""

import pandas as pd
from rich.table import Table


def describe(summary: dict) -> list[str]:
    """Return the headline numbers as lines of text."""
    lines = [
        f"{summary['conditions']} conditions in {', '.join(summary['cell_lines'])}: "
        f"{summary['mean_number_retrieved']:.1f} neighbours retrieved, {summary['mean_number_selected']:.1f} selected "
        f"(mean inclusion above one half); mean inclusion {summary['mean_inclusion']:.3f}",
        "mean inclusion by rank: " + " ".join(f"{value:.2f}" for value in summary["inclusion_by_rank"]),
    ]
    lines.append(overlap_line(summary))
    for column, what in (("similarity", "embedding similarity"), ("agreement", "agreement of true effects")):
        found = summary.get(f"inclusion_against_{column}")
        if found and found["mean_spearman_within_conditions"] is not None:
            lines.append(
                f"inclusion against {what}: mean Spearman {found['mean_spearman_within_conditions']:.3f} within "
                f"{found['conditions']} conditions (Wilcoxon p = {found['p_wilcoxon_against_zero']:.2g})"
            )
    if agreement := summary.get("agreement_of_selected_and_not"):
        known = {kind: agreement[f"mean_of_{kind}"] for kind in ("selected", "not_selected")}
        shown = ["unknown" if value is None else f"{value:.3f}" for value in known.values()]
        if summary["mean_number_selected"] == 0:
            shown[0] = "no value, since none is selected"
        elif summary["mean_number_selected"] == summary["mean_number_retrieved"]:
            shown[1] = "no value, since all are selected"
        paired = "" if agreement["p_wilcoxon"] is None else f" (paired Wilcoxon p = {agreement['p_wilcoxon']:.2g})"
        lines.append(
            f"correlation of a neighbour's true effect with the query's: of selected ones {shown[0]}, "
            f"of others {shown[1]}{paired}"
        )
    for name, value in summary.get("inclusion_by_source", {}).items():
        lines.append(f"mean inclusion, proposed by {name}: {value['mean']:.3f} over {value['candidates']} candidates")
    for name, value in summary.get("inclusion_by_relation", {}).items():
        lines.append(f"mean inclusion, {name}: {value['mean']:.3f} over {value['candidates']} candidates")
    return [*lines, *summary.get("remarks", ())]


def overlap_line(summary: dict) -> str:
    """Return the overlap of what two cell lines choose, or why there is none."""
    pairs, empty = summary["pairs_of_conditions_between_lines"], summary["pairs_of_two_empty_sets"]
    if not pairs:
        return "Jaccard index between cell lines: no perturbation is predicted in two of them"
    weighted = summary["mean_pairwise_weighted_jaccard"]
    parts = [
        "undefined (every inclusion is 0)" if weighted is None else f"{weighted:.3f} weighted by mean inclusion",
        f"undefined for selected sets, since in none of {pairs} pairs of conditions anything is selected"
        if empty == pairs
        else f"{summary['mean_pairwise_jaccard']:.3f} of selected sets",
    ]
    left_out = f" ({empty} of {pairs} pairs with nothing selected left out)" if 0 < empty < pairs else ""
    return f"mean Jaccard index between cell lines: {', '.join(parts)}{left_out}"


def study_table(gene: str, study, sources=None):
    """Return a `case_study` as a table, with the sources that proposed each neighbour where they are given by name."""
    table = Table(title=f"Mean inclusion of the neighbours of {gene}", title_justify="left")
    table.add_column("neighbour")
    if sources:
        table.add_column("proposed by")
    for line in study.columns:
        table.add_column(str(line), justify="right")
    for name, row in study.iterrows():
        texts = ["-" if value != value else f"{value:.2f}" for value in row]
        cells = [f"[bold]{text}[/bold]" if value > 0.5 else text for text, value in zip(texts, row, strict=True)]
        table.add_row(str(name), *([sources.get(name, "none")] if sources else []), *cells)
    return table


def ablation_table(title: str, rows):
    """Return some rows of an ablation as a table; a column that says the same in all is left out."""
    table = Table(title=title, title_justify="left")
    columns = {
        "cell_line": ("cell line", "{}"),
        "perturbation": ("query", "{}"),
        "neighbour": ("neighbour", "{}"),
        "rank": ("rank", "{}"),
        "similarity": ("cosine", "{:.2f}"),
        "inclusion": ("weight", "{:.2f}"),
        "relative_change": ("change", "{:.1%}"),
        "pearson_delta_without": ("without", "{:.3f}"),
        "help": ("help", "{:+.4f}"),
    }
    said = [name for name in ("cell_line", "perturbation") if rows[name].nunique() == 1]
    columns = {name: column for name, column in columns.items() if name not in said}
    for label, form in columns.values():
        if form == "{}" and label != "rank":
            table.add_column(label, overflow="fold")
        else:
            table.add_column(label, justify="right", no_wrap=True)
    for _, row in rows.iterrows():
        table.add_row(*("-" if pd.isna(row[name]) else form.format(row[name]) for name, (_, form) in columns.items()))
    return table
