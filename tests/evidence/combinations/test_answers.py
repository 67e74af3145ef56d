import pytest


def test_below_enough_measured_combinations_there_are_ranks_only(engine):
    trust = engine.predict("line0", ["P0+P7"]).trust
    if trust is None:
        pytest.skip("this tiny screen calibrates nothing")
    assert trust.grade == ("none",)
    assert "5 measured combinations to judge by, 30 needed; 2 of 2 members measured here, 2 other" in trust.reason[0]


def test_a_member_that_nothing_is_known_of_is_named(engine):
    said = engine.combining.words("line0", ("P0", "X"))
    assert "nothing is known of X; 1 of 2 members measured here, 2 other combinations with one of them" in said
