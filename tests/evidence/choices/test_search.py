import numpy as np
import pytest

from state_rag.errors import StateRagError
from state_rag.evidence.choices.search import search
from state_rag.evidence.estimator import Evidence
from tests.evidence.pretend_screen import QUICK, screen

GENES = 120


@pytest.fixture(scope="module")
def drawn():
    return screen(seed=3, perturbations=24, genes=GENES, modules=8)


@pytest.fixture(scope="module")
def engine(drawn):
    """Fit on a screen of which the odd perturbations were not measured in the first line."""
    hidden = [(0, number) for number in range(1, 24, 2)]
    return Evidence(QUICK).fit(drawn.responses(hidden), drawn.embeddings, uses=["few-shot"])


def place_of(found, name):
    return found.perturbations.index(name)


def test_the_module_of_a_response_that_was_never_measured_is_found(drawn, engine):
    for number in (1, 7, 11):
        found = search(engine, "line0", drawn.effects[0, number], top=4)
        mates = {f"P{other}" for other in range(24) if other % 8 == number % 8}
        assert set(found.perturbations[:3]) == mates
        assert found.fits
        assert place_of(found, f"P{number}") < 3
        assert not found.measured[place_of(found, f"P{number}")]


def test_a_measured_response_finds_itself_first_and_its_reversal_last(drawn, engine):
    for number in (2, 12):
        target = drawn.effects[0, number]
        found = search(engine, "line0", target)
        assert found.perturbations[0] == f"P{number}"
        assert found.measured[0]
        np.testing.assert_allclose(found.effects[0], target, rtol=1e-4, atol=1e-5)
        assert found.agreement[0] == pytest.approx(1, abs=1e-6)
        assert search(engine, "line0", -target).perturbations[-1] == f"P{number}"


@pytest.mark.parametrize("size", [1e-3, 1e6])
def test_the_unit_of_a_target_that_responses_span_changes_nothing(engine, size):
    target = engine.responses.effects[[3, 20]].astype(np.float64).sum(0)
    found, other = search(engine, "line0", target), search(engine, "line0", size * target)
    assert found.perturbations == other.perturbations
    np.testing.assert_allclose(other.score, found.score, atol=1e-6)


def test_noise_fits_nothing_as_often_as_it_is_said_to(engine):
    rng = np.random.default_rng(0)
    best = [search(engine, "line0", rng.normal(size=GENES), draws=99, top=1).p[0] for _ in range(30)]
    assert np.mean(np.array(best) <= 0.05) <= 0.1
    assert 0.25 < np.mean(np.array(best) <= 0.5) < 0.75


def test_genes_that_nobody_knows_count_neither_way(drawn, engine):
    target = drawn.effects[0, 7].copy()
    target[::3] = np.nan
    known = search(engine, "line0", target, top=1)
    other = search(engine, "line0", np.where(np.isnan(target), np.nan, 5 * target), top=1)
    assert set(known.perturbations[:3]) == {"P7", "P15", "P23"}
    np.testing.assert_allclose(known.score, other.score, atol=1e-5)


def test_a_short_list_of_signs_is_enough(drawn, engine):
    effect = drawn.effects[0, 7]
    target = np.zeros(GENES)
    target[np.argsort(-effect)[:5]], target[np.argsort(effect)[:5]] = 1, -1
    found = search(engine, "line0", target, top=3)
    assert found.few
    assert set(found.perturbations[:3]) == {"P7", "P15", "P23"}
    by_hand = [np.mean([*row[np.argsort(-effect)[:5]], *-row[np.argsort(effect)[:5]]]) for row in found.effects]
    np.testing.assert_allclose(found.agreement, by_hand)


def test_choosing_before_predicting_in_full_changes_no_score_of_the_chosen(drawn, engine):
    target = drawn.effects[0, 7]
    full = search(engine, "line0", target, top=3)
    some = search(engine, "line0", target, top=3, refined=5)
    assert some.refined.sum() == 5 + some.measured.sum()
    assert not some.refined[-1]
    score = dict(zip(full.perturbations, full.score, strict=True))
    chosen = [
        (name, value) for name, value, exact in zip(some.perturbations, some.score, some.refined, strict=True) if exact
    ]
    for name, value in chosen:
        assert value == pytest.approx(score[name], abs=1e-5)
    assert some.perturbations[:3] == full.perturbations[:3]


def test_what_nothing_knows_is_left_out_and_named(drawn, engine):
    found = search(engine, "line0", drawn.effects[0, 7], candidates=["P7", "P7", "unheard of"], top=5)
    assert found.perturbations == ("P7",)
    assert found.unknown == ("unheard of",)
    with pytest.raises(StateRagError, match="no candidate is left"):
        search(engine, "line0", drawn.effects[0, 7], candidates=["unheard of"])


def test_a_context_without_responses_can_be_searched(drawn, engine):
    found = search(engine, "new", drawn.effects[0, 7], top=2)
    assert not found.measured.any()
    assert len(found.perturbations) == 24


def test_targets_that_want_nothing_or_do_not_fit_are_refused(engine):
    for target, says in (
        (np.zeros(GENES), "wants no gene to change"),
        (np.full(GENES, np.nan), "wants no gene to change"),
        (np.ones(GENES), "or all alike"),
        (np.ones(3), "a target of 3 values for 120 genes"),
        (np.where(np.arange(GENES) == 0, np.inf, 1.0), "infinite"),
    ):
        with pytest.raises(StateRagError, match=says):
            search(engine, "line0", target)
    with pytest.raises(StateRagError, match="nothing was fitted"):
        search(Evidence(), "line0", np.ones(3))
