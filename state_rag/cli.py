"""`state-rag`: everything that is not a `state` command.

Rooms bring their sub-commands in modules with a function `add_commands(subparsers)`, which `ROOMS` names; a
command sets `run=` to a function that takes the parsed arguments. Only the module of the command that was
asked for is imported with its heavy dependencies (inside `run`), so that `--help` stays quick.
"""

import argparse
import importlib
import logging
import os
import sys
from collections.abc import Sequence

from state_rag import __version__
from state_rag.errors import StateRagError
from state_rag.files import reason

ABOUT = (
    "Predict how cells respond to perturbations, from what is known of similar ones. Networks are trained by "
    "`state tx train rag=...`; the evidence engine needs none: `state-rag evidence fit`."
)

ROOMS = (
    "state_rag.embeddings.commands",
    "state_rag.datasets.commands",
    "state_rag.engine.commands",
    "state_rag.engine.explaining.command",
    "state_rag.planning.design_command",
    "state_rag.planning.search_command",
    "state_rag.upstream.commands",
    "state_rag.report.commands",
    "state_rag.tracking.commands",
    "state_rag.experiments.table_commands",
    "state_rag.experiments.commands",
)

DAY = """\
state-rag: perturbation-aware retrieval for Arc Institute's STATE. A day's work, in order:

  1  state-rag quickstart SCREEN.h5ad
       looks at your file and prints the commands below, filled in for it; runs nothing
  2  state-rag data split SCREEN.h5ad --held-out LINE -o split.toml
     state-rag data check split.toml
       holds a cell line out for the test, and says whether STATE can read the data and what each part holds
  3  state tx train training.rag=true data.kwargs.toml_config_path=split.toml ...
       trains STATE with retrieval (training.rag=true as published, rag=ptrag as recommended) in output_dir/name
  4  state tx predict --output-dir runs/ptrag
       predicts the held-out perturbations, and writes which neighbours each prediction used
  5  state-rag evaluate runs/ptrag
     state-rag report runs/ptrag -o report
       metrics beside naive baselines; the same with pictures as one page, report/index.html

No data yet: state-rag data simulate OUT makes a small screen whose truth is known.
Every command: state-rag --help. The options of one: state-rag COMMAND --help, state tx train --help.
"""
"""What `state-rag` alone prints."""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    parser = argparse.ArgumentParser(prog="state-rag", description=ABOUT)
    parser.add_argument("--version", action="version", version=f"state-rag {__version__}")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for room in ROOMS:
        importlib.import_module(room).add_commands(subparsers)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; what the user can mend becomes one line on standard error and status 1.

    That is a `StateRagError`, or a file that the system refuses. ``STATE_RAG_TRACEBACK=1`` lets them through, and
    Ctrl-C too, which otherwise is one line and status 130. Without arguments, what to do first is printed.
    """
    argv = sys.argv[1:] if argv is None else argv
    if not argv:
        print(DAY, end="")
        return 0
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    args = build_parser().parse_args(argv)
    try:
        args.run(args)
    except BrokenPipeError:  # whoever read our output, such as `head`, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        if os.environ.get("STATE_RAG_TRACEBACK"):
            raise
        print("state-rag: interrupted", file=sys.stderr)
        return 130
    except (StateRagError, OSError) as error:
        if os.environ.get("STATE_RAG_TRACEBACK"):
            raise
        said = str(error)
        if not isinstance(error, StateRagError):
            said = f"{reason(error)} (STATE_RAG_TRACEBACK=1 shows where)"
        print(f"state-rag: error: {said}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
