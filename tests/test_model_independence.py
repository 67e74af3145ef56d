"""A prediction is a function of its own set: not of batch-mates, of cell order, or of chance."""

import pytest
import torch

from tests import tiny_model as tiny

SETS = ["GENE0", "GENE3", tiny.CONTROL, "GENE5", "GENE0"]
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def trained(mode, **changes):
    """A model after some steps, so that its running statistics have moved, in evaluation mode."""
    model = tiny.build(mode, **changes)
    tiny.logged(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for step in range(5):
        optimizer.zero_grad()
        model.training_step(tiny.batch(SETS, seed=step), step).backward()
        optimizer.step()
    return model.eval()


@pytest.mark.parametrize("mode", tiny.MODES)
def test_a_sets_prediction_does_not_depend_on_the_other_sets_of_its_batch(mode):
    model, batch = trained(mode), tiny.batch(SETS)
    whole = model(batch).view(len(SETS), tiny.CELLS, -1)
    for number in range(len(SETS)):
        torch.testing.assert_close(model(tiny.part(batch, [number])), whole[number], **CLOSE)
    backwards = range(len(SETS) - 1, -1, -1)
    torch.testing.assert_close(
        model(tiny.part(batch, backwards)).view_as(whole), whole[torch.tensor(backwards)], **CLOSE
    )


@pytest.mark.parametrize("mode", tiny.MODES)
def test_with_bidirectional_attention_the_order_of_cells_does_not_matter(mode):
    model, batch = trained(mode), tiny.batch(SETS)
    order = torch.randperm(tiny.CELLS)
    shuffled = {**batch, "ctrl_cell_emb": batch["ctrl_cell_emb"].view(5, tiny.CELLS, -1)[:, order].reshape(30, -1)}
    expected = model(batch).view(5, tiny.CELLS, -1)[:, order]
    torch.testing.assert_close(model(shuffled).view_as(expected), expected, **CLOSE)


@pytest.mark.parametrize("mode", tiny.MODES)
def test_two_evaluations_agree_exactly(mode):
    model, batch = trained(mode, n_encoder_layers=2, dropout=0.2), tiny.batch(SETS)
    first, state = model(batch), {key: value.clone() for key, value in model.state_dict().items()}
    assert torch.equal(model(batch), first)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


def test_under_score_scale_batch_a_set_depends_on_its_batch_mates_which_is_why_running_is_the_default():
    model, batch = trained("differentiable", rag_score_scale="batch"), tiny.batch(SETS)
    alone, whole = model(tiny.part(batch, [0])), model(batch)[: tiny.CELLS]
    assert float((alone - whole).abs().max()) > 1e-3
    assert tiny.build().settings.rag_score_scale == "running"


def test_sampled_inference_varies_from_run_to_run_and_repeats_with_its_seed():
    model, batch = trained("differentiable", rag_inference="sample"), tiny.batch(SETS)
    first = [model(batch) for _ in range(4) if torch.manual_seed(1) is not None]
    assert all(torch.equal(output, first[0]) for output in first)
    assert any(not torch.equal(model(batch), first[0]) for _ in range(4))


def test_evaluation_divides_scores_by_the_running_average_that_training_left():
    model, seen = trained("differentiable"), {}
    assert int(model.selector.score_batches) == 5
    assert float(model.selector.score_std) != 1
    model.selector.register_forward_hook(lambda module, inputs, output: seen.update(selection=output))
    model(tiny.batch(SETS))
    scaled = seen["selection"].scores
    model.selector.score_std.mul_(2)
    model(tiny.batch(SETS))
    torch.testing.assert_close(seen["selection"].scores * 2, scaled)


@pytest.mark.parametrize("mode", tiny.RETRIEVING)
def test_two_models_of_one_bound_class_do_not_share_their_knowledge(mode):
    base = tiny.knowledge()
    first, second = tiny.build(mode, base), None
    bound = type(first)
    second = bound(**{**tiny.FLAGS[mode], **tiny.arguments()})
    first.double()
    assert second.knowledge.block("text").dtype == torch.float32
    assert base.block("text").dtype == torch.float32
