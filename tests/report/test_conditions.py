import pandas as pd
import pytest

from state_rag.errors import StateRagError
from state_rag.report.conditions import choose_conditions


@pytest.fixture
def table():
    rows = [(line, f"P{number}", number / 10) for line in ("hepg2", "k562") for number in range(11)]
    return pd.DataFrame(rows, columns=["cell_line", "perturbation", "pearson_delta"])


def test_a_perturbation_is_drawn_in_every_cell_line_that_has_it(table):
    assert choose_conditions(table, ["P3", "P1"]) == [("hepg2", "P3"), ("k562", "P3"), ("hepg2", "P1"), ("k562", "P1")]


def test_by_default_a_good_a_middling_and_a_poor_condition_are_drawn(table):
    of_one = table[table["cell_line"] == "k562"]
    assert choose_conditions(of_one, None) == [("k562", "P9"), ("k562", "P5"), ("k562", "P1")]


def test_without_pearson_delta_nothing_is_chosen_but_what_is_asked_for(table):
    bare = table.drop(columns="pearson_delta")
    assert choose_conditions(bare, None) == []
    assert len(choose_conditions(bare, ["P1"])) == 2


def test_a_perturbation_that_a_run_lacks_is_refused(table):
    with pytest.raises(StateRagError, match="'P77' was not predicted by every run"):
        choose_conditions(table, ["P77"])
