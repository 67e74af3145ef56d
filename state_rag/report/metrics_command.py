"""`state-rag metrics`: what each metric means."""

import argparse


def add_metrics(subparsers) -> None:
    """Add `state-rag metrics`."""
    parser = subparsers.add_parser(
        "metrics",
        help="what each metric means: definition, formula, range, source",
        description="List the metrics that `evaluate`, `compare`, `report`, `table1` and `table2` know.",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these (default: all)")
    parser.add_argument("--markdown", action="store_true", help="as a table in Markdown")
    parser.set_defaults(run=_metrics)


def _metrics(args: argparse.Namespace) -> None:
    from state_rag.console import make_console
    from state_rag.metrics import glossary
    from state_rag.metrics.registry import choose

    chosen = choose(args.names or None, "state-rag metrics")
    if args.markdown:
        print(glossary.markdown(chosen), end="")
        return
    console = make_console()
    for line in glossary.lines(chosen):
        console.print(line, style=None if line.startswith(" ") else "bold", markup=False)
    console.print(glossary.SYMBOLS, style="dim", markup=False)
    console.print(f"{glossary.SPACES_LINE}.", style="dim", markup=False)
