import numpy as np

from state_rag.evidence.adding import with_responses
from state_rag.evidence.combinations.answers import MEMBER, SHARED, USE
from state_rag.evidence.estimator import Evidence
from state_rag.evidence.responses import Responses
from tests.evidence.combinations.pretend_pairs import made
from tests.evidence.pretend_screen import QUICK, screen


def test_single_perturbations_are_predicted_as_without_combinations(engine):
    drawn = screen()
    plain = Evidence(QUICK).fit(drawn.responses(), drawn.embeddings)
    found, other = (one.predict("line0", drawn.perturbations) for one in (engine, plain))
    np.testing.assert_allclose(found.mean, other.mean, atol=1e-6)
    assert "P0+P1" not in engine.bank.perturbations


def test_a_combination_is_near_its_share_of_the_sum_of_its_members(engine):
    drawn, _ = made()
    names = ["P0+P7", "P9+P1", "P6+P10"]
    found = engine.predict("line0", names)
    truth = [
        0.8 * (drawn.effects[0, int(a[1:])] + drawn.effects[0, int(b[1:])]) for a, b in (n.split("+") for n in names)
    ]
    assert found.uses == (USE,) * 3
    assert min(np.corrcoef(a, b)[0, 1] for a, b in zip(found.mean, truth, strict=True)) > 0.9
    assert engine.combining.learned.rule.share < 1.0
    reverse = engine.predict("line0", ["P7+P0"])
    np.testing.assert_allclose(reverse.mean[0], found.mean[0])


def test_a_member_that_was_never_measured_alone_is_known_by_its_combinations():
    drawn = screen()
    own = 3.0 * np.random.default_rng(7).normal(size=15)
    pairs = [drawn.effects[0, place] + own for place in range(3)]
    single = drawn.responses()
    labels = [*single.contexts, *["line0"] * 3], [*single.perturbations, "P0+Q", "P1+Q", "P2+Q"]
    engine = Evidence(QUICK).fit(Responses(np.concatenate([single.effects, pairs]), *labels))
    found = engine.predict("line0", ["P5+Q", "P5+R"])
    truth = drawn.effects[0, 5] + own
    assert np.corrcoef(found.mean[0], truth)[0, 1] > 0.85
    assert found.variance[0] < found.variance[1]
    assert not found.nothing_known[0]


def test_an_explanation_adds_up_and_names_members(engine):
    found = engine.explain("line0", "P0+P7")
    np.testing.assert_allclose(found.prediction, engine.predict("line0", ["P0+P7"]).mean[0], atol=1e-8)
    why = dict(zip(found.conditions, found.why, strict=True))
    assert why["line0", "P0"] == why["line0", "P7"] == MEMBER
    assert why["line0", "P0+P1"] == SHARED
    place = found.conditions.index(("line0", "P0"))
    np.testing.assert_allclose(found.effects[place], screen().effects[0, 0], atol=1e-5)


def test_it_comes_back_from_its_state_as_it_was(engine):
    again = Evidence.from_state(engine.to_state())
    for name in ("P0+P7", "P0+P1", "P3"):
        assert np.array_equal(again.predict("line0", [name]).mean, engine.predict("line0", [name]).mean)


def test_new_combinations_are_taken_in_and_averaged_whatever_their_order(engine):
    drawn, _ = made()
    sum_ = drawn.effects[0, 6] + drawn.effects[0, 10]
    new = Responses([sum_, np.zeros(15)], ["line0", "line0"], ["P10+P6", "P1+P0"])
    found, merged = with_responses(engine, new)
    assert merged.added == (("line0", "P10+P6"),)
    assert merged.averaged == (("line0", "P0+P1"),)
    row = found.combined.perturbations.index("P0+P1")
    known = engine.combined.effects[engine.combined.perturbations.index("P0+P1")]
    np.testing.assert_allclose(found.combined.effects[row], known / 2, atol=1e-6)
    assert found.measured("line0", "P6+P10")
    assert len(engine.combined) == 5


def test_labels_with_a_control_are_the_single_perturbations_that_combinations_are_made_of():
    drawn, plain = made()
    labels = [name if "+" in name else f"{name}+ctrl" for name in plain.perturbations]
    gears = Evidence(QUICK).fit(Responses(plain.effects, plain.contexts, labels), drawn.embeddings)
    engine = Evidence(QUICK).fit(plain, drawn.embeddings)
    for asked in ("P0+P7", "P0+P1", "P3", "P3+ctrl"):
        found, other = gears.predict("line0", [asked]), engine.predict("line0", [asked])
        assert found.uses == other.uses
        assert found.sources == other.sources
        np.testing.assert_allclose(found.mean, other.mean, atol=1e-6)
    assert gears.measured("line0", "P3")
    assert len(gears.bank.perturbations) == 12
