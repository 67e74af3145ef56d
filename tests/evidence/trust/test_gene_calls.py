"""Which genes change, as an engine says: what it finds, what it may not look at, and when it says nothing."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from state_rag.errors import StateRagError
from state_rag.evidence.adding import with_responses
from state_rag.evidence.answering import answer_scene, chance_of_change
from state_rag.evidence.estimator import Evidence
from state_rag.evidence.kriging import apply
from state_rag.evidence.questions import ask
from state_rag.evidence.responses import UNTOLD, Responses
from tests.evidence.pretend_screen import QUICK, screen

HIDDEN = [(0, p) for p in range(0, 40, 3)]
ASKED = [f"P{p}" for _, p in HIDDEN]


def drawn():
    return screen(perturbations=40, genes=30, modules=4)


def changes_of(effects):
    return np.sign(effects) * (np.abs(effects) > 1.2)


def responses(changes=changes_of, hidden=HIDDEN):
    plain = drawn().responses(hidden)
    return Responses(plain.effects, plain.contexts, plain.perturbations, plain.genes, changes=changes(plain.effects))


@pytest.fixture(scope="module")
def engine():
    return Evidence(QUICK).fit(responses(), drawn().embeddings, uses=["few-shot"])


def test_calls_find_the_genes_that_change(engine):
    calls = engine.predict("line0", ASKED).calls
    effects = drawn().effects[0, [p for _, p in HIDDEN]]
    changed = changes_of(effects) != 0
    assert calls.probability[changed].mean() > calls.probability[~changed].mean() + 0.3
    called = calls.called(0.2)
    assert called.sum() > 30
    assert (~changed)[called].mean() < 0.3
    assert (calls.direction[called] == np.sign(effects)[called]).mean() > 0.9


def test_more_is_called_where_more_errors_are_allowed(engine):
    calls = engine.predict("line0", ASKED).calls
    strict, lax = calls.called(0.1), calls.called(0.4)
    assert not (strict & ~lax).any()
    assert lax.sum() > strict.sum()


def test_a_condition_is_called_without_its_own_response_and_changes(engine):
    before = engine.predict("line0", ["P1"]).calls
    again = Evidence.from_state(engine.to_state())
    row = int(again.bank.row[0, again.bank.number_of("P1")])
    again.bank.effects[row] = 7.0
    again.responses.changes[row] = 1 - np.abs(again.responses.changes[row])
    after = again.predict("line0", ["P1"]).calls
    np.testing.assert_array_equal(before.fdr, after.fdr)
    np.testing.assert_array_equal(before.probability, after.probability)
    # and what it did does count for others
    assert not np.array_equal(
        engine.predict("line0", ["P5"]).calls.probability, again.predict("line0", ["P5"]).calls.probability
    )


def test_an_explanation_calls_what_a_prediction_calls(engine):
    for name in ("P0", "P1"):
        ours, theirs = engine.explain("line0", name).calls, engine.predict("line0", [name]).calls
        np.testing.assert_allclose(ours.probability, theirs.probability, atol=1e-6)


def test_the_chance_of_a_change_is_kriging_of_whether_supports_changed(engine):
    (question,) = ask(engine.bank, engine.similarity, 0, ["P0"])
    learned = engine.trained["few-shot"]
    answered = answer_scene(engine.bank, engine.similarity, question.scene, learned, 1000)
    told = torch.from_numpy(engine.responses.changes)
    often = (told[answered.scene.supports] != 0).float()
    expected = apply(answered.answer, engine.bank, answered.scene, learned.weights, often)
    torch.testing.assert_close(chance_of_change(engine.bank, answered, learned.weights, told), expected)
    # a support that does not tell counts like the mean of the others
    untold = told.clone()
    untold[answered.scene.supports[0]] = UNTOLD
    often[0] = often[1:].mean(0)
    expected = apply(answered.answer, engine.bank, answered.scene, learned.weights, often)
    torch.testing.assert_close(chance_of_change(engine.bank, answered, learned.weights, untold), expected)


def test_changes_of_own_genes_tell_of_own_genes_alone():
    plain = drawn().responses([(0, 3)])
    names = [f"P{number}" for number in range(30)]  # gene g is what perturbation g is named after
    changes = changes_of(plain.effects).astype(np.int8)
    number = np.array([int(name[1:]) for name in plain.perturbations])
    own = np.flatnonzero(number < 30)
    changes[own, number[own]] = -1
    changes[own[:5], number[own[:5]]] = 0
    data = Responses(plain.effects, plain.contexts, plain.perturbations, names, changes=changes)
    fitted = Evidence(QUICK).fit(data, drawn().embeddings, uses=["few-shot"])
    (question,) = ask(fitted.bank, fitted.similarity, 0, ["P3"])
    learned = fitted.trained["few-shot"]
    answered = answer_scene(fitted.bank, fitted.similarity, question.scene, learned, 1000)
    told = torch.from_numpy(changes)

    chance = chance_of_change(fitted.bank, answered, learned.weights, told)

    opposite = told.clone()
    opposite[own, number[own]] = 1 + opposite[own, number[own]]
    again = chance_of_change(fitted.bank, answered, learned.weights, opposite)
    assert chance[0, 3] != again[0, 3]
    again[0, 3] = chance[0, 3]
    torch.testing.assert_close(again, chance)
    # by a plain loop: all supports with a gene of their own, and once more those of the same name
    everyone, same = [], []
    for row in answered.scene.supports.tolist():
        if number[row] < 30:
            everyone.append(abs(int(changes[row, number[row]])))
            same += everyone[-1:] if number[row] == 3 else []
    share = (sum(everyone) + 0.5) / (len(everyone) + 1)
    assert float(chance[0, 3]) == pytest.approx((share + sum(same)) / (1 + len(same)), rel=1e-5)


def test_it_comes_back_with_the_state(engine):
    state = engine.to_state()
    tensors = load(save({name: tensor.contiguous() for name, tensor in state["tensors"].items()}))
    again = Evidence.from_state({"settings": json.loads(json.dumps(state["settings"])), "tensors": tensors})
    before, after = (one.predict("line0", ["P0", "P1"]).calls for one in (engine, again))
    np.testing.assert_array_equal(before.probability, after.probability)
    np.testing.assert_array_equal(before.fdr, after.fdr)


def test_a_state_from_before_there_were_calls_predicts_without_them(engine):
    state = engine.to_state()
    settings = {name: value for name, value in state["settings"].items() if name != "callers"}
    tensors = {
        name: value for name, value in state["tensors"].items() if not name.startswith(("calls.", "responses.changes"))
    }
    found = Evidence.from_state({"settings": settings, "tensors": tensors}).predict("line0", ASKED)
    assert found.calls is None
    np.testing.assert_array_equal(found.mean, engine.predict("line0", ASKED).mean)


def test_an_engine_that_took_new_measurements_calls_on(engine):
    drawn_here = drawn()
    names = list(engine.responses.genes)
    new = Responses(drawn_here.effects[0, [0, 3]], ["line0"] * 2, ["P0", "P3"], names)
    found, _ = with_responses(engine, new)
    calls = found.predict("line0", ["P6", "P0"]).calls
    assert np.isfinite(calls.probability).all()
    assert (found.responses.changes[-2:] == UNTOLD).all()


def test_nothing_is_called_where_nothing_is_known_or_learned(engine):
    calls = engine.predict("line0", ["unheard of", "P0"]).calls
    assert np.isnan(calls.probability[0]).all()
    assert np.isfinite(calls.probability[1]).all()
    assert not calls.called(0.5)[0].any()
    elsewhere = engine.predict("a new line", ["P0"]).calls
    assert np.isnan(elsewhere.probability).all()


def test_whole_contexts_may_be_new():
    found = Evidence(QUICK).fit(responses(hidden=[]), drawn().embeddings, uses=["zero-shot"])
    calls = found.predict("a new line", ["P0", "P1"]).calls
    assert ((calls.probability > 0) & (calls.probability < 1)).all()


def test_effects_that_do_not_say_what_changed_give_no_calls():
    plain = Evidence(QUICK).fit(drawn().responses(HIDDEN), drawn().embeddings, uses=["few-shot"])
    assert plain.predict("line0", ["P0"]).calls is None
    none = Evidence(QUICK).fit(responses(np.zeros_like), drawn().embeddings, uses=["few-shot"])
    assert none.predict("line0", ["P0"]).calls is None
    untold = Evidence(QUICK).fit(responses(lambda e: np.full_like(e, np.nan)), drawn().embeddings, uses=["few-shot"])
    assert untold.predict("line0", ["P0"]).calls is None


def test_a_rate_that_is_none_is_refused(engine):
    with pytest.raises(StateRagError, match="between 0 and 1"):
        engine.predict("line0", ["P1"]).calls.called(1.5)
