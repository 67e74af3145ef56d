import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from state_rag.evidence.combinations.members import members_of, parted
from state_rag.evidence.responses import Responses


@given(st.lists(st.text("ABC", min_size=1, max_size=3), min_size=1, max_size=4))
def test_the_order_of_members_does_not_matter_and_a_name_with_itself_is_none(parts):
    name = "+".join(parts)
    found = members_of(name, parts)
    assert found == members_of("+".join(reversed(parts)), parts)
    assert found == (tuple(sorted(set(parts))) if len(set(parts)) > 1 else ())


def test_a_label_with_a_plus_of_which_nothing_is_known_stays_a_label():
    responses = Responses(np.eye(3), ["a"] * 3, ["drug 5+", "X+Y", "Z"])
    single, combined, members = parted(responses, [])
    assert single is responses
    assert combined is None
    assert not members


def test_a_combination_of_members_that_only_combinations_know_is_one_too():
    names = ["A", "D+C", "C+B", "B+A", "X+Y"]
    single, combined, members = parted(Responses(np.eye(5), ["a"] * 5, names), [])
    assert single.perturbations == ("A", "X+Y")
    assert combined.perturbations == ("D+C", "C+B", "B+A")
    assert members == {"B+A": ("A", "B"), "C+B": ("B", "C"), "D+C": ("C", "D")}


def test_where_nothing_but_combinations_was_measured_they_are_single_ones():
    responses = Responses(np.eye(2), ["a", "a"], ["A+B", "B+C"])
    assert parted(responses, ["A", "B"])[1] is None
