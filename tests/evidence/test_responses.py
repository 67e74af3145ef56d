import numpy as np
import pytest

from state_rag.errors import StateRagError
from state_rag.evidence.responses import UNTOLD, Responses
from tests.evidence.pretend_screen import screen


def test_a_row_of_nan_was_not_measured():
    effects = np.ones((3, 2))
    effects[1] = np.nan
    responses = Responses(effects, ["a", "a", "b"], ["P", "Q", "Q"], cells=[5, 6, 7], variance=np.full((3, 2), 2.0))
    assert responses.conditions == [("a", "P"), ("b", "Q")]
    assert responses.cells.tolist() == [5, 7]
    assert responses.variance.shape == (2, 2)


def test_changes_that_cannot_be_told_are_marked():
    nan = np.nan
    found = Responses([[1.0, 2.0], [nan, nan], [3.0, 4.0]], "aab", "PQQ", changes=[[1, -1], [0, 0], [nan, 0]])
    assert found.changes.tolist() == [[1, -1], [UNTOLD, 0]]
    assert Responses(found.effects, "ab", "PQ", changes=found.changes).changes.tolist() == found.changes.tolist()
    assert Responses(found.effects, "ab", "PQ").changes is None


def test_a_cell_count_of_a_condition_that_was_not_measured_may_be_zero():
    assert len(Responses([[1.0], [np.nan]], ["a", "a"], ["P", "Q"], cells=[3, 0])) == 1


def test_a_grid_is_its_measured_rows():
    drawn = screen()
    drawn.effects[1, 2] = np.nan
    grid = Responses.from_grid(drawn.effects, drawn.contexts, drawn.perturbations)
    rows = drawn.responses(hidden=[(1, 2)])
    assert grid.conditions == rows.conditions
    assert np.array_equal(grid.effects, rows.effects)


def test_genes_are_numbered_where_no_names_are_given():
    assert Responses(np.ones((1, 3)), ["a"], ["P"]).genes == ("0", "1", "2")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"effects": [[1.0, np.nan], [1.0, 2.0]]}, "NaN or infinity, among them P in a, in 1 genes, among them 1;"),
        ({"effects": [[1.0, np.inf], [1.0, 2.0]]}, "NaN or infinity, among them P in a, in 1 genes, among them 1;"),
        ({"effects": [[np.nan] * 2] * 2}, "no condition was measured"),
        ({"effects": [1.0, 2.0]}, "expected conditions x genes"),
        ({"perturbations": ["P", "P"]}, "given more than once, among them P in a"),
        ({"contexts": ["a"]}, "1 contexts for 2 rows"),
        ({"genes": ["g"]}, "1 genes for 2 columns"),
        ({"cells": [3, 0]}, "cell count is below 1"),
        ({"cells": [3]}, "1 cell counts for 2 conditions"),
        ({"variance": [[1.0, 2.0]]}, "variance has shape"),
        ({"variance": [[1.0, -2.0]] * 2}, "a variance is below 0"),
        ({"changes": [[1, 0]]}, "changes have shape"),
        ({"changes": [[1, 0], [0.5, 0]]}, "changes are 1 .up., -1 .down."),
        ({"controls": {"a": [1.0]}}, "control mean of a has 1 values"),
        ({"controls": {"a": [1.0, np.nan]}}, "1 of them finite"),
    ],
)
def test_what_cannot_be_used_is_refused_by_name(change, message):
    given = {"effects": [[1.0, 0.0], [1.0, 2.0]], "contexts": ["a", "a"], "perturbations": ["P", "Q"], **change}
    with pytest.raises(StateRagError, match=message):
        Responses(**given)


def test_a_grid_that_does_not_fit_its_labels_is_refused():
    with pytest.raises(StateRagError, match="expected 2 contexts x 2 perturbations"):
        Responses.from_grid(np.ones((2, 3, 4)), ["a", "b"], ["P", "Q"])
