import pytest

from state_rag.errors import StateRagError
from state_rag.evaluation.settings import Settings


@pytest.mark.parametrize(
    ("field", "value", "option"),
    [
        ("deg_p", 0, "--deg-p"),
        ("deg_p", 2, "--deg-p"),
        ("deg_p", float("nan"), "--deg-p"),
        ("deg_log2fc", -1, "--deg-log2fc"),
        ("deg_log2fc", float("inf"), "--deg-log2fc"),
        ("fold_change", "log2", "--fold-change"),
        ("components", -3, "--components"),
        ("components", 0, "--components"),
        ("components", 2.5, "--components"),
        ("batch", 0, "Settings.batch"),
        ("max_cells", 1, "Settings.max_cells"),
        ("seed", -1, "Settings.seed"),
    ],
)
def test_values_that_make_no_sense_are_refused_and_the_option_is_named(field, value, option):
    with pytest.raises(StateRagError, match=rf"{option} is .*; expected "):
        Settings(**{field: value})


def test_the_ends_of_what_makes_sense_are_accepted():
    Settings(deg_p=1, deg_log2fc=0, components=1, batch=1, max_cells=2, seed=0)
