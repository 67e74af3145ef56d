"""`state-rag search`, `state-rag design` and `state-rag evidence add`: each brings its own arguments."""

from importlib import import_module
from typing import Any

COMMANDS: tuple[str, ...] = ("design_command",)
"""Modules of this room with `add_commands(subparsers)`."""


def add_commands(subparsers: Any) -> None:
    """Add this room's commands."""
    for module in COMMANDS:
        import_module(f"state_rag.planning.{module}").add_commands(subparsers)
