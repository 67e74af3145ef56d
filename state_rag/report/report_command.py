"""`state-rag report`."""

import argparse
from collections.abc import Sequence
from itertools import combinations
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
        "SVG in OUTPUT/plots; a page written there again takes their place. Runs that share conditions with the "
        "reference are compared. Each method that retrieves has a section; runs of it with other conditions, such as "
        "other held-out lines, are analysed together, which shows how much cell lines have in common.",
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
    from state_rag.analysis.ablation_files import ablation_of
    from state_rag.analysis.analyse_run import TrainedOn, analyse_runs, read_truth
    from state_rag.evaluation.gather import find_runs, gather
    from state_rag.report.build import build_report
    from state_rag.report.retrieval import Analysed

    read_truth(args.truth)
    if args.perturbations:
        refuse_unpredicted(args.perturbations, find_runs(args))
    found = gather(args, set_apart=True)
    trained_on: TrainedOn = {}
    methods = [
        Analysed(
            list(together),
            analyse_runs(
                list(together.values()),
                embeddings=args.embeddings,
                toml=args.toml,
                truth=args.truth,
                progress=not args.quiet,
                trained_on=trained_on,
            ),
        )
        for together in retrieving_together(found)
    ]
    runs = {name: run for name, (run, _) in {**found.apart, **found.runs}.items()}
    names = [name for method in methods for name in method.runs]
    ablations = [ablation_of(name, runs, found.conditions, args.toml) for name in names]
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
        retrieval=methods,
        switched_off=[ablation for ablation in ablations if ablation is not None],
        perturbations=args.perturbations,
        remarks=remarks,
    )
    print(f"Written: {page}")


def refuse_unpredicted(wanted: Sequence[str], runs: "Sequence[Run]") -> None:
    """Refuse perturbations that cannot be drawn for every run, before anything is evaluated.

    Raises
    ------
    StateRagError
        If one was predicted by no run or, where each run shares conditions with each other one, not by all of them.
    """
    from state_rag.effects.conditions import open_pair
    from state_rag.report.conditions import refuse_unknown
    from state_rag.run_folders import PREDICTED, REAL

    found = []
    for run in runs:
        pair = open_pair(run.predictions / PREDICTED, run.predictions / REAL, run.columns)
        found.append({(line, one.perturbation) for line, conditions in pair.lines.items() for one in conditions})
    together = all(one & other for one, other in combinations(found, 2))
    common = set.intersection(*found) if together else set.union(*found)
    refuse_unknown(wanted, {perturbation for _, perturbation in common})


def retrieving_together(found: "Gathered") -> "list[dict[str, Run]]":
    """Return the runs, by name, whose retrieval is analysed together: in each group one method, other conditions.

    The first group has the reference if it retrieves, else the last run that does.

    Raises
    ------
    StateRagError
        If a run that is not compared has no place beside one that is.
    """
    from state_rag.analysis.analyse_run import INFO, same_retrieval

    runs = {name: run for name, (run, _) in {**found.runs, **found.apart}.items()}
    retrieving = [name for name, run in runs.items() if (run.predictions / INFO).is_file()]
    first = found.comparison.reference
    if first not in retrieving:
        first = next((name for name in reversed(retrieving) if name in found.runs), "")
    groups: list[dict[str, Run]] = []
    for name in sorted(retrieving, key=lambda name: name != first):
        for group in groups:
            alike = same_retrieval(next(iter(group.values())), runs[name])
            if alike and not any(found.conditions[name] & found.conditions[other] for other in group):
                group[name] = runs[name]
                break
        else:
            groups.append({name: runs[name]})
    placed = {name for group in groups if group.keys() & found.runs.keys() for name in group}
    if lost := [name for name in found.apart if name not in placed]:
        raise StateRagError(
            f"{lost[0]} has no condition (perturbation in cell line) in common with {found.comparison.reference}, the "
            "reference, so it cannot be compared; nor can it be analysed with the retrieval of "
            f"{first or 'any run'}, which takes the same method's {INFO} with other conditions. "
            "Leave it out"
        )
    return groups
