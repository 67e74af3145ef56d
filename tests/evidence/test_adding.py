import numpy as np
import pytest

from state_rag.errors import StateRagError
from state_rag.evidence.adding import merge, with_responses
from state_rag.evidence.estimator import Evidence
from state_rag.evidence.responses import UNTOLD, Responses
from tests.evidence.pretend_screen import QUICK, screen

LATER = [(0, p) for p in range(6, 12)]
GENES = [f"G{number}" for number in range(15)]


def rows(drawn, conditions):
    """Return the given conditions of a screen as responses."""
    effects = np.stack([drawn.effects[row] for row in conditions])
    names = [drawn.contexts[c] for c, _ in conditions], [drawn.perturbations[p] for _, p in conditions]
    return Responses(effects, *names, GENES)


@pytest.fixture(scope="module")
def engine():
    drawn = screen()
    return Evidence(QUICK).fit(drawn.responses(LATER, genes=GENES), drawn.embeddings)


def test_an_engine_with_all_added_answers_as_one_that_was_given_all_with_the_same_numbers(engine):
    drawn = screen()
    found, merged = with_responses(engine, rows(drawn, LATER[:4]))
    whole = Evidence(QUICK).fit(drawn.responses(LATER[4:], genes=GENES), drawn.embeddings)
    whole.trained, whole.calibrated = engine.trained, engine.calibrated
    assert merged.added == tuple(("line0", f"P{p}") for _, p in LATER[:4])
    for context in ("line0", "line1", "new"):
        ours, theirs = (one.predict(context, drawn.perturbations) for one in (found, whole))
        np.testing.assert_allclose(ours.mean, theirs.mean, atol=1e-6)
        np.testing.assert_allclose(ours.variance, theirs.variance, atol=1e-6)


def test_the_engine_that_was_given_stays_as_it_was(engine):
    before = engine.predict("line0", ["P6"]).mean
    with_responses(engine, rows(screen(), LATER))
    assert np.array_equal(engine.predict("line0", ["P6"]).mean, before)
    assert len(engine.responses) == 30


def test_a_new_context_and_a_new_perturbation_are_known_at_once(engine):
    rng = np.random.default_rng(1)
    new = Responses(rng.normal(size=(3, 15)), ["liver"] * 3, ["P1", "P2", "Q"], GENES, controls={"liver": np.ones(15)})
    found, _ = with_responses(engine, new)
    assert found.predict("liver", ["P3"]).uses == ("few-shot",)
    assert found.predict("line0", ["Q"]).sources == (("responses",),)
    assert np.array_equal(found.responses.controls["liver"], np.ones(15))
    again = Evidence.from_state(found.to_state())
    assert np.array_equal(again.predict("liver", ["P3"]).mean, found.predict("liver", ["P3"]).mean)


def test_what_changed_comes_along_in_the_genes_that_are_known():
    known = Responses([[0.0, 4.0]], ["a"], ["P"], ["G", "H"], changes=[[0, 1]])
    new = Responses([[8.0, 8.0], [1.0, 2.0]], ["a", "a"], ["P", "Q"], ["H", "G"], changes=[[-1, -1], [1, 0]])
    assert merge(known, new).responses.changes.tolist() == [[0, 1], [0, 1]]
    plain = Responses([[1.0, 2.0]], ["a"], ["Q"], ["H", "G"])
    assert merge(known, plain).responses.changes.tolist() == [[0, 1], [UNTOLD, UNTOLD]]
    assert merge(plain, known).responses.changes is None


def test_a_condition_measured_again_counts_by_its_cells():
    known = Responses([[0.0, 4.0]], ["a"], ["P"], ["G", "H"], cells=[30])
    new = Responses([[8.0, 8.0], [1.0, 2.0]], ["a", "a"], ["P", "Q"], ["H", "G"], cells=[10, 5])
    merged = merge(known, new)
    np.testing.assert_allclose(merged.responses.effects, [[2.0, 5.0], [2.0, 1.0]])
    assert merged.responses.cells.tolist() == [40, 5]
    assert merged.averaged == (("a", "P"),)
    assert known.cells.tolist() == [30]


def test_genes_are_found_by_name_and_missing_ones_are_refused():
    known = Responses([[1.0, 2.0]], ["a"], ["P"], ["G", "H"])
    more = merge(known, Responses([[3.0, 0.0, 4.0]], ["a"], ["Q"], ["H", "other", "G"]))
    assert more.responses.effects[1].tolist() == [4.0, 3.0]
    with pytest.raises(StateRagError, match=r"1 of the 2 genes .* missing .*\(H\)"):
        merge(known, Responses([[3.0]], ["a"], ["Q"], ["G"]))


def test_counts_on_one_side_only_are_refused():
    counted = Responses([[1.0]], ["a"], ["P"], ["G"], cells=[3])
    plain = Responses([[1.0]], ["a"], ["P"], ["G"])
    with pytest.raises(StateRagError, match="known responses say how many cells"):
        merge(counted, plain)
    with pytest.raises(StateRagError, match="new responses say how many cells"):
        merge(plain, counted)


def test_nothing_is_added_to_what_was_not_fitted():
    with pytest.raises(StateRagError, match="call `fit`"):
        with_responses(Evidence(QUICK), Responses([[1.0]], ["a"], ["P"]))
