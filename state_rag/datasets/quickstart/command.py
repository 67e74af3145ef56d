"""`state-rag quickstart`."""

import argparse
from typing import Any

from state_rag.datasets.command_words import CELL_TYPE_KEY, CONTROL


def add_quickstart(subparsers: Any) -> None:
    """Add `quickstart`."""
    parser = subparsers.add_parser(
        "quickstart",
        help="look at an h5ad file and print the commands that train and predict on it",
        description="Look at an h5ad file, without loading its matrix, guess which columns and labels mean what, and "
        "print the commands from the split to the report, filled in for it. Nothing is run and nothing written. The "
        "output is a shell script whose comments say what was found and how sure that is.",
    )
    parser.add_argument("file", metavar="FILE", help="h5ad file")
    parser.add_argument("--pert-col", metavar="COLUMN", help="obs column of the perturbation (default: guessed)")
    parser.add_argument(
        *CELL_TYPE_KEY,
        dest="cell_type_col",
        metavar="COLUMN",
        help="obs column of the cell line (default: guessed)",
    )
    parser.add_argument("--batch-col", metavar="COLUMN", help="obs column of the batch (default: guessed)")
    parser.add_argument(*CONTROL, dest="control", metavar="NAME", help="label of the control (default: guessed)")
    parser.add_argument("--held-out", metavar="LINE", help="cell line to hold out (default: chosen)")
    parser.add_argument("--embeddings", metavar="FILE", help="embeddings of the perturbations (default: looked for)")
    parser.set_defaults(run=run_quickstart)


def run_quickstart(args: argparse.Namespace) -> None:
    """Print findings and commands."""
    from state_rag.datasets.quickstart.plan import plan
    from state_rag.datasets.quickstart.script import script

    found = plan(
        args.file,
        pert_col=args.pert_col,
        cell_type_col=args.cell_type_col,
        batch_col=args.batch_col,
        control=args.control,
        held_out=args.held_out,
    )
    print(script(found, args.embeddings), end="")
