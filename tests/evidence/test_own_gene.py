from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from state_rag.evidence.bank import FEWEST_OWN, Bank
from state_rag.evidence.estimator import Evidence
from state_rag.evidence.kriging import Scene
from state_rag.evidence.own_gene import OwnRows, learn_own_gene
from state_rag.names.treatments import Treatment, label_of
from tests.evidence.pretend_screen import QUICK, screen
from tests.evidence.pretend_treatments import opposites, responses

LEARNING = replace(QUICK, episodes=30, judging=6, fusion_steps=30)
DROP = -6.0
GENES = 20


def lowering(drop=DROP, **more):
    """A screen in which gene g is named after perturbation g, which moves it by `drop`; its last ones are no genes."""
    drawn = screen(perturbations=24, genes=GENES, **more)
    for number in range(GENES):
        drawn.effects[:, number, number] = drop
    return drawn, drawn.perturbations[:GENES]


def screen_without(drawn):
    """Effects in the first line, with nothing done to own genes."""
    found = drawn.effects[0].copy()
    np.fill_diagonal(found, 0)
    return found


def hide(*numbers, contexts=3):
    return {(context, number) for context in range(contexts) for number in numbers}


def test_what_a_perturbation_does_to_its_own_gene_is_learned_from_what_others_do_to_theirs():
    drawn, genes = lowering()
    engine = Evidence(LEARNING).fit(drawn.responses(hide(0, 1), genes=genes), drawn.embeddings, uses=["unseen"])
    mean = engine.predict("line0", ["P0", "P1"], trust=False).mean
    np.testing.assert_allclose(mean[[0, 1], [0, 1]], DROP, atol=0.25 * abs(DROP))
    assert abs(mean[[0, 1], [1, 0]]).max() < 0.5 * abs(DROP)


def test_a_perturbation_that_nothing_is_known_of_gets_the_effect_on_its_own_gene_beside_the_context_mean():
    drawn, genes = lowering()
    data = drawn.responses(hide(0), genes=genes)
    known = {"text": ([*drawn.perturbations[1:]], drawn.embeddings["text"][1][1:])}
    engine = Evidence(LEARNING).fit(data, known, uses=["unseen"])
    own, stranger = engine.predict("line0", ["P0", "no such gene"]).mean
    assert own[0] == pytest.approx(DROP, abs=0.25 * abs(DROP))
    np.testing.assert_array_equal(own[1:], stranger[1:])
    # nor is it expected of a stranger what some other perturbation does to its own gene
    without, within = (np.delete(values, 0, axis=0).mean(0) for values in (screen_without(drawn), drawn.effects[0]))
    assert np.square(stranger - without).sum() < np.square(stranger - within).sum()


def test_what_a_perturbation_does_to_its_own_gene_is_not_expected_of_similar_ones():
    drawn, genes = lowering(seed=1)
    plain = screen(seed=1, perturbations=24, genes=GENES)
    own = np.eye(24, GENES, dtype=bool)
    beside = {(0, number) for number in range(6)}
    errors = []
    for names in (genes, [f"g{number}" for number in range(GENES)]):
        engine = Evidence(LEARNING).fit(drawn.responses(beside, genes=names), drawn.embeddings, uses=["few-shot"])
        error = engine.predict("line0", drawn.perturbations[:6], trust=False).mean - plain.effects[0, :6]
        errors.append(np.square(error[~own[:6]]).mean())
    assert errors[0] < 0.6 * errors[1]


def test_genes_of_other_names_are_not_taken_apart():
    drawn, _ = lowering()
    data = drawn.responses(hide(0), genes=[f"g{number}" for number in range(GENES)])
    engine = Evidence(LEARNING).fit(data, drawn.embeddings, uses=["unseen"])
    assert engine.bank.effects_on_others is engine.bank.effects
    assert engine.trained["unseen"].own_gene is None


def test_a_state_from_before_takes_own_genes_like_any_other():
    drawn, genes = lowering()
    engine = Evidence(LEARNING).fit(drawn.responses(hide(0), genes=genes), drawn.embeddings, uses=["unseen"])
    assert engine.bank.effects_on_others is not engine.bank.effects
    state = engine.to_state()
    del state["settings"]["own_apart"]
    before = Evidence.from_state(state)
    assert before.bank.effects_on_others is before.bank.effects


def test_a_state_keeps_it():
    drawn, genes = lowering()
    engine = Evidence(LEARNING).fit(drawn.responses(hide(0), genes=genes), drawn.embeddings, uses=["unseen"])
    again = Evidence.from_state(engine.to_state())
    for names in (["P0", "P1"], ["unheard of"]):
        first, second = (one.predict("line0", names, trust=False).mean for one in (engine, again))
        np.testing.assert_array_equal(first, second)


@settings(max_examples=5, deadline=None)
@given(st.floats(0.1, 50))
def test_the_hidden_effect_on_the_own_gene_changes_no_prediction(size):
    drawn, genes = lowering()
    found, learned = [], None
    for effect in (size, -size):  # of the same square, so that all are divided by the same
        drawn.effects[0, 3, 3] = effect  # measured there, and predicted without itself
        engine = Evidence(replace(LEARNING, seed=1)).fit(
            drawn.responses(genes=genes), drawn.embeddings, uses=["few-shot"]
        )
        learned = learned or engine.trained
        engine.trained = learned
        found.append(engine.predict("line0", ["P3"], trust=False).mean)
    np.testing.assert_array_equal(*found)


def episodes_of(bank, effect, noise, rng, count=30):
    found = []
    for _ in range(count):
        queries = torch.from_numpy(rng.permutation(GENES)[:6])
        scene = Scene(0, queries, torch.nonzero(~torch.isin(bank.perturbation, queries)).flatten())
        truth = torch.from_numpy(effect[queries] + noise * rng.normal(size=6))
        found.append(OwnRows(scene, torch.arange(6), torch.zeros(6, dtype=torch.float64), truth))
    return found


def test_nothing_is_learned_where_own_genes_do_as_predicted_or_too_few_tell():
    drawn, genes = lowering()
    bank, rng = Bank(drawn.responses(genes=genes)), np.random.default_rng(0)
    random = rng.normal(size=GENES)
    lowered = np.full(GENES, DROP)
    assert learn_own_gene(bank, "unseen", episodes_of(bank, lowered, 0.1, rng)) is not None
    assert learn_own_gene(bank, "unseen", []) is None
    few = [
        replace(one, rows=one.rows[keep], predicted=one.predicted[keep], truth=one.truth[keep])
        for one in episodes_of(bank, lowered, 0.1, rng)
        for keep in [one.scene.queries < FEWEST_OWN - 1]
    ]
    assert learn_own_gene(bank, "unseen", few) is None
    kept = [learn_own_gene(bank, "unseen", episodes_of(bank, rng.permutation(random), 0.1, rng)) for _ in range(10)]
    assert sum(one is not None for one in kept) <= 3


def test_an_effect_that_grows_with_the_level_in_controls_is_followed():
    drawn, genes = lowering()
    level = np.linspace(0, 3, GENES)
    bank = Bank(drawn.responses(genes=genes, controls={f"line{c}": level for c in range(3)}))
    rng = np.random.default_rng(0)
    learned = learn_own_gene(bank, "unseen", episodes_of(bank, -2 * level, 0.1, rng, count=60))
    scene = Scene(0, torch.arange(GENES), torch.arange(0))
    found = learned.corrected(bank, scene, torch.zeros(GENES, GENES, dtype=torch.float64))
    np.testing.assert_allclose(found.diagonal(), -2 * level, atol=1.0)
    assert float((found - torch.diag(found.diagonal())).abs().max()) == 0


def test_activation_raises_the_own_gene_and_knock_down_lowers_it():
    effects, embeddings = opposites()
    names = [f"P{number}" for number in range(24)]
    for (_, label), effect in effects.items():
        effect[int(label[1 : label.index(":")])] = 8.0 if "CRISPRa" in label else -8.0
    genes = [*names, *(f"g{number}" for number in range(16))]
    told = {key: effect for key, effect in effects.items() if not key[1].startswith(("P0:", "P1:"))}
    engine = Evidence(LEARNING).fit(responses(told, genes=genes), embeddings, uses=["unseen"])
    up = engine.predict("a", [label_of("P0", Treatment("CRISPRa"))], trust=False).mean[0, 0]
    down = engine.predict("c", [label_of("P0", Treatment("CRISPRi"))], trust=False).mean[0, 0]
    assert up > 4
    assert down < -4
