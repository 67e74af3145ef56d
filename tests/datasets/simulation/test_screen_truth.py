import numpy as np
import pytest

from state_rag.datasets.simulation.screen_truth import draw_truth


def draw(seed=0, **changes):
    sizes = {
        "n_perturbations": 60,
        "n_modules": 12,
        "n_genes": 300,
        "lines": ("k562", "rpe1", "jurkat", "hepg2"),
        "embedding_width": 64,
        "misleading_fraction": 0.25,
        "active_fraction": 0.75,
        "flip_fraction": 0.2,
        "effect_scale": 1.0,
    }
    return draw_truth(np.random.default_rng(seed), **{**sizes, **changes})


def similarities(truth, line, relation):
    index = {name: i for i, name in enumerate(truth.perturbations)}
    found = []
    for i in range(len(truth.perturbations)):
        for other in relation(i):
            both = (i, index[other])
            if all(truth.gain[truth.module_of[p], line] for p in both):
                found.append(np.corrcoef(*(truth.log_fold_change[p, line] for p in both))[0, 1])
    return np.array(found)


@pytest.mark.parametrize("seed", range(3))
def test_module_mates_share_their_effect_and_misleading_neighbours_do_not(seed):
    truth = draw(seed)
    for line in range(4):
        assert similarities(truth, line, truth.mates).mean() > 0.6
        assert abs(similarities(truth, line, truth.misleading).mean()) < 0.1


@pytest.mark.parametrize("seed", range(3))
def test_misleading_neighbours_are_among_the_nearest_texts(seed):
    truth = draw(seed)
    cosine = truth.embeddings @ truth.embeddings.T
    np.fill_diagonal(cosine, -np.inf)
    hits = 0
    for i in range(len(truth.perturbations)):
        nearest = {truth.perturbations[j] for j in np.argsort(-cosine[i])[:8]}
        hits += len(nearest.intersection(truth.misleading(i)))
    chance = 8 * sum(len(truth.misleading(i)) for i in range(60)) / 59
    assert hits > 4 * chance


def test_names_tell_the_module_and_are_unique():
    truth = draw()
    assert len(set(truth.perturbations)) == 60
    for i, name in enumerate(truth.perturbations):
        assert name.startswith(truth.modules[truth.module_of[i]])


def test_misleading_fraction_is_met_and_their_topic_is_foreign():
    truth = draw(misleading_fraction=0.25)
    assert (truth.topic_of != truth.module_of).sum() == 15
    assert not any(draw(misleading_fraction=0.0).misleading(i) for i in range(60))


def test_module_strength_differs_by_line_and_some_lines_are_silent():
    gain = draw().gain
    assert ((gain != 0).sum(axis=1) == 3).all()
    assert len(np.unique(gain[gain != 0])) == 36


def test_embedding_width_leaves_the_effects_alone():
    np.testing.assert_array_equal(draw().log_fold_change, draw(embedding_width=7).log_fold_change)


def test_embeddings_have_unit_length():
    np.testing.assert_allclose(np.linalg.norm(draw().embeddings, axis=1), 1, rtol=1e-6)
