"""`state-rag` ends with one line where the user can do something about it."""

import argparse
import subprocess
import sys
import time

import pytest

from state_rag import cli
from state_rag.errors import StateRagError


def failing(monkeypatch, error):
    """Let the command line consist of one command that fails."""

    def run(args):
        raise error

    parser = argparse.ArgumentParser()
    parser.add_argument("command")
    parser.set_defaults(run=run)
    monkeypatch.setattr(cli, "build_parser", lambda: parser)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (StateRagError("no embedding for FOO"), "state-rag: error: no embedding for FOO\n"),
        (
            OSError(28, "No space left on device", "results.csv"),
            "state-rag: error: no space left on device: results.csv (STATE_RAG_TRACEBACK=1 shows where)\n",
        ),
    ],
)
def test_what_the_user_can_mend_is_one_line(monkeypatch, capsys, error, said):
    monkeypatch.delenv("STATE_RAG_TRACEBACK", raising=False)
    failing(monkeypatch, error)
    assert cli.main(["fail"]) == 1
    assert capsys.readouterr().err == said


@pytest.mark.parametrize(
    "words",
    [
        ("data", "simulate", "out"),
        ("data", "split", "screen.h5ad"),
        ("evidence", "fit", "split.toml", "-o", "run"),
        ("design", "run", "--context", "line", "--budget", "4"),
        ("search", "run", "--context", "line", "--target", "A:+"),
    ],
)
def test_a_seed_below_0_is_refused(words, capsys):
    with pytest.raises(SystemExit):
        cli.main([*words, "--seed", "-1"])
    assert "argument --seed: -1 is no seed; give a whole number from 0" in capsys.readouterr().err


def test_an_interruption_is_one_line(monkeypatch, capsys):
    monkeypatch.delenv("STATE_RAG_TRACEBACK", raising=False)
    failing(monkeypatch, KeyboardInterrupt())
    assert cli.main(["fail"]) == 130
    assert capsys.readouterr().err == "state-rag: interrupted\n"


def test_the_traceback_can_be_asked_for(monkeypatch):
    monkeypatch.setenv("STATE_RAG_TRACEBACK", "1")
    failing(monkeypatch, StateRagError("no embedding"))
    with pytest.raises(StateRagError):
        cli.main(["fail"])


def test_a_fault_of_ours_keeps_its_traceback(monkeypatch):
    failing(monkeypatch, KeyError("x"))
    with pytest.raises(KeyError):
        cli.main(["fail"])


def test_every_room_has_its_commands():
    parser = cli.build_parser()
    (commands,) = (action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    assert {"embeddings", "data", "evaluate", "compare", "retrieval", "report", "sweep", "table1"} <= set(commands)


def test_alone_it_prints_the_commands_of_a_day_in_order(capsys):
    assert cli.main([]) == 0
    said = capsys.readouterr()
    assert not said.err
    day = [
        "state-rag quickstart",
        "state-rag data split",
        "state-rag data check",
        "state tx train training.rag=true",
        "state tx predict",
        "state-rag evaluate",
        "state-rag report",
        "state-rag --help",
    ]
    places = [said.out.index(command) for command in day]
    assert places == sorted(places)


def test_every_command_that_it_names_is_known(capsys):
    cli.main([])
    lines = [line.split("state-rag ", 1)[1] for line in capsys.readouterr().out.splitlines() if " state-rag " in line]
    parser = cli.build_parser()
    (commands,) = (action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    named = {line.split()[0] for line in lines} - {"--help.", "COMMAND"}
    assert named
    assert named <= set(commands)


def test_alone_it_loads_nothing_heavy_and_is_quick():
    program = (
        "import sys; from state_rag import cli; cli.main([]); "
        "print([name for name in ('torch', 'numpy', 'h5py', 'anndata') if name in sys.modules], file=sys.stderr)"
    )
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    assert time.monotonic() - started < 3  # 0.1 s on an idle machine
