import numpy as np
import pytest

from state_rag.embeddings.table import Embeddings, stack_rows
from state_rag.errors import StateRagError


def make(names, vectors):
    return Embeddings(names, np.asarray(vectors), "file.csv")


def test_a_row_is_found_by_its_name(table):
    np.testing.assert_array_equal(table.row("COPB1"), [0, -1, 1])
    assert "COPB1" in table
    assert "COPB2" not in table
    assert (len(table), table.width) == (3, 3)


def test_a_subset_has_the_order_asked_for_and_keeps_the_provenance(table):
    part = table.subset(["COPB1", "AARS"])
    assert part.names == ("COPB1", "AARS")
    np.testing.assert_array_equal(part.vectors, table.vectors[[2, 0]])
    assert part.provenance == table.provenance


def test_vectors_become_float32():
    assert make(["A"], np.ones((1, 2), np.float64)).vectors.dtype == np.float32


def test_an_empty_table_is_allowed():
    assert len(make([], np.zeros((0, 4)))) == 0


def test_an_unknown_name_is_an_error_with_close_spellings(table):
    with pytest.raises(StateRagError, match=r"memory: no embedding for 'copb2'; close spellings: copb2 -> COPB1"):
        table.row("copb2")


def test_several_unknown_names_are_listed(table):
    with pytest.raises(StateRagError, match="no embedding for X, Y"):
        table.subset(["X", "AARS", "Y"])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_rows_with_nan_or_infinity_are_named(bad):
    with pytest.raises(StateRagError, match=r"file.csv: NaN or infinite values in the vectors of B, D\."):
        make("ABCD", [[1, 1], [bad, 1], [1, 1], [1, bad]])


def test_large_but_finite_values_are_accepted():
    assert len(make("A", [[3e38, 3e38]])) == 1


def test_opposite_infinities_are_found():
    with pytest.raises(StateRagError, match="vectors of A"):
        make("A", [[np.inf, -np.inf]])


def test_zero_rows_are_named():
    with pytest.raises(StateRagError, match="all zeros for ctrl.*control needs no embedding"):
        make(["A", "ctrl"], [[1, 1], [0, 0]])


def test_duplicate_names_are_listed_once_each():
    with pytest.raises(StateRagError, match=r"more than once: A, B\. Keep one row"):
        make("AABBBC", np.ones((6, 2)))


def test_names_must_be_text():
    with pytest.raises(StateRagError, match=r"names must be text, found 7 \(int\)"):
        make(["A", 7], np.ones((2, 2)))


def test_an_empty_name_is_reported_with_its_row():
    with pytest.raises(StateRagError, match="name is empty in row 2"):
        make(["A", " "], np.ones((2, 2)))


def test_a_matrix_with_too_few_rows_is_refused():
    with pytest.raises(StateRagError, match=r"a row of numbers for each of 2 names, found shape \(1, 2\)"):
        make("AB", np.ones((1, 2)))


def test_ragged_vectors_are_named_with_their_width():
    with pytest.raises(StateRagError, match=r"x: ragged vectors: 2 of 3 have width 2, but B \(3\) not"):
        stack_rows({"A": [1, 2], "B": [1, 2, 3], "C": [3, 4]}, "x")


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("text", r"B \(str\)"),
        (None, r"B \(NoneType\)"),
        (3.0, r"B \(float\)"),
        ([[1.0, 2.0]], r"B \(list of shape \[1, 2\]\)"),
        ([True, False], r"B \(list of bool values\)"),
        (["1", "2"], r"B \(list of text values\)"),
        ([1.0, None], r"B \(list of mixed values\)"),
        ([[1.0], [1.0, 2.0]], r"B \(list of mixed lengths\)"),
        ({"a": 1}, r"B \(dict\)"),
    ],
)
def test_values_that_are_no_vectors_are_named_with_their_kind(value, found):
    with pytest.raises(StateRagError, match=f"expected a vector of numbers for each name, found {found}"):
        stack_rows({"A": [1.0, 2.0], "B": value}, "x")


def test_a_label_with_a_control_has_the_vector_of_its_perturbation():
    table = Embeddings(("A", "B"), np.eye(2, dtype=np.float32), source="example")
    found = table.with_combinations(["A+ctrl", "ctrl", "B+A"])
    assert found.names == ("A", "B", "A+ctrl", "B+A")
    assert found.row("A+ctrl").tolist() == [1, 0]
