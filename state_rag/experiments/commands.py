"""`state-rag sweep`."""

import argparse
from pathlib import Path
from typing import Any

DESCRIPTION = """\
Run every combination of the given values: split, train, predict and evaluate, each job in a run folder of its own.
It is a Hydra application over the configuration of `state tx train`; all of its keys and groups work, and with them

  rag=none,genept,vanilla,ptrag          methods
  held_out=k562,rpe1,jurkat,hepg2        cell lines to hold out, one at a time
  folds=3 held_out=fold0,fold1,fold2     perturbations to hold out, a fold at a time; one cell line is enough
  training.topk_rag=2,5,10,32  seed=0,1,2
  data_file=SCREEN.h5ad few_shot=0.3     have splits written; or use your own:
  'data.kwargs.toml_config_path="splits/{held_out}.toml"'
  experiment=NAME  sweep=NAME            presets: one run, a whole table
  hydra/launcher=NAME                    basic (one after the other), joblib, submitit_local, submitit_slurm, ray

The same command again skips finished jobs and goes on with the others.
"""


def add_commands(subparsers: Any) -> None:
    """Add the commands of this room."""
    parser = subparsers.add_parser(
        "sweep",
        help="train, predict and evaluate a grid of methods, held-out lines and settings",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_options(parser)
    parser.add_argument("overrides", nargs=argparse.REMAINDER, metavar="KEY=VALUE", help="Hydra overrides")
    parser.set_defaults(run=run_sweep)


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-m", "--multirun", action="store_true", help="as in Hydra; not needed: KEY=A,B is enough")
    parser.add_argument("--dry-run", action="store_true", help="list what would run, and its cost; write nothing")
    parser.add_argument(
        "--sweep-dir",
        type=Path,
        metavar="DIR",
        help="folder for everything (default: sweeps/sweep; of sweep=NAME sweeps/NAME)",
    )


def run_sweep(args: argparse.Namespace) -> None:
    """Run `state-rag sweep`. Options may stand before, between and after the overrides."""
    from state_rag.experiments.sweep import sweep
    from state_rag.upstream.overrides import quoted

    rest = argparse.ArgumentParser(prog="state-rag sweep")
    _add_options(rest)
    rest.add_argument("overrides", nargs="*")
    more = rest.parse_intermixed_args(args.overrides)
    overrides = list(more.overrides)
    folder = more.sweep_dir or args.sweep_dir
    if folder is not None:
        overrides.append(f"sweep_dir={quoted(str(folder))}")
    sweep(overrides, multirun=args.multirun or more.multirun, dry_run=args.dry_run or more.dry_run)
