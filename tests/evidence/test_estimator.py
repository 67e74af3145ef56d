import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from state_rag.errors import StateRagError
from state_rag.evidence.estimator import Evidence
from state_rag.evidence.responses import Responses
from tests.evidence.pretend_screen import QUICK, screen

TEST = [(0, p) for p in range(6, 12)]
"""Conditions that are predicted: half of the first context."""


@pytest.fixture(scope="module")
def engine():
    drawn = screen()
    return Evidence(QUICK).fit(drawn.responses(TEST), drawn.embeddings)


def test_it_predicts_better_than_the_mean_of_the_context():
    drawn = screen(perturbations=18)
    test = [(0, p) for p in range(6, 18)]
    engine = Evidence(QUICK).fit(drawn.responses(test), drawn.embeddings, uses=["few-shot"])
    truth = np.stack([drawn.effects[row] for row in test])
    found = engine.predict("line0", [f"P{p}" for _, p in test])
    assert found.uses == ("few-shot",) * 12
    error = np.square(found.mean - truth).mean()
    assert error < 0.5 * np.square(drawn.effects[0, :6].mean(0) - truth).mean()


def test_each_kind_of_question_is_answered_as_such(engine):
    assert engine.predict("line0", ["P6", "P11"]).uses == ("few-shot", "few-shot")
    assert engine.predict("a new line", ["P6"]).uses == ("zero-shot",)
    names, vectors = screen().embeddings["text"]
    told = {"text": ([*names, "Q"], np.vstack([vectors, vectors[:1]]))}
    fresh = Evidence(QUICK).fit(screen().responses(TEST), told)
    assert fresh.predict("line0", ["Q", "P6"]).uses == ("unseen", "few-shot")
    assert fresh.predict("a new line", ["Q"]).uses == ("both",)
    assert fresh.predict("line0", ["Q"]).sources == (("text",),)


def test_what_nothing_is_known_of_gets_the_mean_effect_and_the_highest_variance(engine):
    found = engine.predict("line0", ["unheard of", "P7"])
    assert found.nothing_known.tolist() == [True, False]
    assert found.variance[0] > found.variance[1]
    measured = screen().effects[0, :6].mean(0)
    assert np.corrcoef(found.mean[0], measured)[0, 1] > 0.9
    elsewhere = engine.predict("a new line", ["unheard of"])
    assert np.isfinite(elsewhere.mean).all()
    assert elsewhere.nothing_known.all()


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2), st.integers(0, 11), st.floats(-50, 50))
def test_a_measured_condition_is_predicted_without_itself(engine, context, perturbation, value):
    if (context, perturbation) in TEST:
        return
    changed = Evidence.from_state(engine.to_state())
    row = int(changed.bank.row[changed.bank.number_of_context(f"line{context}"), perturbation])
    changed.bank.effects[row] = value
    changed.similarity = type(changed.similarity)(changed.bank, changed.similarity.sources, changed.settings.powers)
    names = [f"P{p}" for p in range(12) if (context, p) not in TEST]
    own = names.index(f"P{perturbation}")
    before, after = (e.predict(f"line{context}", names) for e in (engine, changed))
    assert np.array_equal(before.mean[own], after.mean[own])
    assert before.variance[own] == after.variance[own]


@settings(max_examples=10, deadline=None)
@given(st.lists(st.floats(-9, 9), min_size=15, max_size=15))
def test_no_held_out_condition_enters_anything(engine, values):
    drawn = screen()
    for row in TEST:
        drawn.effects[row] = values
    again = Evidence(QUICK).fit(drawn.responses(TEST), drawn.embeddings)
    asked = [f"P{p}" for p in range(12)]
    assert np.array_equal(again.predict("line0", asked).mean, engine.predict("line0", asked).mean)


def test_the_same_seed_gives_the_same_engine_and_another_one_another(engine):
    drawn = screen()
    again = Evidence(QUICK).fit(drawn.responses(TEST), drawn.embeddings)
    other = Evidence(QUICK, seed=1).fit(drawn.responses(TEST), drawn.embeddings)
    first = engine.predict("line0", ["P8"]).mean
    assert np.array_equal(first, again.predict("line0", ["P8"]).mean)
    assert not np.array_equal(first, other.predict("line0", ["P8"]).mean)


def test_the_order_in_which_perturbations_are_asked_makes_no_difference(engine):
    names = [f"P{p}" for p in range(12)]
    forth, back = engine.predict("line0", names).mean, engine.predict("line0", names[::-1]).mean
    np.testing.assert_allclose(forth[6:], back[::-1][6:], atol=1e-6)


def test_whatever_else_is_asked_makes_no_difference_to_measured_conditions_either():
    drawn = screen(perturbations=24)
    engine = Evidence(QUICK).fit(drawn.responses([(0, 22), (0, 23)]), drawn.embeddings)
    names = [f"P{p}" for p in range(24)]
    together, back = engine.predict("line0", names), engine.predict("line0", names[::-1])
    np.testing.assert_allclose(together.mean, back.mean[::-1], atol=1e-6)
    for place, name in enumerate(names):
        alone = engine.predict("line0", [name])
        np.testing.assert_allclose(alone.mean[0], together.mean[place], atol=1e-6)
        np.testing.assert_allclose(alone.variance[0], together.variance[place], rtol=1e-6)
        np.testing.assert_allclose(engine.explain("line0", name).prediction, together.mean[place], atol=1e-6)


@pytest.mark.parametrize(
    ("contexts", "perturbations", "with_text"),
    [(1, 8, True), (1, 8, False), (1, 1, True), (1, 1, False), (2, 1, False), (1, 2, True), (3, 12, False)],
)
def test_however_little_there_is_an_answer_is_given(contexts, perturbations, with_text):
    drawn = screen(contexts=contexts, perturbations=perturbations)
    names, vectors = screen(perturbations=perturbations + 1).embeddings["text"]
    told = {"text": (names, vectors)} if with_text else None
    engine = Evidence(QUICK).fit(drawn.responses(), told)
    for context in (*drawn.contexts, "a new line"):
        found = engine.predict(context, [*names, "unheard of"])
        assert np.isfinite(found.mean).all()
        assert (found.variance >= 0).all()
        assert found.nothing_known[-1]
        assert found.nothing_known[perturbations] == (not with_text)


def test_effects_that_are_all_zero_are_predicted_as_zero():
    responses = Responses(np.zeros((8, 3)), ["a"] * 4 + ["b"] * 4, ["P", "Q", "R", "S"] * 2)
    found = Evidence(QUICK).fit(responses).predict("a", ["P", "T"])
    np.testing.assert_allclose(found.mean, 0, atol=1e-6)


def test_unknown_uses_and_questions_before_fitting_are_refused():
    with pytest.raises(StateRagError, match="unknown use 'many-shot'; choose of few-shot"):
        Evidence(QUICK).fit(screen().responses(), uses=["many-shot"])
    for question in ("predict", "explain"):
        with pytest.raises(StateRagError, match="nothing was fitted"):
            getattr(Evidence(), question)("line0", "P0")


def test_progress_is_told_from_the_first_step_to_the_last():
    told = []
    Evidence(QUICK).fit(screen().responses(), uses=["few-shot"], progress=lambda *step: told.append(step))
    assert [done for what, done, _ in told if "kriging" in what] == [1, 2, 3]
    assert ("few-shot: fusion", QUICK.episodes, QUICK.episodes) in told
    what, done, total = told[-1]
    assert what == "few-shot: trust"
    assert done == total


def test_random_numbers_of_the_caller_are_left_alone():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    Evidence(QUICK).fit(screen().responses(), uses=["few-shot"])
    assert torch.equal(torch.rand(1), expected)
