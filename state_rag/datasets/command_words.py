"""What commands about data share: options that name columns, and the command to run next."""

import argparse
import shlex
from pathlib import Path

CELL_TYPE_KEY = ("--cell-type-key", "--cell-type-col")
CONTROL = ("--control", "--control-pert")
"""What the options are called, each by what `data.kwargs` of a training calls it too."""


def add_names(parser: argparse.ArgumentParser) -> None:
    """Add the options that name columns and control."""
    parser.add_argument("--pert-col", metavar="COLUMN", help="obs column of the perturbation (default: found)")
    parser.add_argument(
        *CELL_TYPE_KEY, dest="cell_type_col", metavar="COLUMN", help="obs column of the cell line (default: found)"
    )
    parser.add_argument(*CONTROL, dest="control", metavar="NAME", help="name of the control (default: found)")


def add_data_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that stand for `data.kwargs` of a training: columns, control, and which matrix is predicted."""
    parser.add_argument("--pert-col", metavar="COLUMN", help="obs column of the perturbation (default: found)")
    parser.add_argument(
        *CELL_TYPE_KEY, dest="cell_type_key", metavar="COLUMN", help="obs column of the cell line (default: found)"
    )
    parser.add_argument("--batch-col", metavar="COLUMN", help="obs column of the batch (default: found)")
    parser.add_argument(*CONTROL, dest="control_pert", metavar="NAME", help="name of the control (default: found)")
    parser.add_argument(
        "--mode-col", metavar="COLUMN", help="obs column of the mode (CRISPRi, CRISPRa, KO, drug): evidence runs only"
    )
    parser.add_argument(
        "--dose-col",
        metavar="COLUMN",
        help="obs column of the dose, with or without a unit: evidence runs only",
    )
    parser.add_argument(
        "--time-col", metavar="COLUMN", help="obs column of the time, hours or with a unit: evidence runs only"
    )
    parser.add_argument("--embed-key", default="X_hvg", metavar="KEY", help="default: X_hvg; `null` for all of X")
    parser.add_argument(
        "--output-space", default="gene", choices=("gene", "all", "embedding"), help="what is predicted (default: gene)"
    )


FULL_SIZE = (
    "This is STATE's full size and its 400,000 steps, hours on a GPU. On a laptop add: model=rag_small training=small"
)
"""Said of the training that a command proposes."""


REPLOGLE = {
    "pert_col": "gene",
    "cell_type_key": "cell_line",
    "batch_col": "gem_group",
    "control_pert": "non-targeting",
    "embed_key": "X_hvg",
    "output_space": "gene",
}
"""What `data=replogle` stands for, under `data.kwargs`."""


def given_options(**values: str) -> str:
    """Return the options of `data check`, which `evidence fit` has too, that differ from `REPLOGLE`."""
    return "".join(
        f" --{name.replace('_', '-')} {shlex.quote(value)}" for name, value in values.items() if value != REPLOGLE[name]
    )


def quote(path: Path) -> str:
    """Return a path as a shell word."""
    return shlex.quote(str(path))


def print_next(command: str) -> None:
    """Print the command to run next."""
    print(f"next: {command}")
