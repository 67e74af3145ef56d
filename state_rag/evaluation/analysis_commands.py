"""`state-rag retrieval` and `state-rag report`."""

import argparse
from pathlib import Path

from state_rag.evaluation.options import DEVICES, add_comparison_options, add_metric_options, add_run_options


def add_retrieval(subparsers) -> None:
    """Add `state-rag retrieval`."""
    parser = subparsers.add_parser(
        "retrieval",
        help="what a run retrieves and selects, and whether it makes sense",
        description="Analyse retrieval_info.csv: inclusion by rank and by similarity, overlap between cell lines, "
        "agreement of neighbours' true effects. Give several runs to compare the cell lines that they hold out.",
    )
    add_run_options(parser)
    parser.add_argument("--truth", help="truth.json of a simulated screen")
    parser.add_argument("--gene", action="append", default=[], help="show the neighbours of this perturbation; repeat")
    parser.add_argument(
        "--ablate",
        action="store_true",
        help="predict again with each neighbour switched off, and with none; for the perturbations of --gene, or "
        "for some of the test perturbations",
    )
    parser.add_argument(
        "--ablate-at-most",
        type=int,
        default=20,
        metavar="N",
        help="without --gene: take N test perturbations, evenly spaced in alphabetical order (%(default)s)",
    )
    parser.add_argument("--device", choices=DEVICES, default="auto", help="where to predict for --ablate (%(default)s)")
    parser.add_argument("-o", "--output", type=Path, help="folder to write to (default: RUN/eval_.../retrieval)")
    parser.set_defaults(run=_retrieval)


def add_report(subparsers) -> None:
    """Add `state-rag report`."""
    parser = subparsers.add_parser(
        "report",
        help="one HTML page with tables and pictures of one or more runs",
        description="Write OUTPUT/index.html, which needs no other file and no network, and its pictures as PNG and "
        "SVG in OUTPUT/plots.",
    )
    add_run_options(parser)
    add_metric_options(parser)
    add_comparison_options(parser)
    parser.add_argument("-o", "--output", type=Path, default=Path("report"), help="folder to write (%(default)s)")
    parser.add_argument("--perturbations", nargs="+", help="conditions to draw (default: good, middling and poor ones)")
    parser.add_argument("--truth", help="truth.json of a simulated screen")
    parser.set_defaults(run=_report)


def _retrieval(args: argparse.Namespace) -> None:
    from rich.console import Console

    from state_rag.evaluation import plots
    from state_rag.evaluation.retrieval_analysis import case_study
    from state_rag.evaluation.run_retrieval import analyse_runs, save_analysis
    from state_rag.evaluation.runs import find_run

    runs = [find_run(place, args.checkpoint) for place in args.runs]
    analysis = analyse_runs(runs, embeddings=args.embeddings, toml=args.toml, truth=args.truth, progress=not args.quiet)
    studies = {gene: case_study(analysis, gene) for gene in args.gene}
    output = args.output or runs[0].predictions / "retrieval"
    save_analysis(analysis, output)
    figures = {"inclusion_by_rank": plots.inclusion_by_rank(analysis.neighbours)}
    if len(analysis.jaccard) > 1:
        figures["jaccard"] = plots.jaccard_map(analysis.jaccard, analysis.shared)
    for name, figure in figures.items():
        plots.save_figure(figure, output / "plots", name)
    console = Console(highlight=False)
    for line in describe(analysis.summary):
        console.print(line, markup=False)
    for gene, study in studies.items():
        console.print(_study_table(gene, study))
    if args.ablate:
        _ablate(args, runs, analysis.neighbours, output, console)
    console.print(f"Written: {output}", markup=False)


def _ablate(args: argparse.Namespace, runs, neighbours, output: Path, console) -> None:
    """Switch neighbours off, add what is known about each of them, and write and print the result."""
    from state_rag.evaluation import ablation, plots
    from state_rag.upstream.ablate import ablate_run

    done = []
    for run in runs:
        done += ablate_run(
            run.folder,
            args.gene or None,
            at_most=args.ablate_at_most,
            checkpoint=run.predictions.name.removeprefix("eval_"),
            toml=args.toml,
            embeddings=args.embeddings,
            device=args.device,
            progress=not args.quiet,
        )
    table = ablation.ablation_table(done)
    known = [name for name in ("agreement", "relation") if name in neighbours]
    key = ["cell_line", "perturbation", "neighbour"]
    table = table.merge(neighbours[[*key, *known]], on=key, how="left")
    ablation.save_ablation(table, output)
    plots.save_figure(plots.ablation(table), output / "plots", "ablation")
    for line in ablation.describe(ablation.summarise(table)):
        console.print(line, markup=False)
    for title, rows in ablation.shown_rows(table, whole=bool(args.gene)):
        console.print(_ablation_table(title, rows))
    console.print(ablation.LEGEND, style="dim", markup=False)


def _ablation_table(title: str, rows):
    import pandas as pd
    from rich.table import Table

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
        table.add_column(label, justify="left" if form == "{}" and label != "rank" else "right")
    for _, row in rows.iterrows():
        table.add_row(*("-" if pd.isna(row[name]) else form.format(row[name]) for name, (_, form) in columns.items()))
    return table


def describe(summary: dict) -> list[str]:
    """Return the headline numbers as lines of text."""
    lines = [
        f"{summary['conditions']} conditions in {', '.join(summary['cell_lines'])}: "
        f"{summary['mean_number_retrieved']:.1f} neighbours retrieved, {summary['mean_number_selected']:.1f} selected "
        f"(mean inclusion above one half); mean inclusion {summary['mean_inclusion']:.3f}",
        "mean inclusion by rank: " + " ".join(f"{value:.2f}" for value in summary["inclusion_by_rank"]),
    ]
    if summary["mean_pairwise_jaccard"] is not None:
        lines.append(f"mean Jaccard index of selected sets between cell lines: {summary['mean_pairwise_jaccard']:.3f}")
    else:
        lines.append("Jaccard index between cell lines: no perturbation is predicted in two of them")
    for column, what in (("similarity", "embedding similarity"), ("agreement", "agreement of true effects")):
        found = summary.get(f"inclusion_against_{column}")
        if found and found["mean_spearman_within_conditions"] is not None:
            lines.append(
                f"inclusion against {what}: mean Spearman {found['mean_spearman_within_conditions']:.3f} within "
                f"{found['conditions']} conditions (Wilcoxon p = {found['p_wilcoxon_against_zero']:.2g})"
            )
    if agreement := summary.get("agreement_of_selected_and_not"):
        shown = [
            "none" if agreement[f"mean_of_{kind}"] is None else f"{agreement[f'mean_of_{kind}']:.3f}"
            for kind in ("selected", "not_selected")
        ]
        paired = "" if agreement["p_wilcoxon"] is None else f" (paired Wilcoxon p = {agreement['p_wilcoxon']:.2g})"
        lines.append(
            f"correlation of a neighbour's true effect with the query's: selected {shown[0]}, "
            f"not selected {shown[1]}{paired}"
        )
    for name, value in summary.get("inclusion_by_relation", {}).items():
        lines.append(f"mean inclusion, {name}: {value['mean']:.3f} over {value['candidates']} candidates")
    return lines


def _study_table(gene: str, study):
    from rich.table import Table

    table = Table(title=f"Mean inclusion of the neighbours of {gene}", title_justify="left")
    table.add_column("neighbour")
    for line in study.columns:
        table.add_column(str(line), justify="right")
    for name, row in study.iterrows():
        texts = ["-" if value != value else f"{value:.2f}" for value in row]
        cells = [f"[bold]{text}[/bold]" if value > 0.5 else text for text, value in zip(texts, row, strict=True)]
        table.add_row(str(name), *cells)
    return table


def _report(args: argparse.Namespace) -> None:
    from state_rag.evaluation.ablation import load_ablation
    from state_rag.evaluation.commands import gather
    from state_rag.evaluation.report import build_report
    from state_rag.evaluation.run_retrieval import INFO, analyse_runs

    done, names, tables, comparison = gather(args)
    runs = {name: pair for name, pair in zip(names, done, strict=True)}
    with_retrieval = [run for run, _ in done if (run.predictions / INFO).is_file()]
    retrieval = switched_off = None
    if with_retrieval:
        reference = runs[comparison.reference][0]
        chosen = reference if reference in with_retrieval else with_retrieval[-1]
        retrieval = analyse_runs(
            [chosen], embeddings=args.embeddings, toml=args.toml, truth=args.truth, progress=not args.quiet
        )
        switched_off = load_ablation(chosen.predictions / "retrieval")
    page = build_report(
        args.output,
        runs,
        tables,
        comparison,
        retrieval=retrieval,
        switched_off=switched_off,
        perturbations=args.perturbations,
    )
    print(f"Written: {page}")
