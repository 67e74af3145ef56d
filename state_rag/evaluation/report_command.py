"""`state-rag report`."""

import argparse
from pathlib import Path

from state_rag.evaluation.options import add_comparison_options, add_metric_options, add_run_options


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


def _report(args: argparse.Namespace) -> None:
    from state_rag.evaluation.ablation_files import load_ablation
    from state_rag.evaluation.gather import gather
    from state_rag.evaluation.report import build_report
    from state_rag.evaluation.run_retrieval import INFO, analyse_runs

    found = gather(args)
    with_retrieval = [run for run, _ in found.runs.values() if (run.predictions / INFO).is_file()]
    retrieval = switched_off = None
    if with_retrieval:
        reference = found.runs[found.comparison.reference][0]
        chosen = reference if reference in with_retrieval else with_retrieval[-1]
        retrieval = analyse_runs(
            [chosen], embeddings=args.embeddings, toml=args.toml, truth=args.truth, progress=not args.quiet
        )
        switched_off = load_ablation(chosen.predictions / "retrieval")
    page = build_report(
        args.output,
        found.runs,
        found.tables,
        found.comparison,
        retrieval=retrieval,
        switched_off=switched_off,
        perturbations=args.perturbations,
        remarks=found.remarks,
    )
    print(f"Written: {page}")
