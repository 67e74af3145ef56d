import io

import pytest
from rich.console import Console

from state_rag.report import grid
from state_rag.report.grid import Cell, Grid


@pytest.fixture
def by_method():
    rows = [
        (("MSE ↓", "a_b [x]"), [Cell(".210", True, "†", "*", ".002"), Cell("missing")]),
        (("MSE ↓", "ours"), [Cell("-.300", spread=".004"), Cell(".211", True)]),
        (("R2 ↑", "ours"), [Cell(".900"), Cell(".800")]),
    ]
    return Grid(("metric", "method"), ["k562", "rpe1"], rows, "a * note\nand ± one")


def printed(tables, width):
    stream = io.StringIO()
    Console(file=stream, width=width).print(*tables, sep="\n")
    return stream.getvalue()


def test_the_terminal_keeps_brackets_and_values_whole_and_shows_each_metric_once(by_method):
    text = printed(grid.terminal(by_method, 80), 80)
    assert "a_b [x]" in text
    assert ".210†* ± .002" in text
    assert text.count("MSE ↓") == 1


def test_a_narrow_terminal_splits_the_columns_and_repeats_the_names(by_method):
    tables = grid.terminal(by_method, 45)
    assert len(tables) == 2
    assert printed(tables, 45).count("a_b [x]") == 2
    assert max(map(len, printed(tables, 45).splitlines())) <= 45


def test_names_too_long_for_a_narrow_terminal_go_on_in_the_next_line():
    name = "a method with a very long name (genept_path=protein.npz)"
    rows = [(("Pearson delta (DEG), own control ↑", name), [Cell(".210†** ± .002"), Cell("missing 3/12")])]
    tables = grid.terminal(Grid(("metric", "method"), ["k562", "a line with a long name"], rows), 60)
    text = printed(tables, 60)
    assert max(map(len, text.splitlines())) <= 60
    assert ".210†** ± .002" in text
    assert "missing 3/12" in text
    assert "…" not in text
    letters = "".join(text.split("┡")[1].replace("│", " ").split())
    assert all(part in letters for part in ("genept_path", "own", "method"))


def test_titles_take_two_lines_at_most_and_the_columns_are_spread_evenly():
    titles = ["no effect", "mean effect", "same pert., other lines", "embedding ridge", "STATE", "PT-RAG"]
    tables = grid.terminal(Grid(("metric",), titles, [(("Pearson (DEG) ↑",), [Cell(".931†**")] * 6)]), 60)
    assert [len(table.columns) - 1 for table in tables] == [3, 3]
    for table in tables:
        assert printed([table], 60).split("┡")[0].count("\n") <= 3


def test_markdown_has_a_column_for_every_head_and_escapes_asterisks(by_method):
    lines = grid.markdown(by_method).splitlines()
    assert lines[1] == "|---|---|---:|---:|"
    assert lines[2] == "| MSE ↓ | a_b [x] | **.210**†\\* ± .002 | missing |"
    assert "a \\* note" in lines[6]


def test_latex_sets_minus_spread_marks_and_arrows_as_mathematics(by_method):
    text = grid.latex(by_method)
    assert r"MSE $\downarrow$ & a\_b [x] & \textbf{.210}$^{\dagger\ast}$ $\pm$ .002 & missing \\" in text
    assert r" & ours & $-$.300 $\pm$ .004 & \textbf{.211} \\" in text
    assert not set("±†↓") & set(text)


def test_signs_of_markdown_and_latex_in_a_name_are_escaped():
    odd = Grid(("metric",), ["a|b {c} 50%"], [(("x^2 > y",), [Cell("1")])])
    assert r"| metric | a\|b {c} 50% |" in grid.markdown(odd)
    text = grid.latex(odd)
    assert r"a|b \{c\} 50\%" in text
    assert r"x\textasciicircum{}2 $>$ y & 1 \\" in text
