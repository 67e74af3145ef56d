import numpy as np
import pytest
import torch

from state_rag.errors import StateRagError
from state_rag.evidence.adding import as_called, merge, with_knowledge, with_responses
from state_rag.evidence.bank import Bank
from state_rag.evidence.estimator import Evidence
from state_rag.evidence.responses import UNTOLD, Responses
from state_rag.evidence.similarity import Source
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
    whole.bank = Bank(whole.responses, whole.bank.perturbations, units=engine.bank.units)
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


@pytest.mark.parametrize("factor", [0.01, 30.0])
def test_a_condition_that_was_added_tells_nothing_about_itself(factor):
    drawn = screen(perturbations=24)
    changes = np.sign(drawn.effects) * (np.abs(drawn.effects) > 1)
    known = [(c, p) for c in range(3) for p in range(24) if (c, p) != (0, 3)]

    def some(conditions, factor=1.0):
        told = {"cells": [20 + c + p for c, p in conditions], "changes": np.stack([changes[row] for row in conditions])}
        plain = rows(drawn, conditions)
        return Responses(factor * plain.effects, plain.contexts, plain.perturbations, GENES, **told)

    engine = Evidence(QUICK).fit(some(known), drawn.embeddings)
    found, again = (with_responses(engine, some([(0, 3)], by))[0].predict("line0", ["P3"]) for by in (1.0, factor))
    assert found.trust.calibrated
    assert np.isfinite(found.calls.probability).all()
    np.testing.assert_allclose(again.mean, found.mean, rtol=1e-9)
    np.testing.assert_allclose(again.variance, found.variance, rtol=1e-9)
    np.testing.assert_allclose(again.trust.expected, found.trust.expected, rtol=1e-9)
    np.testing.assert_allclose(again.trust.std, found.trust.std, rtol=1e-9)
    np.testing.assert_allclose(again.calls.probability, found.calls.probability, rtol=1e-9)


def test_a_strong_condition_that_is_added_does_not_make_all_others_uncertain(engine):
    drawn = screen()
    plain = rows(drawn, [(1, 0)])
    strange = Responses(100 * plain.effects, ["liver"], ["like nothing else"], GENES)
    found, _ = with_responses(engine, strange)
    before, after = (one.predict("line0", ["P7", "P8"]) for one in (engine, found))
    np.testing.assert_allclose(after.variance, before.variance, rtol=0.05)
    again = Evidence.from_state(found.to_state()).predict("line0", ["P7", "P8"])
    assert np.array_equal(again.variance, after.variance)


def test_controls_that_come_later_are_nothing_that_was_learned_from(engine):
    assert engine.bank.control is None
    new = rows(screen(), [(0, 6), (0, 7)])
    told = Responses(new.effects, ["liver"] * 2, new.perturbations, GENES, controls={"liver": np.arange(15.0)})
    plain = Responses(new.effects, ["liver"] * 2, new.perturbations, GENES)
    assert with_responses(engine, told)[0].bank.control is None
    found, again = (with_responses(engine, one)[0].predict("liver", ["P1"]) for one in (told, plain))
    assert np.array_equal(found.mean, again.mean)


def test_cell_counts_of_what_is_added_count_against_those_of_the_fit():
    drawn = screen()
    counts = np.full((3, 12), 40)
    engine = Evidence(QUICK).fit(drawn.responses(LATER, cells=counts, genes=GENES), drawn.embeddings)
    plain = rows(drawn, LATER)
    new = Responses(plain.effects, plain.contexts, plain.perturbations, GENES, cells=[10] * len(LATER))
    found, _ = with_responses(with_responses(engine, new)[0], new)
    assert found.bank.scarcity.tolist() == [1.0] * 30 + [40 / 20] * len(LATER)


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


def test_new_measurements_count_for_the_perturbation_whatever_its_name(engine):
    drawn = screen()
    named = Evidence.from_state(engine.to_state())
    named.bank.other_names = {"OLD6": "P6", "OLD1": "P1"}
    new = rows(drawn, [(0, 6), (1, 1), (0, 7)])
    others = Responses(new.effects, new.contexts, ["OLD6", "OLD1", "P7+ctrl"], GENES)
    assert as_called(named, others).perturbations == new.perturbations
    found, merged = with_responses(named, others)
    assert merged.added == (("line0", "P6"), ("line0", "P7"))
    assert merged.averaged == (("line1", "P1"),)
    assert found.measured("line0", "P6")
    pair = Responses(new.effects[:1], ["line0"], ["P7+OLD6"], GENES)
    assert as_called(named, pair).perturbations == ("P6+P7",)
    with pytest.raises(StateRagError, match="given more than once, among them P6 in line0"):
        with_responses(named, Responses(new.effects[:2], ["line0"] * 2, ["OLD6", "P6"], GENES))


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


def more(drawn, extra=4, seed=5):
    """Return the text source of a screen with further perturbations, each like one that is there."""
    names, vectors = drawn.embeddings["text"]
    rng = np.random.default_rng(seed)
    new = vectors[:extra] + 0.01 * rng.normal(size=(extra, vectors.shape[1]))
    return {"text": ([*names, *(f"N{number}" for number in range(extra))], np.vstack([vectors, new]))}


def test_a_perturbation_that_only_a_table_knows_is_predicted_like_the_one_that_it_resembles(engine):
    found = with_knowledge(engine, more(screen()))
    assert engine.predict("line0", ["N0"]).nothing_known.all()
    new = found.predict("line0", ["N0", "N1", "P5"])
    assert new.uses == ("unseen", "unseen", "few-shot")
    alike = [name for name, _ in new.neighbours[0][:1]]
    assert alike == ["P0"]
    assert not new.nothing_known.any()


def test_what_was_known_is_predicted_as_before(engine):
    drawn = screen()
    found = with_knowledge(engine, more(drawn))
    before, after = (one.predict("line0", drawn.perturbations) for one in (engine, found))
    np.testing.assert_allclose(after.mean, before.mean, atol=1e-6)
    np.testing.assert_allclose(after.variance, before.variance, atol=1e-6)


def test_knowledge_and_measurements_go_together_and_are_kept(engine):
    drawn = screen()
    wide = with_knowledge(engine, more(drawn))
    new = Responses(np.ones((1, 15)), ["line0"], ["N0"], GENES)
    found, _ = with_responses(wide, new)
    assert set(found.predict("line0", ["N0"]).sources[0]) == {"text"}
    again = Evidence.from_state(found.to_state())
    for name in ("P7", "N1"):
        assert np.array_equal(again.predict("line0", [name]).mean, found.predict("line0", [name]).mean)


def test_further_directions_do_not_move_the_coarse_look():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(50, 8)) * np.arange(1, 9)
    names = [f"P{number}" for number in range(50)]
    whole = Source.of("text", names, values, names, basis=set(names[:40]))
    part = Source.of("text", names[:40], values[:40], names[:40])
    torch.testing.assert_close(whole.coarse()[:40], part.coarse())
    centred = part.vectors.double() - part.vectors.double().mean(0)
    _, _, directions = np.linalg.svd(centred.numpy(), full_matrices=False)
    later = (whole.vectors[40:].double() - part.vectors.double().mean(0)).numpy() @ directions.T
    later /= np.linalg.norm(later, axis=1, keepdims=True)
    np.testing.assert_allclose(np.abs(whole.coarse()[40:].numpy()), np.abs(later), atol=1e-5)


def test_another_table_than_that_of_the_fit_is_refused(engine):
    names, vectors = more(screen())["text"]
    with pytest.raises(StateRagError, match="tells something else"):
        with_knowledge(engine, {"text": (names, vectors[::-1].copy())})
    with pytest.raises(StateRagError, match="without a source 'go'"):
        with_knowledge(engine, {"go": (names, vectors)})


def test_two_sources_may_tell_of_a_perturbation_one_after_the_other():
    drawn = screen()
    names, vectors = drawn.embeddings["text"]
    both = {"text": (names, vectors), "go": (names, vectors[:, ::-1] + 3.0)}
    engine = Evidence(QUICK).fit(drawn.responses(genes=GENES), both)
    wide = {"text": more(drawn)["text"], "go": ([*names, "N0"], np.vstack([both["go"][1], both["go"][1][:1]]))}
    at_once = with_knowledge(engine, wide)
    in_turn = with_knowledge(with_knowledge(engine, {"text": wide["text"]}), {"go": wide["go"]})
    for name in ("N0", "N1", "P3"):
        found, other = (one.predict("line0", [name]) for one in (at_once, in_turn))
        assert found.sources == other.sources
        np.testing.assert_allclose(found.mean, other.mean, atol=1e-6)
