"""`state-rag data prepare`."""

import argparse
import shlex
from typing import Any

from state_rag.datasets.command_words import add_names, print_next, quote


def add_prepare(commands: Any) -> None:
    """Add `data prepare`."""
    parser = commands.add_parser("prepare", help="write a copy of an h5ad file that upstream can read")
    parser.add_argument("file", metavar="FILE", help="h5ad file")
    parser.add_argument(
        "-o",
        "--output",
        metavar="OUT",
        help="default: NAME.prepared.h5ad beside the input; another file there is kept as OUT.before",
    )
    add_names(parser)
    parser.add_argument(
        "--one-line",
        metavar="NAME",
        help="no column names the cell line: add one, cell_line, with NAME for all cells (default: one_line)",
    )
    parser.add_argument("--batch-col", metavar="COLUMN", help="obs column of the batch (default: found, or added)")
    for part, what in (("mode", "CRISPRi, CRISPRa, KO, drug"), ("dose", "with or without a unit"), ("time", "hours")):
        parser.add_argument(
            f"--{part}-col",
            metavar="COLUMN",
            help=f"obs column of the {part} ({what}): write it into the labels of perturbations, as in NAME:dose=0.5",
        )
    parser.add_argument(
        "--n-hvgs", type=int, metavar="N", help="genes of X_hvg (default: the file's own choice, else 2000)"
    )
    parser.add_argument(
        "--replogle-names",
        action="store_true",
        help="rename to gene, cell_line, gem_group and non-targeting, as `data=replogle` expects",
    )
    parser.add_argument(
        "--like",
        nargs="+",
        default=(),
        metavar="FILE|RUN",
        help="take the genes of another h5ad file, or of a run, in their order, and its total",
    )
    parser.add_argument(
        "--common",
        action="store_true",
        help="with --like, which may name the file too: keep only the genes that all have",
    )
    parser.set_defaults(run=run_prepare)


def run_prepare(args: argparse.Namespace) -> None:
    """Write a prepared copy of a file and say what changed."""
    from state_rag.datasets.preparing.prepare import prepare

    done = prepare(
        args.file,
        args.output,
        pert_col=args.pert_col,
        cell_type_col=args.cell_type_col,
        one_line=args.one_line,
        batch_col=args.batch_col,
        control=args.control,
        mode_col=args.mode_col,
        dose_col=args.dose_col,
        time_col=args.time_col,
        n_hvgs=args.n_hvgs,
        replogle_names=args.replogle_names,
        like=args.like,
        common=args.common,
    )
    for change in done.changes:
        print(f"- {change}")
    if not done.changes:
        print("nothing had to change")
    print(
        f"columns   {done.pert_col} (perturbation), {done.cell_type_col} (cell line), {done.batch_col} (batch); "
        f"control {done.control}; {done.n_hvgs:,} genes in X_hvg"
    )
    print(f"prepared  {done.path}")
    print(f"lines     {', '.join(done.cell_types)}")
    what = f"--held-out {shlex.quote(done.cell_types[0])}"
    if len(done.cell_types) == 1:
        what = "--held-out-perturbations 0.2"
    print_next(
        f"state-rag data split {quote(done.path)} {what} "
        f"--pert-col {shlex.quote(done.pert_col)} --cell-type-key {shlex.quote(done.cell_type_col)} "
        f"--control {shlex.quote(done.control)}"
    )
