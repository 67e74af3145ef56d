"""What the model lets others see of its retrieval."""

import pytest
import torch

from tests import tiny_model as tiny


@pytest.mark.parametrize("mode", tiny.RETRIEVING)
def test_asking_for_perturbations_shows_what_a_prediction_for_them_retrieves(mode):
    model = tiny.build(mode).eval()
    seen = []
    model.observer = seen.append
    batch = tiny.batch(("GENE2", "GENE5"))
    batch["ctrl_cell_emb"][tiny.CELLS :] = batch["ctrl_cell_emb"][: tiny.CELLS]
    with torch.no_grad():
        model(batch)
    asked = model.retrieve_for(["GENE2", "GENE5"], batch["ctrl_cell_emb"][: tiny.CELLS])
    assert list(asked.queries) == list(seen[0].queries) == ["GENE2", "GENE5"]
    assert torch.equal(asked.rows, seen[0].rows)
    torch.testing.assert_close(asked.weights, seen[0].weights)
    assert (asked.scores is None) == (mode != "differentiable")


@pytest.mark.parametrize("mode", tiny.RETRIEVING)
def test_asking_leaves_the_model_as_it_was(mode):
    model = tiny.build(mode).eval()
    before = model(tiny.batch())
    model.retrieve_for(["GENE1"], torch.rand(4, tiny.GENES))
    assert torch.equal(model(tiny.batch()), before)
    assert model.observer is None


def test_what_is_shown_of_training_has_no_gradient_and_no_controls():
    model = tiny.build()
    tiny.logged(model)
    seen = []
    model.observer = seen.append
    model.training_step(tiny.batch(("GENE0", tiny.CONTROL, "GENE3")), 0)
    (observation,) = seen
    assert (list(observation.queries), list(observation.places)) == (["GENE0", "GENE3"], [0, 2])
    assert not observation.weights.requires_grad
    assert not observation.scores.requires_grad


def test_a_batch_of_controls_shows_nothing():
    model = tiny.build()
    tiny.logged(model)
    seen = []
    model.observer = seen.append
    model.training_step(tiny.batch((tiny.CONTROL, tiny.CONTROL)), 0)
    assert seen[0].is_empty
