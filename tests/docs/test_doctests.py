"""The examples in docstrings of every module do what they say."""

import doctest
import importlib
import importlib.util
import pkgutil

import pytest

import state_rag

MODULES = [
    found.name
    for found in pkgutil.walk_packages(state_rag.__path__, "state_rag.")
    if not found.name.endswith("__main__")
]
FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


def has_examples(name):
    spec = importlib.util.find_spec(name)
    return bool(spec and spec.loader and ">>> " in (spec.loader.get_source(name) or ""))


WITH_EXAMPLES = [name for name in MODULES if has_examples(name)]


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_the_examples_of_a_module_hold(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    result = doctest.testmod(importlib.import_module(name), optionflags=FLAGS)
    assert result.attempted
    assert not result.failed


def test_there_are_examples():
    assert len(WITH_EXAMPLES) > 5
