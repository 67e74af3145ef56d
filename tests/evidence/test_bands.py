from dataclasses import replace

import numpy as np
import pytest
import torch

from state_rag.evidence.bands import Spread, banded, bands_of, contributions, directions_of, overall_weights
from state_rag.evidence.estimator import Evidence
from state_rag.evidence.gene_features import ESTIMATES, FEATURES
from state_rag.evidence.kriging import BAND_EDGES, Scene, apply, krige
from state_rag.evidence.prior import prior_of
from state_rag.evidence.responses import Responses
from state_rag.evidence.training import Settings
from tests.evidence.pretend_screen import QUICK, screen
from tests.evidence.test_kriging import problem

WIDE = {"perturbations": 40, "genes": 130}


def question(bank, hidden=(0, 3, 7)):
    queries = torch.tensor(hidden)
    keep = ~((bank.context == 0) & torch.isin(bank.perturbation, queries))
    return Scene(0, queries, torch.nonzero(keep).flatten())


BANDS = [[1.4, 0.7, 0.5, 0.2], [1.0, 1.1, 2.0, 1.5], [0.3, 0.6, 1.0, 6.0]]
"""Of the shared part, the own one, that of the same perturbation and the noise, for each band."""


def with_bands(weights, factors=BANDS):
    with torch.no_grad():
        weights.bands.copy_(torch.tensor(factors).log())
    return weights


def problem_without_bands():
    bank, similarity, weights = problem(screen(**WIDE))
    with_bands(weights, np.ones((3, 4)))
    return bank, similarity, weights


def dense(bank, similarity, weights, scene, factors):
    """K among the supports and with the queries, element by element of its definition."""
    perturbation, context = bank.perturbation[scene.supports], bank.context[scene.supports]
    found = []
    for other, there in ((perturbation, context), (scene.queries, torch.full_like(scene.queries, scene.context))):
        stack = similarity.stack(perturbation, other, scene.context, scene.hidden).double().numpy()
        shared = np.einsum("j,jab->ab", np.exp(weights.shared.numpy()), stack)
        own = np.einsum("j,jab->ab", np.exp(weights.own.numpy()), stack)
        same = np.exp(float(weights.same)) * (perturbation[:, None] == other[None]).numpy()
        here = (context[:, None] == there[None]).numpy()
        found.append(factors[0] * shared + factors[1] * own * here + factors[2] * same)
    return found


def test_each_band_of_directions_is_a_regression_with_its_own_noise_and_variances():
    bank, similarity, weights = problem(screen(**WIDE))
    scene = question(bank)
    answer = krige(bank, scene, with_bands(weights), similarity)
    values = bank.effects[scene.supports]
    prior = prior_of(bank, scene, weights, values)
    means = prior.of(bank.context[scene.supports], bank.perturbation[scene.supports]).numpy()
    deviations = values.numpy() - means
    noise = weights.noise_of(bank.scarcity[scene.supports]).numpy()
    _, _, rows = np.linalg.svd(deviations, full_matrices=False)
    edges = [0, *BAND_EDGES, len(rows)]
    wanted = prior.at(0, scene.queries).numpy().copy()
    for factors, start, end in zip(BANDS, edges, edges[1:], strict=False):
        among, cross = dense(bank, similarity, weights, scene, factors)
        weight = np.linalg.solve(among + np.diag(noise * factors[3]), cross)
        some = rows[start:end]
        wanted += weight.T @ (deviations @ some.T @ some)
    assert np.allclose(banded(answer, Spread(bank, scene, weights, values)), wanted, atol=1e-5)


def test_few_queries_of_many_supports_are_answered_alike(monkeypatch):
    bank, similarity, weights = problem(screen(**WIDE))
    scene = question(bank)
    with_bands(weights)
    wanted = krige(bank, scene, weights, similarity).by_band
    monkeypatch.setattr("state_rag.evidence.kriging.MANY_SUPPORTS", 10)
    assert torch.allclose(krige(bank, scene, weights, similarity).by_band, wanted, atol=1e-4)


def test_bands_with_the_same_numbers_are_one_regression():
    bank, similarity, weights = problem_without_bands()
    scene = question(bank)
    values = bank.effects[scene.supports]
    plain = krige(bank, scene, weights, similarity)
    assert plain.by_band is None
    expected = apply(plain, bank, scene, weights, values)
    assert torch.equal(banded(plain, Spread(bank, scene, weights, values)), expected)
    answer = krige(bank, scene, with_bands(weights, np.full((3, 4), 1 + 1e-12)), similarity)
    assert torch.allclose(banded(answer, Spread(bank, scene, weights, values)), expected, atol=1e-8)


@pytest.mark.parametrize("shape", [(40, 30), (260, 300), (30, 400)])
def test_directions_are_the_principal_ones_whichever_way_they_are_found(shape):
    rng = np.random.default_rng(0)
    values = (rng.normal(size=(shape[0], 12)) * 2.0 ** -np.arange(12)) @ rng.normal(size=(12, shape[1]))
    found = directions_of(torch.from_numpy(values)).numpy()
    assert found.shape == (min(12, *shape), shape[1])
    assert np.allclose(found @ found.T, np.eye(len(found)), atol=1e-4)
    _, _, rows = np.linalg.svd(values, full_matrices=False)
    assert np.allclose(np.abs((found * rows[: len(found)]).sum(1))[:6], 1, atol=1e-3)


def test_there_are_no_bands_beyond_the_directions_that_exist():
    assert bands_of(200) == [slice(0, 30), slice(30, 100)]
    assert bands_of(40) == [slice(0, 30), slice(30, 40)]
    assert bands_of(7) == [slice(0, 7)]
    assert bands_of(0) == []
    assert directions_of(torch.zeros(5, 4)).shape == (0, 4)
    assert directions_of(torch.zeros(0, 4)).shape == (0, 4)


def test_what_supports_add_is_the_prediction_without_its_prior():
    bank, similarity, weights = problem(screen(**WIDE))
    scene = question(bank, hidden=(5,))
    answer = krige(bank, scene, with_bands(weights), similarity)
    values = bank.effects[scene.supports]
    spread = Spread(bank, scene, weights, values)
    deviations, added = spread.deviations, contributions(answer, spread)
    total = added.sum(0) + spread.prior.at(0, scene.queries)[0]
    assert torch.allclose(total, banded(answer, Spread(bank, scene, weights, values))[0], atol=1e-9)
    times = (added * deviations).sum(1) / deviations.square().sum(1)
    assert torch.allclose(overall_weights(answer, spread)[:, 0], times, atol=1e-9)


def noisy(seed, n=60, genes=150):
    """Two contexts that share effects along four directions, large ones, and noise in all genes."""
    rng = np.random.default_rng(seed)
    traits = rng.normal(size=(n, 4))
    true = traits @ rng.normal(size=(4, genes)) * np.array([1.0])
    seen = np.stack([true, true]) + 2.5 * rng.normal(size=(2, n, genes))
    vectors = traits @ rng.normal(size=(4, 20)) + 0.7 * rng.normal(size=(n, 20))
    names = [f"P{one}" for one in range(n)]
    rows = [(c, p) for c in range(2) for p in range(n) if c == 1 or p >= n // 3]
    responses = Responses(
        np.stack([seen[row] for row in rows]),
        ["ab"[c] for c, _ in rows],
        [names[p] for _, p in rows],
        [f"g{gene}" for gene in range(genes)],
    )
    return responses, {"text": (names, vectors)}, names[: n // 3], true[: n // 3]


def test_predictions_gain_where_effects_lie_along_few_directions_and_noise_along_all():
    gains = []
    for seed in range(3):
        responses, tables, asked, truth = noisy(seed)
        learning = Settings(steps=120, episodes=0, calibrating=0, seed=seed)
        engine = Evidence(learning).fit(responses, tables, uses=["few-shot"])
        bands = engine.trained["few-shot"].weights.bands
        found = engine.predict("a", asked, trust=False).mean
        with torch.no_grad():
            bands.zero_()
        plain = engine.predict("a", asked, trust=False).mean
        gains.append(np.square(plain - truth).mean() / np.square(found - truth).mean())
    assert np.mean(gains) > 1.02


def test_a_run_keeps_its_bands_and_one_from_before_them_has_one_noise():
    drawn = screen(**WIDE)
    engine = Evidence(replace(QUICK, steps=8)).fit(drawn.responses([(0, 7)]), drawn.embeddings, uses=["few-shot"])
    with_bands(engine.trained["few-shot"].weights)
    state = engine.to_state()
    assert state["tensors"]["trained.few-shot.fusion.deviation"].shape == (len(ESTIMATES) + len(FEATURES),)
    again = Evidence.from_state(state).predict("line0", ["P7"]).mean
    assert np.array_equal(again, engine.predict("line0", ["P7"]).mean)
    state["tensors"].pop("trained.few-shot.weights.bands")
    for name in ("deviation", "network.0.weight"):
        key = f"trained.few-shot.fusion.{name}"
        state["tensors"][key] = state["tensors"][key][..., : -len(BAND_EDGES)]
    before = Evidence.from_state(state)
    assert not before.trained["few-shot"].weights.bands.any()
    assert not before.trained["few-shot"].fusion.network[0].weight[:, -len(BAND_EDGES) :].any()
    assert np.isfinite(before.predict("line0", ["P7"]).mean).all()
