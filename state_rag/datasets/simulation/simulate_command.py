"""`state-rag data simulate`."""

import argparse
import shlex
from typing import Any

from state_rag.counts import seed
from state_rag.datasets.command_words import print_next, quote
from state_rag.datasets.simulation.screen_sizes import PRESETS

# flag, type, what it sets; the parameters are described in `screen_sizes.ScreenSizes`
_SIMULATE_SIZES = (
    ("--perturbations", int, "n_perturbations", "perturbations"),
    ("--modules", int, "n_modules", "modules that the perturbations are spread over"),
    ("--genes", int, "n_genes", "genes of X"),
    ("--hvgs", int, "n_hvgs", "genes of X_hvg"),
    ("--cells-per-condition", int, "cells_per_condition", "cells of a perturbation in a cell line"),
    ("--controls-per-line", int, "controls_per_line", "control cells of a cell line"),
    ("--gem-groups-per-line", int, "gem_groups_per_line", "batches of a cell line"),
    ("--embedding-width", int, "embedding_width", "width of the text embeddings"),
    ("--misleading-fraction", float, "misleading_fraction", "perturbations whose text resembles a foreign module"),
    ("--active-fraction", float, "active_fraction", "cell lines that a module acts in"),
    ("--flip-fraction", float, "flip_fraction", "probability that a module's sign is the opposite in a line"),
    ("--effect-scale", float, "effect_scale", "factor on the effects"),
    ("--missing", int, "missing", "perturbations that get no embedding"),
    ("--unseen", int, "unseen", "perturbations that get an embedding but no cells"),
)


def add_simulate(commands: Any) -> None:
    """Add `data simulate`."""
    parser = commands.add_parser("simulate", help="write a Replogle-shaped screen whose truth is known")
    parser.add_argument("folder", metavar="OUT", help="folder for the files")
    parser.add_argument("--seed", type=seed, default=0, help="of the screen (%(default)s)")
    parser.add_argument("--preset", choices=tuple(PRESETS), default="demo", help="sizes (default: demo)")
    parser.add_argument("--lines", nargs="+", metavar="LINE", help="cell lines (default: k562 rpe1 jurkat hepg2)")
    for flag, kind, name, text in _SIMULATE_SIZES:
        parser.add_argument(flag, type=kind, dest=name, metavar="N" if kind is int else "X", help=text)
    parser.set_defaults(run=run_simulate)


def run_simulate(args: argparse.Namespace) -> None:
    """Write a simulated screen."""
    from state_rag.datasets.simulation.simulate import simulate_screen

    sizes = dict(PRESETS[args.preset])
    sizes.update((name, value) for _, _, name, _ in _SIMULATE_SIZES if (value := getattr(args, name)) is not None)
    if args.lines:
        sizes["lines"] = tuple(args.lines)
    screen = simulate_screen(args.folder, seed=args.seed, **sizes)
    print(f"cells       {screen.h5ad}")
    print(f"embeddings  {screen.embeddings}")
    print(f"truth       {screen.truth}")
    print(f"            {screen.truth_effects}")
    held_out = f"--held-out {shlex.quote((args.lines or ['hepg2'])[-1])}"
    if len(args.lines or ()) == 1:
        held_out = "--held-out-perturbations 0.2"
    print_next(f"state-rag data split {quote(screen.h5ad)} {held_out}")
