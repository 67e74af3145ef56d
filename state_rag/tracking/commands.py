"""`state-rag dashboard`."""

from argparse import Namespace
from pathlib import Path
from typing import Any


def add_commands(subparsers: Any) -> None:
    """Add the commands of this room."""
    parser = subparsers.add_parser(
        "dashboard",
        help="create a W&B workspace with panels for retrieval",
        description="Creates a saved view of a W&B project with panels for losses, "
        "selection, gradients, diversity, watched perturbations and the evaluation. Needs the extra `dashboard` "
        "(wandb-workspaces).",
    )
    parser.add_argument("project", metavar="ENTITY/PROJECT", help="where the runs are")
    parser.add_argument("--name", default="state-rag", help="name of the view (%(default)s)")
    parser.add_argument("--group", help="only runs of this W&B group, such as a sweep's")
    parser.add_argument("--dry-run", action="store_true", help="print the view's specification and send nothing")
    parser.add_argument("-o", "--output", type=Path, help="with --dry-run: write the specification to this file")
    parser.set_defaults(run=dashboard)


def dashboard(args: Namespace) -> None:
    """Run `state-rag dashboard`."""
    import json

    from state_rag.files import print_or_write
    from state_rag.tracking.dashboard import build, save, specification

    view = build(args.project, name=args.name, group=args.group)
    if not args.dry_run:
        print(f"Dashboard: {save(view)}")
        return
    text = json.dumps(specification(view), indent=2) + "\n"
    print_or_write(text, args.output)
