"""`state-rag evaluate`, `compare` and `gge`; `metrics` and `report` have modules of their own.

`retrieval`, which can also predict again, is in `state_rag.upstream.retrieval_command`.
"""

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from state_rag.datasets.command_words import CELL_TYPE_KEY, CONTROL
from state_rag.evaluation.options import add_comparison_options, add_metric_options, add_run_options
from state_rag.report.metrics_command import add_metrics
from state_rag.report.report_command import add_report


def add_commands(subparsers) -> None:
    """Add this room's commands to the command line."""
    _add_evaluate(subparsers)
    _add_compare(subparsers)
    add_report(subparsers)
    add_metrics(subparsers)
    _add_gge(subparsers)


def _add_evaluate(subparsers) -> None:
    parser = subparsers.add_parser(
        "evaluate",
        help="metrics per condition for the predictions of one or more runs",
        description="Compute every metric for every condition of each run, beside naive baselines, write them in "
        "GGE's layout to RUN/eval_<checkpoint>/gge, and print the means. What is evaluated already, from the same "
        "predictions and with the same settings, is only printed.",
    )
    add_run_options(parser)
    add_metric_options(parser)
    parser.set_defaults(run=_evaluate)


def _add_compare(subparsers) -> None:
    parser = subparsers.add_parser(
        "compare",
        help="Table 1 for any number of runs, with tests against a reference",
        description="Compare runs and naive baselines on the conditions they share. Runs that are not evaluated yet "
        "are evaluated first.",
    )
    add_run_options(parser)
    parser.add_argument("-o", "--output", type=Path, help="folder for comparison.csv, .md and .tex")
    parser.add_argument("--paper", action="store_true", help="only the metrics of the paper's Table 1")
    add_metric_options(parser)
    add_comparison_options(parser)
    parser.set_defaults(run=_compare)


def _add_gge(subparsers) -> None:
    parser = subparsers.add_parser(
        "gge",
        allow_abbrev=False,
        help="GGE's own command, with the metrics of state-rag registered",
        description="Runs GGE's command on a pair of h5ad files; --metrics also takes rag_<name>. All other arguments "
        "are GGE's, such as --real, --generated, --conditions and --output: `state-rag gge -- --help` lists them.",
    )
    parser.add_argument("--pert-col", default="gene", help="perturbation column (%(default)s)")
    line, control = "cell_line", "non-targeting"
    parser.add_argument(*CELL_TYPE_KEY, dest="cell_type_key", default=line, help="cell-line column (%(default)s)")
    parser.add_argument(*CONTROL, dest="control", default=control, help="label of control cells (%(default)s)")
    parser.parse_known_args = partial(_with_rest, parser.parse_known_args)  # type: ignore[method-assign]
    parser.set_defaults(run=_gge)


def _with_rest(parse: Callable, arguments: Sequence[str], namespace: argparse.Namespace | None = None):
    """Parse what is ours, and keep the rest, and all after `--`, as `arguments` instead of refusing it."""
    place = list(arguments).index("--") if "--" in arguments else len(arguments)
    before, after = arguments[:place], arguments[place + 1 :]
    namespace, rest = parse(before, namespace)
    namespace.arguments = [*rest, *after]
    return namespace, []


def _gge(args: argparse.Namespace) -> None:
    from state_rag.effects.conditions import Columns
    from state_rag.evaluation.gge_command import run_command

    run_command(args.arguments, Columns(args.pert_col, args.cell_type_key, args.control))


def _evaluate(args: argparse.Namespace) -> None:
    from state_rag.console import make_console
    from state_rag.evaluation.baselines.naive import NAMES
    from state_rag.evaluation.compare import compare
    from state_rag.evaluation.gather import evaluated, predictors, shown_metrics
    from state_rag.evaluation.results import definitions
    from state_rag.evaluation.to_wandb import send_evaluation
    from state_rag.report.tables import legend, terminal_tables

    console = make_console()
    for run, folder, is_new in evaluated(args):
        name = f"{run.name} (run)" if run.name in NAMES else run.name
        tables = predictors(name, folder, args.no_baselines, args.evidence is False)
        comparison = compare(tables, name, shown_metrics(args), definitions([folder]))
        console.print(*terminal_tables(comparison, console.width), sep="\n")
        console.print(legend(comparison), style="dim", markup=False)
        _print_notes(console, folder)
        console.print(f"{'Written' if is_new else 'Results'}: {folder}", markup=False, soft_wrap=True)
        send_evaluation(run, folder)


def _compare(args: argparse.Namespace) -> None:
    from state_rag.console import make_console
    from state_rag.evaluation.gather import gather
    from state_rag.files import atomic_path
    from state_rag.report.tables import latex_table, legend, markdown_table, terminal_tables

    found = gather(args)
    comparison = found.comparison
    console = make_console()
    console.print(*terminal_tables(comparison, console.width), sep="\n")
    console.print(legend(comparison), style="dim", markup=False)
    for line in found.remarks:
        console.print(line, style="dim", markup=False, soft_wrap=True)
    if args.output:
        for suffix, text in (("md", markdown_table(comparison)), ("tex", latex_table(comparison))):
            with atomic_path(args.output / f"comparison.{suffix}") as path:
                path.write_text(text, encoding="utf-8")
        with atomic_path(args.output / "comparison.csv") as path:
            comparison.rows.to_csv(path, index=False)
        console.print(f"Written: {args.output}/comparison.csv, .md, .tex", markup=False, soft_wrap=True)


def _print_notes(console, folder: Path) -> None:
    from state_rag.evaluation.gather import notes

    unshown = ("pca_dimensions", "conditions", "ridge_embeddings")
    for key, value in notes(folder).items():
        if value and key not in unshown:
            console.print(f"{key.replace('_', ' ')}: {value}", style="dim", markup=False, soft_wrap=True)
