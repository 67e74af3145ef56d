"""Search, design and hits among combinations: what is planted is found, variances are those of a fit from scratch."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch

from state_rag.errors import StateRagError
from state_rag.evidence.choices.design import design
from state_rag.evidence.choices.hits import hits
from state_rag.evidence.choices.roster import Roster
from state_rag.evidence.choices.search import search
from state_rag.evidence.combinations.answers import Combining
from state_rag.evidence.combinations.covariances import Rule
from state_rag.evidence.combinations.measured import Combinations
from state_rag.evidence.estimator import Evidence
from state_rag.evidence.responses import Responses
from tests.evidence.pretend_screen import QUICK, screen

ALL_PAIRS = [f"{a}+{b}" for a, b in combinations(sorted(f"P{n}" for n in range(12)), 2)]
MEASURED = ("P0+P1", "P0+P4", "P3+P1", "P2+P5", "P5+P8")


def planted(hidden=(), measured=MEASURED, context="line0", own=0.0):
    """Fit a screen whose combinations are .8 of their members' sum, and take the rule for learned."""
    drawn = screen()
    of = dict(zip(drawn.perturbations, drawn.effects[0], strict=True))
    single = drawn.responses(hidden)
    effects = [0.8 * sum(of[one] for one in name.split("+")) for name in measured]
    responses = Responses(
        np.concatenate([single.effects, *(effect[None] for effect in effects)]),
        [*single.contexts, *[context] * len(measured)],
        [*single.perturbations, *measured],
    )
    engine = Evidence(replace(QUICK, calibrating=0)).fit(responses, drawn.embeddings)
    engine.combining = Combining(engine.combining.measured, replace(engine.combining.learned, rule=Rule(0.8, own)))
    return engine, of


@pytest.fixture(scope="module")
def fitted():
    return planted()


@pytest.mark.parametrize("pair", ["P7+P10", "P11+P3", "P1+P0", "P9+P2"])
def test_search_finds_the_pair_that_makes_the_target_among_all_pairs_and_singles(fitted, pair):
    engine, of = fitted
    target = 0.8 * sum(of[one] for one in pair.split("+"))
    found = search(engine, "line0", target, candidates=[*engine.bank.offered, *ALL_PAIRS], top=3)
    assert found.perturbations[0] == "+".join(sorted(pair.split("+")))
    assert len(found.perturbations) == 12 + 66
    # judged by its response where it was measured
    assert found.measured[0] == (found.perturbations[0] in ("P0+P1",))
    np.testing.assert_allclose(found.agreement[0], 1, atol=0.1)


def test_a_pair_in_any_order_is_one_candidate_and_one_with_an_unknown_member_is_left_out(fitted):
    engine, of = fitted
    names = ["P7+P10", "P10+P7", "P10+P7+ctrl", "P1+unheard of", "P3"]
    found = search(engine, "line0", of["P7"], candidates=names, top=5)
    assert sorted(found.perturbations) == ["P10+P7", "P3"]
    assert found.unknown == ("P1+unheard of",)


def test_the_best_of_many_are_predicted_in_full_and_come_first(fitted):
    engine, of = fitted
    few = search(engine, "line2", of["P7"] + of["P10"], candidates=ALL_PAIRS, top=5, refined=10)
    every = search(engine, "line2", of["P7"] + of["P10"], candidates=ALL_PAIRS, top=5, refined=66)
    assert few.refined.sum() == 10
    # a pair's sum is all there is
    assert few.perturbations == every.perturbations


@pytest.mark.parametrize(("context", "own"), [("line0", 0.0), ("line0", 0.3), ("line2", 0.3)])
def test_what_a_design_of_pairs_leaves_is_what_a_fit_with_them_leaves(context, own):
    engine, _ = planted(hidden=[(0, p) for p in range(6, 12)], own=own)
    targets = ["P6+P7", "P10+P11", "P0+P9"]
    found = design(engine, [context], 4, candidates=["P6+P9", "P9+P8", "P0+P2", "P11+P8"], targets=targets)
    assert found.targets == found.combinations == 3
    learned, several = engine.learned_for("few-shot"), engine.combined
    unit = learned.calibration * engine.bank.scale**2 * engine.combining.error_ratio
    chosen = [name for _, name in found.conditions]
    assert set(chosen) == {"P6+P9", "P8+P9", "P0+P2", "P11+P8"}
    for count in range(5):
        more = Responses(
            np.concatenate([several.effects, np.zeros((count, several.effects.shape[1]))]),
            [*several.contexts, *[context] * count],
            [*several.perturbations, *chosen[:count]],
        )
        everything = Combinations(more, {name: tuple(name.split("+")) for name in more.perturbation_names}, engine.bank)
        asked = [tuple(name.split("+")) for name in targets]
        left = everything.answer(engine.similarity, learned.weights, Rule(0.8, own), context, asked).variance.sum()
        assert found.remaining[count] == pytest.approx(float(left) * unit, rel=1e-3)


def test_a_measured_pair_is_known_but_for_its_noise_what_is_its_own_too():
    engine, _ = planted(own=0.3)
    found = design(engine, ["line0"], 1, candidates=["P6+P7"], targets=["P7+P6"])
    learned = engine.learned_for("few-shot")
    unit = learned.calibration * engine.bank.scale**2 * engine.combining.error_ratio
    before, noise = found.remaining[0] / unit, float(learned.weights.noise_of(torch.ones(1)))
    assert found.remaining[1] == pytest.approx(unit * before * noise / (before + noise), rel=1e-3)
    predicted = engine.predict("line0", ["P6+P7"], trust=False)
    assert found.remaining[0] == pytest.approx(float(predicted.variance[0]), rel=1e-3)


def test_a_design_of_pairs_measures_what_tells_of_the_targets():
    engine, _ = planted(hidden=[(0, p) for p in range(4, 12)], measured=MEASURED[:1])
    found = design(engine, ["line0"], 2, candidates=["P0+P3", "P6+P7", "P1+P2"], targets=["P6+P10", "P7+P10", "P6+P11"])
    # P0, P1, P2 and P3 were measured there
    assert found.conditions[0] == ("line0", "P6+P7")
    assert found.gain[0] > 3 * found.gain[1]


def test_pairs_alone_are_their_own_targets_and_what_was_measured_is_no_candidate(fitted):
    engine, _ = fitted
    found = design(engine, ["line0"], 100, candidates=ALL_PAIRS)
    assert found.exhausted
    assert found.targets == found.combinations == 66 - 5
    assert not {name for _, name in found.conditions} & {"P0+P1", "P0+P4", "P1+P3", "P2+P5", "P5+P8"}
    again = design(engine, ["line0"], 100, candidates=ALL_PAIRS, targets=["P6+P7"], replicates=True)
    assert again.replicate.sum() == 5


def test_excluded_and_priced_pairs_may_be_in_any_order(fitted):
    engine, _ = fitted
    names = ["P6+P7", "P8+P9", "P10+P11"]
    found = design(engine, ["line0"], 3, candidates=names, exclude=["P7+P6"])
    assert {name for _, name in found.conditions} == {"P8+P9", "P10+P11"}
    priced = design(engine, ["line0"], 3, candidates=names, costs={"P7+P6": 1e6})
    assert priced.conditions[-1] == ("line0", "P6+P7")
    assert priced.cost[-1] == 1e6


@pytest.mark.parametrize("own", [0.0, 0.3])
def test_what_a_pair_leaves_of_its_members_is_what_a_fit_with_it_leaves(own):
    engine, _ = planted(hidden=[(0, p) for p in range(6, 12)], own=own)
    found = design(engine, ["line0"], 3, candidates=["P6+P9", "P0+P7", "P8+P10"], targets=["P6", "P7", "P11"])
    learned, several = engine.learned_for("few-shot"), engine.combined
    unit = learned.calibration * engine.bank.scale**2
    chosen = [name for _, name in found.conditions]
    assert chosen[-1] == "P10+P8"  # of which no target is a member
    assert found.gain[-1] == 0
    for count in range(3):
        more = Responses(
            np.concatenate([several.effects, np.zeros((count, several.effects.shape[1]))]),
            [*several.contexts, *["line0"] * count],
            [*several.perturbations, *chosen[:count]],
        )
        everything = Combinations(more, {name: tuple(name.split("+")) for name in more.perturbation_names}, engine.bank)
        told = {member for name in chosen[:count] for member in name.split("+")}
        left = [("P6",), ("P7",), ("P11",)]
        after = everything.answer(engine.similarity, learned.weights, Rule(0.8, own), "line0", left).variance
        before = engine.combining.measured.answer(
            engine.similarity, learned.weights, Rule(0.8, own), "line0", left
        ).variance
        counts = torch.tensor([one[0] in told for one in left])
        assert found.remaining[count] == pytest.approx(float(torch.where(counts, after, before).sum()) * unit, rel=2e-2)


def test_a_perturbation_that_pairs_alone_tell_of_can_be_found_and_chosen():
    own = 2.0 * np.random.default_rng(7).normal(size=15)
    drawn = screen()
    single = drawn.responses()
    effects = [own + drawn.effects[0, 0], own + drawn.effects[0, 1]]
    labels = [*single.contexts, "line0", "line0"], [*single.perturbations, "P0+Q", "P1+Q"]
    engine = Evidence(QUICK).fit(Responses(np.concatenate([single.effects, effects]), *labels), drawn.embeddings)
    found = search(engine, "line0", own, candidates=["Q", "P3", "P4", "nobody"], top=3)
    assert found.perturbations[0] == "Q"
    assert found.unknown == ("nobody",)
    few = search(engine, "a new line", own, candidates=["Q", *drawn.perturbations], top=3, refined=1)
    assert few.perturbations[0] == "Q"
    assert ("line1", "Q") in design(engine, ["line1"], 2, candidates=["Q", "P3+P4"]).conditions
    assert "Q" in {name for _, name in hits(engine, ["line0"], 5, candidates=["Q"], threshold=1.0).conditions}


def test_single_targets_gain_from_single_candidates_and_from_pairs_that_they_are_in():
    engine, _ = planted(hidden=[(0, p) for p in range(4, 12)])
    mixed = design(engine, ["line0"], 3, candidates=["P4", "P5", "P6+P7"], targets=["P8", "P9"])
    alone = design(engine, ["line0"], 3, candidates=["P4", "P5"], targets=["P8", "P9"])
    assert mixed.conditions[:2] == alone.conditions
    np.testing.assert_allclose(mixed.gain[:2], alone.gain, rtol=1e-3)
    assert mixed.gain[2] == 0
    with pytest.raises(StateRagError, match="none of the targets is one or is part of one"):
        design(engine, ["line0"], 1, candidates=["P6+P7"], targets=["P8"])
    assert design(engine, ["line0"], 1, candidates=["P6+P7"], targets=["P6"]).gain[0] > 0


def test_hits_are_as_likely_as_predictions_say_and_measured_pairs_are_none(fitted):
    engine, _ = fitted
    found = hits(engine, ["line0"], 100, candidates=[*ALL_PAIRS, "P3"], threshold=1.0)
    assert len(found.conditions) == 66 - 5
    name = found.conditions[0][1]
    predicted = engine.predict("line0", [name], trust=False)
    assert found.effect[0] == pytest.approx(float(np.sqrt(np.mean(predicted.mean**2))))
    assert found.deviation[0] == pytest.approx(float(np.sqrt(predicted.variance[0])))


def test_numbers_of_a_roster_stand_for_names_whatever_they_are_called(fitted):
    engine, _ = fitted
    engine.bank.other_names = {"OLD": "P7"}
    try:
        roster = Roster(engine, ["OLD+P6", "P6+P7", "P7+OLD", "P9", "nobody"])
        number = roster.number_of("P6+P7")
        assert roster.number_of("OLD+P6") == number
        assert roster.names[number] == "P6+P7"
        assert roster.number_of("P7+OLD") == engine.bank.number_of("P7")
        assert roster.number_of("nobody") == -1
        parts = roster.parts(torch.tensor([number, 3]))
        assert parts.tolist() == [[engine.bank.number_of("P6"), engine.bank.number_of("P7")], [3, -1]]
    finally:
        engine.bank.other_names = {}
