"""`state-rag import-checkpoint`."""

from argparse import Namespace
from pathlib import Path
from typing import Any


def add_commands(subparsers: Any) -> None:
    """Add the commands of this room."""
    parser = subparsers.add_parser(
        "import-checkpoint",
        help="turn a released PT-RAG model into a run folder for `state tx predict`",
        description="Reads a folder as the authors of PT-RAG released it and writes a run folder beside it.",
    )
    parser.add_argument(
        "folder", type=Path, metavar="DIR", help="released folder (config.yaml, checkpoints, side files)"
    )
    parser.add_argument("-o", "--output", type=Path, default=None, help="run folder to write (default: DIR-state-rag)")
    parser.set_defaults(run=import_checkpoint)


def import_checkpoint(args: Namespace) -> None:
    """Run `state-rag import-checkpoint`."""
    from state_rag.upstream.released import import_release

    target = args.output or args.folder.with_name(args.folder.resolve().name + "-state-rag")
    print(f"Run folder: {import_release(args.folder, target)}")
    print(f"Next: state tx predict --output-dir {target} --toml SPLIT.toml")
