"""`state-rag` ends with one line where the user can do something about it."""

import argparse

import pytest

from state_rag import cli
from state_rag.errors import StateRagError


def failing(monkeypatch, error):
    """Let the command line consist of one command that fails."""

    def run(args):
        raise error

    parser = argparse.ArgumentParser()
    parser.set_defaults(run=run)
    monkeypatch.setattr(cli, "build_parser", lambda: parser)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (StateRagError("no embedding for FOO"), "state-rag: error: no embedding for FOO\n"),
        (
            OSError(28, "No space left on device", "results.csv"),
            "state-rag: error: [Errno 28] No space left on device: 'results.csv' (STATE_RAG_TRACEBACK=1 shows where)\n",
        ),
    ],
)
def test_what_the_user_can_mend_is_one_line(monkeypatch, capsys, error, said):
    monkeypatch.delenv("STATE_RAG_TRACEBACK", raising=False)
    failing(monkeypatch, error)
    assert cli.main([]) == 1
    assert capsys.readouterr().err == said


def test_an_interruption_is_one_line(monkeypatch, capsys):
    monkeypatch.delenv("STATE_RAG_TRACEBACK", raising=False)
    failing(monkeypatch, KeyboardInterrupt())
    assert cli.main([]) == 130
    assert capsys.readouterr().err == "state-rag: interrupted\n"


def test_the_traceback_can_be_asked_for(monkeypatch):
    monkeypatch.setenv("STATE_RAG_TRACEBACK", "1")
    failing(monkeypatch, StateRagError("no embedding"))
    with pytest.raises(StateRagError):
        cli.main([])


def test_a_fault_of_ours_keeps_its_traceback(monkeypatch):
    failing(monkeypatch, KeyError("x"))
    with pytest.raises(KeyError):
        cli.main([])


def test_every_room_has_its_commands():
    parser = cli.build_parser()
    (commands,) = (action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    assert {"embeddings", "data", "evaluate", "compare", "retrieval", "report", "sweep", "table1"} <= set(commands)
