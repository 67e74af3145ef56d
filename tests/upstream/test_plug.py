import logging
from argparse import ArgumentParser
from types import ModuleType

import pytest

from state_rag.errors import StateRagError
from state_rag.upstream import plug_in
from state_rag.upstream.plug import MARK, PARSERS, RUNNERS, plain_errors


@pytest.fixture
def commands_module():
    module = ModuleType("commands")
    for name in RUNNERS:
        setattr(module, name, lambda argument: argument)
    for name in PARSERS:
        setattr(module, name, lambda parser: parser.add_argument("--theirs"))
    return module


def test_plugging_in_wraps_every_command_once(commands_module):
    before = {name: getattr(commands_module, name) for name in (*RUNNERS, *PARSERS)}
    plug_in(commands_module)
    wrapped = {name: getattr(commands_module, name) for name in before}
    assert all(wrapped[name] is not before[name] for name in before)
    assert getattr(commands_module, MARK)
    plug_in(commands_module)
    assert {name: getattr(commands_module, name) for name in before} == wrapped


def test_a_wrapped_parser_has_their_arguments_and_ours(commands_module):
    plug_in(commands_module)
    parser = ArgumentParser()
    commands_module.add_arguments_infer(parser)
    given = parser.parse_args(["--theirs", "x", "--genept-path", "y"])
    assert (given.theirs, given.genept_path) == ("x", "y")


def test_a_module_without_a_command_is_not_changed(commands_module, capsys):
    del commands_module.run_tx_train
    before = vars(commands_module).copy()
    plug_in(commands_module)
    assert vars(commands_module) == before
    assert "state._cli._tx.run_tx_train" in capsys.readouterr().err


def test_our_errors_become_one_line_and_status_one(capsys):
    with pytest.raises(SystemExit) as stopped, plain_errors():
        raise StateRagError("x.h5ad: no such file. Check the path.")
    assert stopped.value.code == 1
    assert capsys.readouterr().err == "state-rag: error: x.h5ad: no such file. Check the path.\n"


def test_a_traceback_can_be_asked_for(monkeypatch):
    monkeypatch.setenv("STATE_RAG_TRACEBACK", "1")
    with pytest.raises(StateRagError), plain_errors():
        raise StateRagError("x")


def test_other_errors_pass_through():
    with pytest.raises(ZeroDivisionError), plain_errors():
        raise ZeroDivisionError


def test_our_messages_are_shown_while_a_command_runs_and_logging_is_left_as_found(capsys):
    logger = logging.getLogger("state_rag")
    found = (list(logger.handlers), logger.propagate)
    with plain_errors():
        logging.getLogger("state_rag.upstream.training.train").info("Method: x.")
    assert capsys.readouterr().err == "[state-rag] Method: x.\n"
    assert (list(logger.handlers), logger.propagate) == found
