from dataclasses import replace

import numpy as np
import pytest
import torch

from state_rag.evidence.bank import Bank
from state_rag.evidence.episodes import Episodes
from state_rag.evidence.estimator import Evidence
from state_rag.evidence.kriging import KernelWeights, Scene, apply, krige
from state_rag.evidence.similarity import Similarity, Source
from state_rag.evidence.source_choice import useless_sources
from state_rag.evidence.source_weights import source_weights, without_sources
from tests.evidence.pretend_screen import QUICK, screen

SETTINGS = replace(QUICK, steps=30, judging=16, calibrating=0)


def random_table(names, seed=0, width=256):
    return names, np.random.default_rng(seed).normal(size=(len(names), width))


def problem(tables, drawn):
    bank = Bank(drawn.responses())
    return bank, Similarity(bank, [Source.of(name, *table, bank.perturbations) for name, table in tables.items()])


def fitted(drawn, tables, use="unseen", settings=SETTINGS):
    return Evidence(settings).fit(drawn.responses({(0, 1), (1, 1), (2, 1)}), tables, uses=[use])


@pytest.mark.parametrize("seed", range(3))
def test_a_random_source_has_no_weight_and_changes_nothing(seed):
    drawn = screen(seed, perturbations=24)
    with_it = fitted(drawn, {**drawn.embeddings, "noise": random_table(drawn.perturbations, seed)})
    without = fitted(drawn, drawn.embeddings)
    weights = source_weights(with_it.trained["unseen"].weights, with_it.similarity)
    assert weights["noise"] == 0
    assert weights["text"] > 0
    assert sum(weights.values()) == pytest.approx(1)
    asked = ["P1", "P5"]
    expected = without.predict("line0", asked)
    found = with_it.predict("line0", asked)
    np.testing.assert_allclose(found.mean, expected.mean, atol=1e-4 * np.abs(expected.mean).max())
    np.testing.assert_allclose(found.variance, expected.variance, rtol=1e-3)


def test_two_that_help_are_both_kept():
    """Each of two tables knows one half of the perturbations."""
    drawn = screen(1, perturbations=24, modules=4)
    names, vectors = drawn.embeddings["text"]
    halves = {"first": (names[:12], vectors[:12]), "second": (names[12:], vectors[12:])}
    weights = source_weights((engine := fitted(drawn, halves)).trained["unseen"].weights, engine.similarity)
    assert min(weights["first"], weights["second"]) > 0.1


def test_two_that_say_the_same_are_not_both_dropped():
    drawn = screen(2, perturbations=24)
    text = drawn.embeddings["text"]
    engine = fitted(drawn, {"text": text, "copy": text, "noise": random_table(drawn.perturbations)})
    weights = source_weights(engine.trained["unseen"].weights, engine.similarity)
    assert weights["noise"] == 0
    assert weights["text"] + weights["copy"] > 0.5


def test_the_last_table_stays_even_where_it_helps_nothing():
    drawn = screen()
    noise = {name: random_table(drawn.perturbations, seed) for seed, name in enumerate("ab")}
    bank, similarity = problem(noise, drawn)
    weights = KernelWeights(len(similarity.kernels)).requires_grad_(False)
    gone = useless_sources(bank, similarity, Episodes(bank, "unseen"), weights, 8, np.random.default_rng(0))
    assert len(gone) == 1


def test_leaving_out_what_is_like_nothing_else_changes_no_mean():
    """Kernels that are identities are a nugget and noise, and that is what they are replaced by."""
    drawn = screen()
    tables = {**drawn.embeddings, "identity": (drawn.perturbations, np.eye(len(drawn.perturbations)))}
    bank, similarity = problem(tables, drawn)
    weights = KernelWeights(len(similarity.kernels)).requires_grad_(False)
    for number, kernel in enumerate(similarity.kernels):
        if kernel.coarse and kernel.source == "identity":
            weights.shared[number] = weights.own[number] = -torch.inf
    scene = Scene(0, torch.tensor([3]), torch.nonzero(bank.perturbation != 3).flatten())
    values = bank.effects[scene.supports]
    without = without_sources(weights, similarity, ["identity"])
    found, expected = (
        apply(krige(bank, scene, one, similarity), bank, scene, one, values) for one in (without, weights)
    )
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_one_source_is_never_judged(monkeypatch):
    drawn = screen()
    monkeypatch.setattr("state_rag.evidence.training.useless_sources", lambda *_: pytest.fail("judged"))
    fitted(drawn, drawn.embeddings)


def test_what_was_dropped_stays_dropped_in_a_written_engine():
    drawn = screen(perturbations=24)
    engine = fitted(drawn, {**drawn.embeddings, "noise": random_table(drawn.perturbations)})
    again = Evidence.from_state(engine.to_state())
    assert source_weights(again.trained["unseen"].weights, again.similarity) == source_weights(
        engine.trained["unseen"].weights, engine.similarity
    )
    assert np.array_equal(again.predict("line0", ["P1"]).mean, engine.predict("line0", ["P1"]).mean)
    reasons = again.explain("line0", "P1").reasons
    assert not reasons["noise"].any()
    assert np.isfinite(reasons["text"]).all()
