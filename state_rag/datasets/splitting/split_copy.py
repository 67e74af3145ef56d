"""A split as part of a run: its tables with absolute locations, so that they mean the same from any folder."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import toml

from state_rag.datasets.splitting.split_toml import read_split
from state_rag.files import atomic_path, read_text

TABLES = ("datasets", "training", "zeroshot", "fewshot")


def split_tables(path: str | os.PathLike[str]) -> dict[str, dict[str, Any]]:
    """Return the tables of a split file, each location of data absolute.

    Raises
    ------
    StateRagError
        If it is no split file.
    """
    split = read_split(path)
    content = toml.loads(read_text(split.path, "a split file", (".toml",)))
    tables: dict[str, dict[str, Any]] = {name: dict(content.get(name, {})) for name in TABLES}
    tables["datasets"] = {name: os.path.abspath(location) for name, location in split.datasets.items()}
    return tables


def write_split_tables(path: Path, tables: Mapping[str, Mapping[str, Any]]) -> None:
    """Write tables as a split file."""
    text = "# The split that this run was trained on, with absolute locations of the data.\n"
    with atomic_path(path) as temporary:
        temporary.write_text(text + toml.dumps({name: dict(tables.get(name, {})) for name in TABLES}), encoding="utf-8")
