"""`state-rag evaluate`, `compare` and `gge`; `analysis_commands` holds `retrieval` and `report`."""

import argparse
from pathlib import Path

from state_rag.evaluation.analysis_commands import add_report, add_retrieval
from state_rag.evaluation.options import add_comparison_options, add_metric_options, add_run_options


def add_commands(subparsers) -> None:
    """Add this room's commands to the command line."""
    _add_evaluate(subparsers)
    _add_compare(subparsers)
    _add_gge(subparsers)
    add_retrieval(subparsers)
    add_report(subparsers)


def _add_evaluate(subparsers) -> None:
    parser = subparsers.add_parser(
        "evaluate",
        help="metrics per condition for the predictions of one or more runs",
        description="Compute every metric for every condition of each run, beside naive baselines, write them in "
        "GGE's layout to RUN/eval_<checkpoint>/gge, and print the means.",
    )
    add_run_options(parser)
    add_metric_options(parser)
    parser.add_argument("--no-force", dest="force", action="store_false", help="keep a finished evaluation")
    parser.set_defaults(run=_evaluate, force=True)


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
        help="GGE's own command, with the metrics of state-rag registered",
        description="Runs GGE's command on a pair of h5ad files; --metrics also takes rag_<name>. All other arguments "
        "are GGE's: `state-rag gge -- --help` lists them.",
    )
    parser.add_argument("--pert-col", default="gene", help="perturbation column (%(default)s)")
    parser.add_argument("--cell-type-key", default="cell_line", help="cell-line column (%(default)s)")
    parser.add_argument("--control", default="non-targeting", help="label of control cells (%(default)s)")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="...", help="GGE's arguments, after --")
    parser.set_defaults(run=_gge)


def _gge(args: argparse.Namespace) -> None:
    from state_rag.evaluation.conditions import Columns
    from state_rag.evaluation.gge import run_command

    arguments = args.arguments[1:] if args.arguments[:1] == ["--"] else args.arguments
    run_command(arguments, Columns(args.pert_col, args.cell_type_key, args.control))


def _evaluate(args: argparse.Namespace) -> None:
    from rich.console import Console

    from state_rag.evaluation.compare import compare
    from state_rag.evaluation.results import definitions
    from state_rag.evaluation.tables import legend, terminal_tables
    from state_rag.evaluation.to_wandb import send_evaluation

    console = Console()
    for run, folder in _evaluated(args):
        tables = _predictors(run.name, folder)
        comparison = compare(tables, run.name, known=definitions([folder]))
        console.print(*terminal_tables(comparison, console.width), sep="\n")
        console.print(legend(comparison), style="dim", markup=False)
        _print_notes(console, folder)
        send_evaluation(run, folder)


def gather(args: argparse.Namespace):
    """Evaluate the runs of `args` and compare them and the reference's baselines.

    Returns
    -------
    tuple
        Pairs of run and results folder; their names; predictor to table; the comparison.
    """
    from state_rag.errors import StateRagError
    from state_rag.evaluation.compare import compare
    from state_rag.evaluation.metrics.registry import METRICS
    from state_rag.evaluation.results import definitions

    if args.names and len(args.names) != len(args.runs):
        raise StateRagError(f"--names: {len(args.names)} names for {len(args.runs)} runs")
    done = _evaluated(args)
    names = args.names or _distinct([run for run, _ in done])
    reference = _reference(args.reference, done, names)
    own = {name: _predictors(name, folder) for name, (_, folder) in zip(names, done, strict=True)}
    tables = {key: table for key, table in own[reference].items() if key != reference}
    tables.update({name: own[name][name] for name in names})
    chosen = [metric.name for metric in METRICS if metric.in_paper] if getattr(args, "paper", False) else None
    return done, names, tables, compare(tables, reference, chosen, definitions([folder for _, folder in done]))


def _compare(args: argparse.Namespace) -> None:
    from rich.console import Console

    from state_rag.evaluation.tables import latex_table, legend, markdown_table, terminal_tables
    from state_rag.files import atomic_path

    comparison = gather(args)[3]
    console = Console()
    console.print(*terminal_tables(comparison, console.width), sep="\n")
    console.print(legend(comparison), style="dim", markup=False)
    if args.output:
        for suffix, text in (("md", markdown_table(comparison)), ("tex", latex_table(comparison))):
            with atomic_path(args.output / f"comparison.{suffix}") as path:
                path.write_text(text, encoding="utf-8")
        with atomic_path(args.output / "comparison.csv") as path:
            comparison.rows.to_csv(path, index=False)
        console.print(f"Written: {args.output}/comparison.csv, .md, .tex", markup=False)


def _evaluated(args: argparse.Namespace):
    """Evaluate every run (or take its finished evaluation) and return pairs of run and results folder."""
    from state_rag.evaluation.conditions import Columns
    from state_rag.evaluation.evaluate import Settings
    from state_rag.evaluation.metrics.registry import choose
    from state_rag.evaluation.run_evaluation import evaluate_run
    from state_rag.evaluation.runs import find_run

    runs = [find_run(place, args.checkpoint) for place in args.runs]
    settings = Settings(
        deg_p=args.deg_p,
        deg_log2fc=args.deg_log2fc,
        fold_change=args.fold_change,
        components=args.components,
        device=args.device,
    )
    metrics = choose(args.metrics)
    if args.gge_metrics:
        from state_rag.evaluation.gge import from_gge

        parts = [text.partition(":") for text in args.gge_metrics]
        metrics += tuple(from_gge(name, settings, space or "raw") for name, _, space in parts)
    done = []
    for run in runs:
        own = run.columns
        columns = Columns(
            args.pert_col or own.perturbation, args.cell_type_key or own.cell_line, args.control or own.control
        )
        folder = evaluate_run(
            run,
            columns=columns,
            settings=settings,
            metrics=metrics,
            toml=args.toml,
            embeddings=args.embeddings,
            with_baselines=not args.no_baselines,
            per_gene=tuple(args.per_gene),
            force=args.force,
            progress=not args.quiet,
        )
        done.append((run, folder))
    return done


def _predictors(name: str, folder: Path) -> dict:
    """Return the tables of the baselines and, last, of the run."""
    from state_rag.evaluation.results import load_tables

    model, baselines, _ = load_tables(folder)
    grouped = {str(key): table for key, table in baselines.groupby("predictor", sort=False)}
    return {**grouped, name: model}


def _distinct(runs) -> list[str]:
    """Return the runs' names, with enough of their folders to tell equal ones apart."""
    names = [run.name for run in runs]
    return [
        name if names.count(name) == 1 else f"{run.folder.parent.name}/{run.folder.name}/{run.predictions.name}"
        for name, run in zip(names, runs, strict=True)
    ]


def _reference(given: str | None, done, names: list[str]) -> str:
    from state_rag.errors import StateRagError

    if given is None:
        return names[-1]
    if given in names:
        return given
    for name, (run, _) in zip(names, done, strict=True):
        if Path(given).resolve() in (run.folder.resolve(), run.predictions.resolve()):
            return name
    raise StateRagError(f"--reference: '{given}' is none of the runs given ({', '.join(names)})")


def _print_notes(console, folder: Path) -> None:
    import json

    notes = json.loads((folder / "summary.json").read_text())["metadata"]["notes"]
    shown = {key: value for key, value in notes.items() if value and key not in ("pca_dimensions", "conditions")}
    for key, value in shown.items():
        console.print(f"{key.replace('_', ' ')}: {value}", style="dim", markup=False, highlight=False)
    console.print(f"Written: {folder}", markup=False, highlight=False)
