import io

import pytest
from rich.console import Console

from state_rag.evaluation.compare import compare
from state_rag.report import tables
from tests.evaluation.test_compare import table


@pytest.fixture
def comparison():
    named = {"no effect": table(2.0, seed=2), "a_b & c%": table(0.03, seed=3), "ours": table(seed=1)}
    return compare(named, "ours")


@pytest.mark.parametrize(
    ("mann_whitney", "wilcoxon", "expected"),
    [(0.009, 0.5, ("†", "")), (0.01, 0.009, ("‡", "**")), (0.05, 0.049, ("", "*")), (float("nan"), 1, ("", ""))],
)
def test_one_dagger_is_below_one_percent_and_two_below_five(mann_whitney, wilcoxon, expected):
    assert tables.marks(mann_whitney, wilcoxon) == expected


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.6331, ".633"), (8.391, "8.39"), (633.74, "633.7"), (-0.25, "-.250"), (0.0, ".000"), (0.00412, ".0041")],
)
def test_numbers_are_written_as_in_the_papers_table(value, text):
    assert tables.number(value) == text


def test_the_best_value_of_each_metric_is_bold_in_its_direction(comparison):
    lines = tables.markdown_table(comparison).splitlines()
    mse = next(line for line in lines if line.startswith("| MSE"))
    pearson = next(line for line in lines if line.startswith("| Pearson delta ↑"))
    assert "**" not in mse.split("|")[2].replace("\\*", "")
    assert pearson.split("|")[2].strip().startswith("**")


def test_markdown_has_marks_and_a_legend_that_names_the_reference(comparison):
    text = tables.markdown_table(comparison)
    assert "†\\*\\*" in text
    assert "differs from ours" in text
    assert "60 conditions" in text


def test_latex_escapes_names_and_writes_the_papers_daggers(comparison):
    text = tables.latex_table(comparison)
    assert r"a\_b \& c\%" in text
    assert r"^{\dagger\ast\ast}" in text
    assert text.count(r"\\") == 1 + len(comparison.metrics)
    assert "†" not in text


def test_the_terminal_tables_fit_into_the_width_and_show_every_predictor(comparison):
    stream = io.StringIO()
    console = Console(file=stream, width=50)
    console.print(*tables.terminal_tables(comparison, 50), sep="\n")
    lines = stream.getvalue().splitlines()
    assert max(map(len, lines)) <= 50
    for name in ("effect", "ours"):
        assert any(name in line for line in lines)
    assert "…" not in stream.getvalue()


def lacking(count, *metrics, n=60):
    gaps = table(seed=2, n=n)
    gaps.loc[: count - 1, list(metrics)] = float("nan")
    return gaps


def test_the_legend_names_who_lacks_how_many_conditions_for_which_metrics():
    told = tables.legend(compare({"a": table(), "b": lacking(5, "mse")}, "a"))
    assert "Mean over at most 60 conditions, for each metric those where every predictor has a value" in told
    assert "b has no value in 5 of 60 conditions: mse." in told
    assert "mse: over the 55 conditions where every predictor has a value." in told


def test_a_predictor_without_any_value_is_named_and_takes_no_conditions_from_the_others():
    found = compare({"a": table(), "b": lacking(60, "mse")}, "a")
    told = tables.legend(found)
    assert "Mean over 60 conditions." in told
    assert "b has no value in any condition: mse." in told
    cells = {names[0]: row for names, row in tables.comparison_grid(found).rows}
    assert [cell.text for cell in cells["MSE ↓"]] == [tables.number(table()["mse"].mean()), "-"]


def test_many_metrics_with_the_same_gaps_are_told_as_every_metric():
    names = ("mse", "pearson_delta", "energy_pca50")
    assert "b has no value in 5 of 60 conditions: every metric." in tables.legend(
        compare({"a": table(), "b": lacking(5, *names)}, "a")
    )


def test_metrics_over_fewer_conditions_say_what_the_paired_test_cannot_show_there():
    found = compare({"a": table(n=12), "b": lacking(6, "mse", n=12)}, "a")
    assert tables.limits(found) == ["Metrics over 6 conditions: the paired test cannot go below p = .0312."]


@pytest.mark.parametrize(
    ("mean", "spread", "text"),
    [(0.6331, 0.0042, ".633 ± .004"), (48.487, 0.612, "48.49 ± .61"), (0.5, float("nan"), ".500")],
)
def test_a_standard_deviation_has_the_decimals_of_its_mean(mean, spread, text):
    row = {"mean": mean, "q_mann_whitney": 1.0, "q_wilcoxon": 1.0}
    assert tables.value_cell(row, spread=spread).plain == text


@pytest.mark.parametrize(
    ("conditions", "line"),
    [
        (5, "5 conditions: the paired test cannot go below p = .0625; no * or ** can appear."),
        (
            6,
            "6 conditions: the paired test cannot go below p = .0312; no ** can appear; * needs at least 2 of the 3 "
            "metrics at that p.",
        ),
        (7, "7 conditions: the paired test cannot go below p = .0156; no ** can appear."),
        (12, ""),
    ],
)
def test_the_legend_says_what_the_paired_test_cannot_show_on_few_conditions(conditions, line):
    found = compare({"a": table(n=conditions), "b": table(3.0, n=conditions, seed=2)}, "a")
    told = [text for text in tables.legend(found).splitlines() if "paired test cannot" in text]
    assert told == ([line] if line else [])
    if "no **" in line:
        assert "**" not in {tables.marks(1, q)[1] for q in found.rows["q_wilcoxon"].dropna()}


def test_one_metric_that_can_reach_every_mark_has_no_limit():
    found = compare({"a": table(n=9), "b": table(3.0, n=9, seed=2)}, "a", ["mse"])
    assert tables.limits(found) == []


def test_a_table_of_one_predictor_has_no_tests_to_speak_of():
    assert tables.limits(compare({"a": table(n=5)}, "a")) == []
