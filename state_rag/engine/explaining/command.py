"""`state-rag explain`."""

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from state_rag.counts import count_of

if TYPE_CHECKING:
    import numpy as np

    from state_rag.engine.folder import EvidenceRun
    from state_rag.evidence.explanation import Explanation


def add_commands(subparsers: Any) -> None:
    """Add `explain`."""
    parser: ArgumentParser = subparsers.add_parser(
        "explain",
        help="where a prediction of an evidence run comes from: the measured conditions behind it",
        description="Takes one predicted effect of an evidence run apart: the mean effect of the context, measured "
        "conditions times their weights, and the correction gene by gene add up to it. Prints the parts, and writes "
        "all of them, the genes and a picture.",
    )
    parser.add_argument(
        "run_folder", metavar="RUN", help="run folder of `state-rag evidence fit`, or of `state tx train rag=evidence`"
    )
    parser.add_argument("--perturbation", required=True, metavar="NAME", help="what was predicted")
    parser.add_argument("--context", required=True, metavar="NAME", help="cell line (or donor, tissue) it is for")
    parser.add_argument(
        "--top", type=count_of("conditions"), default=15, metavar="N", help="conditions shown (%(default)s)"
    )
    parser.add_argument(
        "--genes", nargs="+", metavar="GENE", help="genes to write and draw (default: the largest effects)"
    )
    curve = parser.add_mutually_exclusive_group()
    curve.add_argument(
        "--doses",
        metavar="D,D,...",
        help="instead: how large the predicted effect is at these doses, and whether it grows throughout",
    )
    curve.add_argument("--times", metavar="T,T,...", help="the same over times, in hours or with a unit")
    parser.add_argument("--new-context", action="store_true", help="the context is new: nothing was measured in it")
    parser.add_argument("-o", "--output", type=Path, metavar="FOLDER", help="folder to write to (default: RUN/explain)")
    parser.set_defaults(run=run_explain)


def run_explain(args: Namespace) -> None:
    """Print the parts of a prediction, and write them."""
    from state_rag.console import make_console
    from state_rag.engine.called import called_words
    from state_rag.engine.evidence_of import evidence_of
    from state_rag.engine.explaining.explain import explain, measured_effect
    from state_rag.engine.explaining.files import write_explanation
    from state_rag.engine.explaining.parts import gene_places
    from state_rag.engine.explaining.words import LEGEND, facts, terminal_table, trust_words
    from state_rag.engine.knowledge import similarity_words_of
    from state_rag.files import writable_folder
    from state_rag.run_folders import find_run_folder

    folder = find_run_folder(args.run_folder)
    run = evidence_of(folder)
    for axis, text in (("dose", args.doses), ("time", args.times)):
        if text is not None:
            _run_curve(args, folder, run, axis, text)
            return
    if args.genes:
        gene_places(run.engine.responses.genes, args.genes)
    found: Explanation = explain(run, args.perturbation, args.context, new_context=args.new_context)
    output = writable_folder(args.output or folder / "explain", "-o")
    measured: np.ndarray | None = measured_effect(run, folder, args.perturbation, args.context)
    console = make_console()
    for line in facts(found, measured):
        console.print(line, markup=False)
    if found.trust is not None:
        console.print(trust_words(found.trust), markup=False)
    if found.calls is not None:
        console.print(called_words(found.calls, found.genes), markup=False)
    if words := similarity_words_of(run.engine, found.context, found.perturbation):
        console.print(words, markup=False)
    console.print(terminal_table(found, args.top))
    console.print(LEGEND, style="dim", markup=False)
    for path in write_explanation(found, output, measured=measured, genes=args.genes, conditions=args.top):
        console.print(f"Written: {path}", markup=False, soft_wrap=True)


def _run_curve(args: Namespace, folder: Path, run: "EvidenceRun", axis: str, text: str) -> None:
    from rich.table import Table

    from state_rag.console import make_console
    from state_rag.engine.size_curve import read_values, size_curve, write_size_curve
    from state_rag.files import writable_folder
    from state_rag.names.treatments import refuse_unit

    for value in text.split(",") if axis == "dose" else ():
        refuse_unit(value, run.engine.bank.dose_unit)
    values = read_values(text, axis)
    found = size_curve(run, args.perturbation, args.context, values, axis, new_context=args.new_context)
    output = writable_folder(args.output or folder / "explain", "-o")
    console, table = make_console(), Table()
    for column in found.table:
        table.add_column(str(column), justify="right")
    for row in found.table.itertuples(index=False):
        table.add_row(*("" if value != value else f"{value:.3g}" for value in row))
    console.print(table)
    console.print(found.words, markup=False)
    for path in write_size_curve(found, output):
        console.print(f"Written: {path}", markup=False, soft_wrap=True)
