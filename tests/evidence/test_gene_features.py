import numpy as np
import pytest
import torch

from state_rag.evidence.bands import Spread
from state_rag.evidence.bank import Bank
from state_rag.evidence.gene_features import ESTIMATES, FEATURES, LEVELS, RIDGE, gene_features
from state_rag.evidence.kriging import KernelWeights, Scene, apply, krige
from state_rag.evidence.similarity import Similarity, Source
from tests.evidence.pretend_screen import screen


@pytest.fixture
def seen():
    """What is seen of two perturbations in a context: one was measured in both other contexts, one nowhere."""
    drawn = screen(perturbations=8, genes=6)
    controls = {name: np.random.default_rng(c).normal(size=6) for c, name in enumerate(drawn.contexts)}
    responses = drawn.responses([(0, 6), (0, 7), (1, 7), (2, 7)], controls=controls)
    bank = Bank(responses, drawn.perturbations)
    similarity = Similarity(bank, [Source.of(k, *table, bank.perturbations) for k, table in drawn.embeddings.items()])
    weights = KernelWeights(len(similarity.kernels)).requires_grad_(False)
    scene = Scene(0, torch.tensor([bank.number_of("P6"), bank.number_of("P7")]), torch.arange(len(bank)))
    answer = krige(bank, scene, weights, similarity)
    spread = Spread(bank, scene, weights, bank.effects[scene.supports])
    return bank, scene, weights, similarity, answer, gene_features(answer, spread, similarity)


def effects_of(bank, **where):
    rows = [r for r in range(len(bank)) if all(int(getattr(bank, k)[r]) == v for k, v in where.items())]
    return bank.effects[rows].numpy()


def estimate(found, name):
    return found.estimates[ESTIMATES.index(name)].numpy()


def feature(found, name):
    return found.features[FEATURES.index(name)].numpy()


def test_there_is_a_name_for_each(seen):
    assert seen[-1].estimates.shape == (len(ESTIMATES), 2, 6)
    assert seen[-1].features.shape == (len(FEATURES), 2, 6)


def test_the_same_perturbation_elsewhere_and_how_its_contexts_agree(seen):
    bank, found = seen[0], seen[-1]
    own = effects_of(bank, perturbation=bank.number_of("P6"))
    others = np.concatenate([effects_of(bank, context=1), effects_of(bank, context=2)])
    np.testing.assert_allclose(estimate(found, "same perturbation elsewhere")[0], own.mean(0), rtol=1e-5)
    np.testing.assert_allclose(estimate(found, "same perturbation elsewhere")[1], others.mean(0), rtol=1e-5)
    np.testing.assert_allclose(feature(found, "spread elsewhere")[0], own.std(0), rtol=1e-3, atol=1e-5)
    least = [min(abs(a), abs(b)) * np.sign(a) if a * b > 0 else 0 for a, b in own.T]
    np.testing.assert_allclose(feature(found, "least size elsewhere")[0], least, rtol=1e-5)
    assert feature(found, "contexts")[:, 0].tolist() == [2, 0]


def test_means_and_spreads_here_and_of_others(seen):
    bank, found = seen[0], seen[-1]
    here = effects_of(bank, context=0)
    others = np.concatenate([effects_of(bank, context=1), effects_of(bank, context=2)])
    np.testing.assert_allclose(estimate(found, "context mean")[1], here.mean(0), rtol=1e-5)
    np.testing.assert_allclose(estimate(found, "others' mean")[1], others.mean(0), rtol=1e-5)
    np.testing.assert_allclose(feature(found, "spread here")[0], here.std(0), rtol=1e-5)
    np.testing.assert_allclose(feature(found, "spread of others")[0], others.std(0), rtol=1e-5)


def test_ridge_is_the_plain_regression_within_the_context(seen):
    bank, scene, _, similarity, _, found = seen
    rows = [r for r in range(len(bank)) if bank.context[r] == 0]
    known = bank.perturbation[rows]
    kernel = sum(k.double().numpy() for k in similarity.cosines(known, known, 0))
    cross = sum(k.double().numpy() for k in similarity.cosines(known, scene.queries, 0))
    mean = bank.effects[rows].numpy().mean(0)
    weight = np.linalg.solve(kernel + RIDGE * np.eye(len(rows)), cross)
    expected = mean + weight.T @ (bank.effects[rows].numpy() - mean)
    np.testing.assert_allclose(estimate(found, "ridge"), expected, rtol=1e-4, atol=1e-5)


def test_chances_and_parts_are_kriged_with_the_same_weights(seen):
    bank, scene, weights, _, answer, found = seen
    for name, values in {
        "positive part": bank.effects.clamp_min(0),
        f"above {LEVELS[0]:g}": (bank.effects > LEVELS[0]).double(),
        f"below {LEVELS[1]:g}": (bank.effects < -LEVELS[1]).double(),
    }.items():
        np.testing.assert_allclose(
            feature(found, name), apply(answer, bank, scene, weights, values), rtol=1e-4, atol=1e-6
        )


def test_similar_conditions_are_weighted_by_covariance(seen):
    bank, _, _, _, answer, found = seen
    weight = answer.covariance.clamp_min(0).numpy()
    values = bank.effects.numpy()
    for query in range(2):
        share = weight[:, query] / weight[:, query].sum()
        np.testing.assert_allclose(
            estimate(found, "similar conditions")[query], (share[:, None] * values).sum(0), rtol=1e-4, atol=1e-5
        )
        sharp = weight[:, query] ** 2 / (weight[:, query] ** 2).sum()
        mean = (sharp[:, None] * values).sum(0)
        spread = np.sqrt((sharp[:, None] * (values - mean) ** 2).sum(0))
        np.testing.assert_allclose(feature(found, "spread of similar^2")[query], spread, rtol=1e-3, atol=1e-5)


def test_controls_stand_beside_those_of_other_contexts(seen):
    bank, found = seen[0], seen[-1]
    np.testing.assert_allclose(feature(found, "control here")[0], bank.control[0], rtol=1e-5)
    np.testing.assert_allclose(feature(found, "control elsewhere")[0], bank.control[1:].mean(0), rtol=1e-5)
