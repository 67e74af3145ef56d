"""`state-rag quickstart` and `state-rag data ...`; each command has a module of its own beside what it does."""

from typing import Any

from state_rag.datasets.fetching.fetch_command import add_fetch
from state_rag.datasets.preparing.prepare_command import add_prepare
from state_rag.datasets.quickstart.command import add_quickstart
from state_rag.datasets.simulation.simulate_command import add_simulate
from state_rag.datasets.splitting.check_command import add_check
from state_rag.datasets.splitting.split_command import add_split


def add_commands(subparsers: Any) -> None:
    """Add `quickstart`, and `data` with its sub-commands."""
    add_quickstart(subparsers)
    data = subparsers.add_parser(
        "data", help="simulate or download a screen; write, check a split; prepare an h5ad file"
    )
    commands = data.add_subparsers(dest="data_command", required=True, metavar="COMMAND")
    add_simulate(commands)
    add_split(commands)
    add_prepare(commands)
    add_check(commands)
    add_fetch(commands)
