"""`state-rag report`."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from state_rag.errors import StateRagError
from state_rag.evaluation.options import add_comparison_options, add_metric_options, add_run_options

if TYPE_CHECKING:
    from state_rag.evaluation.gather import Gathered
    from state_rag.evaluation.runs import Run


def add_report(subparsers) -> None:
    """Add `state-rag report`."""
    parser = subparsers.add_parser(
        "report",
        help="one HTML page with tables and pictures of one or more runs",
        description="Write OUTPUT/index.html, which needs no other file and no network, and its pictures as PNG and "
        "SVG in OUTPUT/plots. Runs that share conditions with the reference are compared. Of runs that retrieve in the "
        "same way, those with other conditions, such as other held-out lines, are added to the retrieval section, "
        "which then shows how much cell lines have in common.",
    )
    add_run_options(parser)
    add_metric_options(parser)
    add_comparison_options(parser)
    parser.add_argument("-o", "--output", type=Path, default=Path("report"), help="folder to write (%(default)s)")
    parser.add_argument(
        "--perturbations",
        nargs="+",
        help="perturbations to draw, in every line (default: conditions where the reference is good, middling, poor)",
    )
    parser.add_argument("--truth", help="truth.json of a simulated screen")
    parser.set_defaults(run=_report)


def _report(args: argparse.Namespace) -> None:
    from state_rag.evaluation.ablation_files import load_ablation
    from state_rag.evaluation.gather import gather
    from state_rag.evaluation.report import build_report
    from state_rag.evaluation.run_retrieval import analyse_runs

    found = gather(args, set_apart=True)
    together = retrieving_together(found)
    retrieval = switched_off = None
    if together:
        runs = list(together.values())
        retrieval = analyse_runs(
            runs, embeddings=args.embeddings, toml=args.toml, truth=args.truth, progress=not args.quiet
        )
        switched_off = load_ablation(runs[0].predictions / "retrieval")
    remarks = list(found.remarks)
    if found.apart:
        remarks.append(
            f"Without a condition in common with {found.comparison.reference}, so in the section on retrieval only: "
            f"{', '.join(found.apart)}."
        )
    page = build_report(
        args.output,
        found.runs,
        found.comparison,
        retrieval=retrieval,
        retrieval_of=list(together),
        switched_off=switched_off,
        perturbations=args.perturbations,
        remarks=remarks,
    )
    print(f"Written: {page}")


def retrieving_together(found: "Gathered") -> "dict[str, Run]":
    """Return the runs, by name, whose retrieval is analysed together: one method, other conditions in each.

    The first is the reference if it retrieves, else the last run that does.

    Raises
    ------
    StateRagError
        If a run that is not compared has no place here either.
    """
    from state_rag.evaluation.run_retrieval import INFO, same_retrieval

    runs = {name: run for name, (run, _) in {**found.apart, **found.runs}.items()}
    retrieving = {name: run for name, run in runs.items() if (run.predictions / INFO).is_file()}
    first = found.comparison.reference
    if first not in retrieving and retrieving:
        first = list(retrieving)[-1]
    together: dict[str, Run] = {}
    seen: set[tuple[str, str]] = set()
    for name in dict.fromkeys([first, *runs]):
        if (
            name in retrieving
            and same_retrieval(retrieving[first], retrieving[name])
            and not found.conditions[name] & seen
        ):
            together[name] = retrieving[name]
            seen |= found.conditions[name]
    if lost := [name for name in found.apart if name not in together]:
        raise StateRagError(
            f"{lost[0]} has no condition (perturbation in cell line) in common with {found.comparison.reference}, the "
            "reference, so it cannot be compared; nor can it be analysed with the retrieval of "
            f"{first if retrieving else 'any run'}, which takes the same method's {INFO} with other conditions. "
            "Leave it out"
        )
    return together
