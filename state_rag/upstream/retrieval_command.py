"""`state-rag retrieval`: the evaluation's analysis of what was retrieved, and predictions without single neighbours.

The command is here since `--ablate` predicts with STATE; the analysis itself is `state_rag.evaluation`'s.
"""

import argparse
import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

from state_rag.evaluation.options import DEVICES, add_run_options


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
        "for some of the test perturbations; adds to what is in ablation.csv. Starts from control cells drawn anew, so "
        "values are near but not equal to those of `evaluate`",
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


def _retrieval(args: argparse.Namespace) -> None:
    from state_rag.analysis.analyse_run import INFO, analyse_runs, read_truth, records_of, save_analysis
    from state_rag.analysis.overlap import case_study, refuse_unknown_genes
    from state_rag.analysis.records import existing_records
    from state_rag.analysis.tables import describe, study_table
    from state_rag.console import make_console
    from state_rag.evaluation.gather import find_runs
    from state_rag.files import writable_folder
    from state_rag.plot import figures, style

    runs = find_runs(args)
    for run in runs:
        existing_records(run.predictions / INFO)
    read_truth(args.truth)
    if args.ablate:
        from state_rag.upstream.ablation.ablate import refuse_evidence_run, refuse_none

        refuse_none(args.gene, args.ablate_at_most)
        for run in runs:
            refuse_evidence_run(run.folder, run.config)
    records = records_of(runs, not args.quiet)
    refuse_unknown_genes(args.gene, (record.perturbation for record in records))
    output = writable_folder(args.output or runs[0].predictions / "retrieval", "-o")
    analysis = analyse_runs(
        runs,
        embeddings=args.embeddings,
        toml=args.toml,
        truth=args.truth,
        progress=not args.quiet,
        records=records,
    )
    studies = {gene: case_study(analysis, gene) for gene in args.gene}
    save_analysis(analysis, output)
    drawn = {"inclusion_by_rank": figures.inclusion_by_rank(analysis.neighbours)}
    if (overlap := figures.jaccard_map(analysis.overlap)) is not None:
        drawn["jaccard"] = overlap
    for name, figure in drawn.items():
        style.save_figure(figure, output / "plots", name)
    console = make_console()
    for line in describe(analysis.summary):
        console.print(line, markup=False)
    for gene, study in studies.items():
        rows = analysis.neighbours[analysis.neighbours["perturbation"] == gene]
        console.print(study_table(gene, study, dict(zip(rows["neighbour"], rows.get("source", ()), strict=False))))
    if args.ablate:
        _ablate(args, runs, analysis.neighbours, output, console)
    console.print(f"Written: {output}", markup=False, soft_wrap=True)


@contextlib.contextmanager
def without_remarks_on_log1p() -> Iterator[None]:
    """Keep cell-load from saying that it takes values for log1p, which changes nothing here."""
    logger = logging.getLogger("cell_load.data_modules.perturbation_dataloader")

    def is_else(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith("is_log1p mode is")

    logger.addFilter(is_else)
    try:
        yield
    finally:
        logger.removeFilter(is_else)


def _ablate(args: argparse.Namespace, runs, neighbours, output: Path, console) -> None:
    """Switch neighbours off, add what is known about each of them, and write and print the result."""
    from state_rag.analysis import ablation
    from state_rag.analysis.ablation_files import save_ablation
    from state_rag.analysis.tables import ablation_table
    from state_rag.plot import figures, style
    from state_rag.upstream.ablation.ablate import ablate_run, made_with

    done, settings = [], []
    for run in runs:
        how = {
            "checkpoint": run.predictions.name.removeprefix("eval_"),
            "toml": args.toml,
            "embeddings": args.embeddings,
        }
        settings.append(made_with(run.folder, **how))
        with without_remarks_on_log1p():
            done += ablate_run(
                run.folder,
                args.gene or None,
                at_most=args.ablate_at_most,
                device=args.device,
                progress=not args.quiet,
                **how,
            )
    table = ablation.ablation_table(done)
    known = [name for name in ("agreement", "relation") if name in neighbours]
    key = ["cell_line", "perturbation", "neighbour"]
    table = table.merge(neighbours[[*key, *known]], on=key, how="left")
    whole, remark = save_ablation(table, output, settings)
    style.save_figure(figures.ablation(whole), output / "plots", "ablation")
    for line in ablation.describe(ablation.summarise(table)):
        console.print(line, markup=False)
    for title, rows in ablation.shown_rows(table, whole=bool(args.gene)):
        console.print(ablation_table(title, rows))
    console.print(ablation.LEGEND, style="dim", markup=False)
    if remark:
        console.print(remark, markup=False)
