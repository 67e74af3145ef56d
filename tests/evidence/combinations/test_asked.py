import numpy as np

from state_rag.evidence.adding import with_responses
from state_rag.evidence.combinations.answers import COMBINATIONS, MEMBER, SHARED, USE
from state_rag.evidence.estimator import Evidence
from state_rag.evidence.responses import Responses
from tests.evidence.combinations.pretend_pairs import made
from tests.evidence.pretend_screen import QUICK, screen


def in_line0(drawn, pairs, hidden):
    """Return responses of which some are missing in line0, and combinations with given effects there."""
    single = drawn.responses(hidden=[(0, drawn.perturbations.index(name)) for name in hidden])
    labels = [*single.contexts, *["line0"] * len(pairs)], [*single.perturbations, *pairs]
    return Responses(np.concatenate([single.effects, list(pairs.values())]), *labels)


def test_perturbations_that_are_part_of_no_combination_are_predicted_as_without_any(engine):
    drawn = screen()
    plain = Evidence(QUICK).fit(drawn.responses(), drawn.embeddings)
    apart = ["P6", "P7", "P9", "P10", "P11"]
    found, other = (one.predict("line0", apart) for one in (engine, plain))
    np.testing.assert_allclose(found.mean, other.mean, atol=1e-6)
    assert USE not in found.uses
    assert "P0+P1" not in engine.bank.perturbations
    # a member too, in a context where no combination was measured but it alone in others
    found, other = (one.predict("line1", ["P0"]) for one in (engine, plain))
    np.testing.assert_allclose(found.mean, other.mean, atol=1e-6)


def test_a_perturbation_is_what_its_combinations_leave_when_the_other_members_are_taken_away():
    drawn = screen()
    own = 2.0 * np.random.default_rng(7).normal(size=15)  # of P3 in line0, and like nothing that was measured alone
    pairs = {f"P3+P{other}": own + drawn.effects[0, other] for other in (0, 1, 2)}
    engine = Evidence(QUICK).fit(in_line0(drawn, pairs, hidden=["P3"]), drawn.embeddings)
    found = engine.predict("line0", ["P3"])
    plain = Evidence(QUICK).fit(drawn.responses(hidden=[(0, 3)]), drawn.embeddings).predict("line0", ["P3"])
    assert np.corrcoef(found.mean[0], own)[0, 1] > 0.8
    assert np.corrcoef(plain.mean[0], own)[0, 1] < 0.4
    assert found.variance[0] < plain.variance[0]
    assert found.uses == (USE,)
    assert found.sources[0][0] == COMBINATIONS
    assert {name for name, _ in found.neighbours[0][:3]} & set(pairs)


def test_what_is_known_by_combinations_alone_is_predicted_in_every_context():
    drawn = screen()
    own = 2.0 * np.random.default_rng(7).normal(size=15)
    pairs = {f"Q+P{other}": own + drawn.effects[0, other] for other in (0, 1, 2)}
    engine = Evidence(QUICK).fit(in_line0(drawn, pairs, hidden=[]), drawn.embeddings)
    here, there, unknown = (engine.predict(*asked) for asked in (("line0", ["Q"]), ("line1", ["Q"]), ("line1", ["R"])))
    assert np.corrcoef(here.mean[0], own)[0, 1] > 0.9
    assert not here.nothing_known[0]
    assert not there.nothing_known[0]
    assert unknown.nothing_known[0]
    assert here.variance[0] < there.variance[0]


def test_a_member_that_was_measured_is_predicted_without_its_own_response(engine):
    changed = Evidence.from_state(engine.to_state())
    changed.bank.effects[changed.responses.conditions.index(("line0", "P1"))] = 40.0
    for asked in (["P1"], ["P1", "P4"], ["P0+P1"]):
        before, after = (one.predict("line0", asked).mean[0] for one in (engine, changed))
        same = np.allclose(before, after, atol=1e-6)
        assert same == (asked[0] == "P1")


def test_an_explanation_of_a_member_adds_up_and_names_its_combinations(engine):
    found = engine.explain("line0", "P1")
    np.testing.assert_allclose(found.prediction, engine.predict("line0", ["P1"]).mean[0], atol=1e-8)
    why = dict(zip(found.conditions, found.why, strict=True))
    assert ("line0", "P1") not in why
    assert why["line0", "P0+P1"] == why["line0", "P3+P1"] == SHARED
    assert why["line1", "P1"] == MEMBER


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


def test_a_combination_of_members_that_were_never_measured_alone_is_the_same_in_either_order():
    drawn = screen()
    own = np.random.default_rng(7).normal(size=(2, 15))
    single = drawn.responses()
    pairs = [drawn.effects[0, 0] + own[0], drawn.effects[0, 1] + own[1], own.sum(0)]
    labels = [*single.contexts, *["line0"] * 3], [*single.perturbations, "P0+Q", "P1+R", "R+Q"]
    fitted = Evidence(QUICK).fit(Responses(np.concatenate([single.effects, pairs]), *labels))
    early = Responses(np.concatenate([single.effects, pairs[:1]]), labels[0][:-2], labels[1][:-2])
    added, _ = with_responses(Evidence(QUICK).fit(early), Responses(pairs[1:], ["line0"] * 2, ["P1+R", "R+Q"]))
    for engine in (fitted, added):
        assert "R+Q" in engine.combined.perturbations
        assert engine.measured("line0", "Q+R")
        found = engine.predict("line0", ["R+Q", "Q+R"])
        np.testing.assert_allclose(found.mean[0], found.mean[1])
        assert np.corrcoef(found.mean[0], pairs[2])[0, 1] > 0.6


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
    for name in ("P0+P7", "P0+P1", "P3", "P7"):
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
