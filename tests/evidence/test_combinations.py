import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from state_rag.evidence.adding import with_responses
from state_rag.evidence.combinations import Combinations, Rule, members_of, parted
from state_rag.evidence.combining import MEMBER, SHARED, USE
from state_rag.evidence.estimator import Evidence
from state_rag.evidence.kriging import covariance
from state_rag.evidence.responses import Responses
from tests.evidence.pretend_screen import QUICK, screen

PAIRS = ["P0+P1", "P0+P4", "P3+P1", "P2+P5", "P5+P8"]


def made(share=0.8, noise=0.0, pairs=PAIRS, context="line0", seed=3):
    """Return a screen's responses with combinations that are a share of their members' sum."""
    drawn = screen()
    rng = np.random.default_rng(seed)
    where = {name: number for number, name in enumerate(drawn.perturbations)}
    row = drawn.effects[drawn.contexts.index(context)]
    effects = [share * sum(row[where[m]] for m in pair.split("+")) + noise * rng.normal(size=15) for pair in pairs]
    single = drawn.responses()
    return drawn, Responses(
        np.concatenate([single.effects, effects]),
        [*single.contexts, *[context] * len(pairs)],
        [*single.perturbations, *pairs],
    )


@pytest.fixture(scope="module")
def engine():
    drawn, responses = made()
    return Evidence(QUICK).fit(responses, drawn.embeddings)


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


def test_where_nothing_but_combinations_was_measured_they_are_single_ones():
    responses = Responses(np.eye(2), ["a", "a"], ["A+B", "B+C"])
    assert parted(responses, ["A", "B"])[1] is None


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


def test_a_measured_combination_is_predicted_without_itself():
    drawn, responses = made()
    engine = Evidence(QUICK).fit(responses, drawn.embeddings)
    changed = Evidence.from_state(engine.to_state())
    row = changed.combined.perturbations.index("P0+P1")
    changed.combined.effects[row] = 40.0
    members = changed.combining.measured.members
    changed.combining.measured = Combinations(changed.combined, members, changed.bank)
    before, after = (one.predict("line0", ["P0+P1", "P0+P4"]).mean for one in (engine, changed))
    assert np.array_equal(before[0], after[0])
    assert not np.allclose(before[1], after[1])


def test_left_out_predictions_are_those_of_solutions_without_the_combination(engine):
    measured = engine.combining.measured
    weights = engine.learned_for("few-shot").weights
    rule = Rule(0.7, 0.3)
    found, _ = measured.left_out(engine.similarity, weights, [Rule(), rule])[rule]
    for row, (context, name) in enumerate(measured.conditions):
        members = measured.members[name]
        one = measured.answer(engine.similarity, weights, rule, context, [members], without=frozenset([members]))
        torch.testing.assert_close(found[row], one.mean[0], atol=1e-5, rtol=0)


def test_the_covariance_is_that_of_sums(engine):
    measured, weights = engine.combining.measured, engine.learned_for("few-shot").weights
    joint = measured._look(engine.similarity, weights, "line0", [("P0", "P1")]).under(Rule(0.5, 0.0))
    bank = engine.bank
    at = joint.conditions.index(("line1", "P3"))

    def k(a, b):
        pairs = [tuple(torch.tensor([number]) for number in one) for one in (a, b)]
        return float(covariance(engine.similarity, weights, 0, *pairs)[0, 0])

    number = bank.number_of
    expected = 0.5 * sum(k((1, number("P3")), (0, number(member))) for member in ("P0", "P1"))
    assert float(joint.cross[at, 0]) == pytest.approx(expected, abs=1e-5)
    itself = 0.25 * sum(k((0, number(a)), (0, number(b))) for a in ("P0", "P1") for b in ("P0", "P1"))
    assert float(joint.variance[0]) == pytest.approx(itself, abs=1e-5)


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


def test_below_enough_measured_combinations_there_are_ranks_only(engine):
    trust = engine.predict("line0", ["P0+P7"]).trust
    if trust is None:
        pytest.skip("this tiny screen calibrates nothing")
    assert trust.grade == ("none",)
    assert "5 measured combinations to judge by, 30 needed; 2 of 2 members measured here, 2 other" in trust.reason[0]


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


def test_a_member_that_nothing_is_known_of_is_named(engine):
    said = engine.combining.words("line0", ("P0", "X"))
    assert "nothing is known of X; 1 of 2 members measured here, 2 other combinations with one of them" in said
