"""`state-rag table1` and `state-rag table2`."""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

from state_rag.errors import StateRagError


def add_commands(subparsers) -> None:
    """Add `table1` and `table2` to the command line."""
    first = subparsers.add_parser(
        "table1",
        help="the paper's Table 1 from a sweep, finished or not",
        description="Metrics by methods and naive baselines: means over held-out lines (or folds) and conditions, "
        "standard deviations over seeds, and tests against a reference. Runs that have not finished are shown as "
        "missing, and all methods are compared on the lines and seeds that all of them have finished.",
    )
    _add_options(first)
    first.add_argument("--reference", metavar="METHOD", help="method to test against (default: PT-RAG)")
    first.add_argument("--topk", type=int, metavar="K", help="K of methods that retrieve (default: each one's largest)")
    first.add_argument("--by-line", action="store_true", help="a column for each held-out line or fold")
    first.add_argument(
        "--metrics",
        nargs="+",
        metavar="NAME",
        help="these metrics, or `all` (default: the paper's); see `state-rag metrics`",
    )
    first.set_defaults(run=_table1)
    second = subparsers.add_parser(
        "table2",
        help="the paper's Table 2 from a sweep, finished or not: a metric by K, and its plot",
        description="A metric by method and K, beside the methods and naive baselines that retrieve nothing.",
    )
    _add_options(second)
    second.add_argument(
        "--metric",
        nargs="+",
        default=["pearson_deg"],
        metavar="NAME",
        help="a table and a plot for each of these (default: pearson_deg); `state-rag metrics` lists them",
    )
    second.set_defaults(run=_table2)


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sweep", type=Path, metavar="SWEEP_DIR", help="folder of a sweep")
    parser.add_argument("--methods", nargs="+", metavar="METHOD", help="only these, such as none genept ptrag")
    parser.add_argument("-o", "--output", type=Path, metavar="DIR", help="where to write (default: SWEEP_DIR/tables)")
    parser.add_argument("--watch", type=float, metavar="SECONDS", help="refresh while jobs wait or run; Ctrl-C ends it")


def _table1(args: argparse.Namespace) -> None:
    from state_rag.experiments.tables import PAPER, save_table, table1
    from state_rag.metrics.registry import METRICS

    metrics = tuple(args.metrics or PAPER)
    if metrics == ("all",):
        metrics = tuple(metric.name for metric in METRICS)

    def make(sweep):
        table = table1(
            sweep,
            methods=args.methods,
            reference=args.reference,
            metrics=metrics,
            topk=args.topk,
            by_line=args.by_line,
        )
        return [table], lambda folder: save_table(table, folder)

    _show(args, make)


def _table2(args: argparse.Namespace) -> None:
    from state_rag.experiments.k_plot import k_plot
    from state_rag.experiments.tables import save_table, table2
    from state_rag.plot.style import save_figure

    def make(sweep):
        tables = [table2(sweep, metric=name, methods=args.methods) for name in args.metric]

        def save(folder: Path) -> list[Path]:
            written = []
            for table in tables:
                written += save_table(table, folder)
                plot = f"{table.name}_by_k"
                save_figure(k_plot(table.rows, table.metrics[0], table.title), folder, plot)
                written += [folder / f"{plot}.png", folder / f"{plot}.svg"]
            return written

        return tables, save

    _show(args, make)


def _show(args: argparse.Namespace, make: Callable) -> None:
    """Print and write tables, once or until the sweep is done."""
    from state_rag.console import make_console
    from state_rag.experiments.finished import read_sweep, sweep_state
    from state_rag.report.grid import terminal

    if args.watch is not None and not args.watch > 0:
        raise StateRagError(f"--watch {args.watch:g}: expected a number of seconds above 0.")
    console = make_console()
    folder = args.output or args.sweep / "tables"
    seen, sweep = None, None
    try:
        while True:
            state = sweep_state(args.sweep)
            if sweep is None or state != seen:
                seen, sweep = state, read_sweep(args.sweep)
                tables, save = make(sweep)
                if args.watch:
                    console.clear()
                for table in tables:
                    console.print(*terminal(table.grid, console.width), sep="\n")
                    console.print(table.grid.notes, style="dim", markup=False, highlight=False)
                written = save(folder)
                for path in written:
                    console.print(f"Written: {path}", markup=False, highlight=False, soft_wrap=True)
            if not args.watch or sweep.is_done:
                return
            time.sleep(args.watch)
    except KeyboardInterrupt:
        console.print("Stopped watching; the files hold what was shown last.")
