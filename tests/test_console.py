import sys

from state_rag.console import UNLIMITED, make_console


def test_a_file_or_pipe_gets_whole_lines(monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    assert make_console().width == UNLIMITED


def test_columns_and_the_terminal_limit_the_width(monkeypatch):
    monkeypatch.setenv("COLUMNS", "61")
    assert make_console().width == 61
    monkeypatch.delenv("COLUMNS")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert make_console().width < UNLIMITED
