import numpy as np
import pytest

from state_rag.evidence.estimator import Evidence
from state_rag.evidence.responses import Responses
from tests.evidence.pretend_screen import QUICK, screen


def test_below_enough_measured_combinations_there_are_ranks_only(engine):
    trust = engine.predict("line0", ["P0+P7"]).trust
    if trust is None:
        pytest.skip("this tiny screen calibrates nothing")
    assert trust.grade == ("none",)
    assert "5 measured combinations to judge by, 30 needed; 2 of 2 members measured here, 2 other" in trust.reason[0]


def test_a_member_that_nothing_is_known_of_is_named(engine):
    said = engine.combining.words("line0", ("P0", "X"))
    assert "nothing is known of X; 1 of 2 members measured here, 2 other combinations with one of them" in said


def test_a_combination_with_an_unknown_member_is_not_trusted_though_others_are_calibrated():
    drawn = screen(perturbations=40)
    pairs = {f"P{n}+P{n + 5}": drawn.effects[0, n] + drawn.effects[0, n + 5] for n in range(32)}
    single = drawn.responses()
    labels = [*single.contexts, *["line0"] * 32], [*single.perturbations, *pairs]
    engine = Evidence(QUICK).fit(Responses(np.concatenate([single.effects, list(pairs.values())]), *labels))
    trust = engine.predict("line0", ["P1+P2", "P1+X"]).trust
    assert trust.calibrated
    assert trust.holds.tolist() == [True, False]
    assert trust.grade[0] != "none" == trust.grade[1]
    assert trust.reason[1].startswith("calibration may not hold: nothing is known of X; ")


def test_whatever_else_is_asked_makes_no_difference_to_members_of_combinations():
    drawn = screen(perturbations=24)
    pairs = {f"P{n}+P{(n + 5) % 24}": drawn.effects[0, n] + drawn.effects[0, (n + 5) % 24] for n in range(24)}
    single = drawn.responses([(0, 22), (0, 23)])
    labels = [*single.contexts, *["line0"] * 24], [*single.perturbations, *pairs]
    engine = Evidence(QUICK).fit(Responses(np.concatenate([single.effects, list(pairs.values())]), *labels))
    names = [*(f"P{p}" for p in range(24)), *pairs]
    together = engine.predict("line0", names)
    assert set(together.uses) == {"combination"}
    for place, name in enumerate(names):
        np.testing.assert_allclose(engine.predict("line0", [name]).mean[0], together.mean[place], atol=1e-6)
