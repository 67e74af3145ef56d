"""Rooms import one way (docs/architecture.md), and imports inside functions are no exception."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "state_rag"
LEAVES = {
    "__version__",
    "cache",
    "cell_files",
    "console",
    "counts",
    "csv_tables",
    "errors",
    "files",
    "h5ad",
    "h5ad_writing",
    "names",
    "progress",
    "public",
    "run_folders",
    "text_lines",
    "threads",
    "torch_files",
}
LEAVES |= {"flag", "settings", "settings_help"}
MAY_USE = {
    "retrieval": set(),
    "evidence": set(),
    "metrics": set(),
    "embeddings": set(),
    "contract": set(),
    "datasets": {"contract", "embeddings"},
    "effects": {"contract", "datasets", "metrics"},
    "plot": {"effects", "metrics"},
    "tracking": {"retrieval"},
    "cells": {"contract"},
    "cell_sets": {"retrieval"},
    "anchor": {"cells", "evidence"},
    "bound": {"anchor", "retrieval"},
    "checkpoint": {"retrieval"},
    "together": {"retrieval"},
    "model": {"anchor", "bound", "cell_sets", "checkpoint", "retrieval", "together", "tracking"},
    "engine": {"cells", "contract", "datasets", "effects", "embeddings", "evidence", "metrics", "plot", "tracking"},
    "evaluation": {
        "cells",
        "checkpoint",
        "contract",
        "datasets",
        "effects",
        "embeddings",
        "engine",
        "evidence",
        "metrics",
        "plot",
        "tracking",
    },
    "planning": {"contract", "datasets", "effects", "embeddings", "engine", "evidence", "metrics", "plot"},
    "analysis": {"datasets", "effects", "embeddings", "engine", "evaluation", "metrics"},
    "upstream": {
        "analysis",
        "anchor",
        "cell_sets",
        "cells",
        "checkpoint",
        "contract",
        "datasets",
        "effects",
        "embeddings",
        "engine",
        "evaluation",
        "evidence",
        "metrics",
        "model",
        "plot",
        "retrieval",
        "together",
        "tracking",
    },
    "inference": {"analysis", "cells", "engine", "evidence", "planning", "upstream"},
    "report": {"analysis", "datasets", "effects", "engine", "evaluation", "metrics", "plot"},
    "experiments": {"datasets", "embeddings", "evaluation", "metrics", "plot", "report", "retrieval", "upstream"},
    "startup": {"upstream"},
    "__main__": {"startup"},
}


def imported_rooms(source):
    """Return the rooms of state_rag that a module imports anywhere in it."""
    rooms = set()
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        rooms |= {name.split(".")[1] for name in names if name.startswith("state_rag.")}
    return rooms


def modules(room):
    folder = PACKAGE / room
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]


def test_every_room_has_its_arrows_written_down():
    rooms = {path.stem for path in PACKAGE.glob("*.py")} | {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert rooms - LEAVES - {"cli", "__init__"} == set(MAY_USE)


@pytest.mark.parametrize("room", MAY_USE)
def test_a_room_imports_only_those_below_it_wherever_the_import_stands(room):
    allowed = MAY_USE[room] | {room} | LEAVES
    wrong = {
        f"{path.relative_to(PACKAGE)} imports {other}"
        for path in modules(room)
        for other in imported_rooms(path.read_text()) - allowed
    }
    assert not wrong


def below(room):
    """Return the rooms that arrows lead to from a room, directly or over others."""
    return MAY_USE[room].union(*map(below, MAY_USE[room]))


def test_the_arrows_make_no_circle():
    assert not {room for room in MAY_USE if room in below(room)}


@pytest.mark.parametrize("room", MAY_USE)
def test_an_arrow_that_is_drawn_stands_for_an_import(room):
    used = set().union(*(imported_rooms(path.read_text()) for path in modules(room)))
    drawn = {other for other in MAY_USE[room] if not any(other in below(between) for between in MAY_USE[room])}
    assert drawn <= used


def test_an_import_within_a_function_counts():
    assert imported_rooms("def f():\n    from state_rag.upstream.ablation.ablate import ablate_run\n") == {"upstream"}
