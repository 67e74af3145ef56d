"""Trust of predictions: what it says, what it may not look at, and when it says nothing."""

import json

import numpy as np
import pytest
from safetensors.torch import load, save

from state_rag.evidence.estimator import Evidence
from state_rag.evidence.trust.expected import GRADES
from tests.evidence.pretend_screen import QUICK, screen

TEST = [(0, p) for p in range(20, 40)]
ASKED = [f"P{p}" for _, p in TEST]


def drawn():
    return screen(perturbations=40)


@pytest.fixture(scope="module")
def engine():
    return Evidence(QUICK).fit(drawn().responses(TEST), drawn().embeddings, uses=["few-shot", "unseen"])


def test_every_prediction_carries_it(engine):
    trust = engine.predict("line0", ASKED).trust
    assert trust.calibrated
    assert trust.holds.all()
    assert np.all((trust.low <= trust.expected) & (trust.expected <= trust.high))
    assert trust.std.shape == (len(ASKED), 15)
    assert (trust.std > 0).all()
    assert set(trust.grade) <= set(GRADES)
    assert all("other contexts agree" in why or "no other context" in why for why in trust.reason)


def test_intervals_hold_for_conditions_that_were_held_out(engine):
    found = engine.predict("line0", ASKED)
    truth = np.stack([drawn().effects[row] for row in TEST])
    observed = np.array([np.corrcoef(a, b)[0, 1] for a, b in zip(found.mean, truth, strict=True)])
    assert np.mean((observed >= found.trust.low) & (observed <= found.trust.high)) >= 0.75
    assert 0.8 <= np.mean(np.abs(truth - found.mean) <= 1.645 * found.trust.std) <= 0.98


def test_what_nothing_is_known_of_is_graded_none_and_expected_least(engine):
    trust = engine.predict("line0", ["unheard of", "P20"]).trust
    assert trust.grade[0] == "none"
    assert trust.reason[0] == "nothing is known of it: context mean"
    assert trust.score[0] < trust.score[1]
    assert np.isfinite(trust.expected).all()
    assert trust.holds.tolist() == [False, True]


def test_a_perturbation_like_none_that_was_measured_is_not_trusted_whatever_else_has_no_embedding():
    screened = drawn()
    names, vectors = screened.embeddings["text"]
    without = [name for name in names if name not in ("P0", "P1", "P2")]
    rows = [names.index(name) for name in without]
    wider = np.eye(6)[:, :3].T  # one more direction, in which nothing was measured
    vectors = np.concatenate([vectors[rows] @ wider, [[0, 0, 0, 0, 0, 1.0], [1.0, 0, 0, 0, 0, 0]]])
    told = {"text": ([*without, "strange", "familiar"], vectors)}
    engine = Evidence(QUICK).fit(screened.responses(TEST), told, uses=["unseen"])
    model = engine.calibrated["unseen"].model
    assert engine.calibrated["unseen"].conditions == len(screened.responses(TEST)) - 9
    trust = engine.predict("line0", ["strange", "familiar"]).trust
    assert trust.holds.tolist() == [False, True]
    assert trust.grade[0] == "none"
    assert abs(trust.expected[0] - model.prior[0]) < abs(trust.expected[1] - model.prior[0])


def test_a_small_screen_gets_ranks_only():
    small = screen()
    engine = Evidence(QUICK).fit(small.responses([(0, p) for p in range(3, 12)]), uses=["few-shot"])
    engine.calibrated["few-shot"] = type(engine.calibrated["few-shot"])(12, None)
    trust = engine.predict("line0", ["P5", "P6"]).trust
    assert not trust.calibrated
    assert np.isnan(trust.expected).all()
    assert np.isfinite(trust.score).all()
    assert np.isfinite(trust.std).all()
    assert trust.grade == ("none", "none")
    assert trust.reason[0].startswith("not calibrated, ranks only: 12 measured conditions to judge by, 30 needed")


def test_where_nothing_has_an_effect_trust_is_finite_and_low():
    effectless = drawn()
    effectless.effects[:] = 0
    trust = Evidence(QUICK).fit(effectless.responses(TEST), effectless.embeddings).predict("line0", ASKED).trust
    for values in (trust.expected, trust.low, trust.high, trust.score, trust.std):
        assert np.isfinite(values).all()
    assert set(trust.grade) == {"low"}


def test_few_conditions_are_not_calibrated():
    small = screen(perturbations=8)
    engine = Evidence(QUICK).fit(small.responses(), uses=["few-shot"])
    assert engine.calibrated["few-shot"].conditions == 24
    assert engine.calibrated["few-shot"].model is None


def test_a_use_that_was_not_trained_for_is_not_calibrated(engine):
    trust = engine.predict("a new line", ["P1"]).trust
    assert not trust.calibrated
    assert "was not trained for zero-shot questions" in trust.reason[0]


def test_few_contexts_do_not_tell_about_a_new_one():
    engine = Evidence(QUICK).fit(drawn().responses(), drawn().embeddings, uses=["zero-shot"])
    trust = engine.predict("a new line", ["P1", "P2"]).trust
    assert trust.grade == ("none", "none")
    assert "3 contexts judge what a new one will do" in trust.reason[0]
    assert np.isfinite(trust.expected).all()
    assert not trust.holds.any()


def test_it_comes_back_with_the_state_and_is_the_same_from_the_same(engine):
    state = engine.to_state()
    tensors = load(save({name: tensor.contiguous() for name, tensor in state["tensors"].items()}))
    read = Evidence.from_state({"settings": json.loads(json.dumps(state["settings"])), "tensors": tensors})
    again = Evidence(QUICK).fit(drawn().responses(TEST), drawn().embeddings, uses=["few-shot", "unseen"])
    before = engine.predict("line0", ASKED).trust
    for other in (read, again):
        after = other.predict("line0", ASKED).trust
        assert np.array_equal(before.expected, after.expected)
        assert np.array_equal(before.std, after.std)
        assert before.reason == after.reason


def test_a_state_from_before_it_is_read_and_has_none(engine):
    state = engine.to_state()
    old = {name: value for name, value in state["settings"].items() if name != "calibrated"}
    old["settings"] = {name: value for name, value in old["settings"].items() if name != "calibrating"}
    tensors = {name: value for name, value in state["tensors"].items() if not name.startswith("trust.")}
    found = Evidence.from_state({"settings": old, "tensors": tensors}).predict("line0", ASKED)
    assert found.trust is None
    assert np.array_equal(found.mean, engine.predict("line0", ASKED).mean)


def test_it_can_be_left_out(engine):
    assert engine.predict("line0", ASKED, trust=False).trust is None


def test_a_measured_condition_tells_nothing_about_its_own_trust(engine):
    changed = Evidence.from_state(engine.to_state())
    row = changed.responses.conditions.index(("line0", "P3"))
    changed.bank.effects[row] += 5.0
    before, after = (e.predict("line0", ["P3"]).trust for e in (engine, changed))
    np.testing.assert_allclose(after.expected, before.expected)
    np.testing.assert_allclose(after.std, before.std)
    assert after.reason == before.reason
