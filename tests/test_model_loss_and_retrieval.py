"""The sparsity loss, hidden-space retrieval, fusion, and the order of things in a step."""

import pytest
import torch

from state_rag.model import RagStateTransition
from tests import tiny_model as tiny


def watched(mode, **changes):
    """A model in evaluation mode and the inputs and outputs of what retrieves, one entry a call."""
    model, calls = tiny.build(mode, **changes).eval(), []
    model.retriever.register_forward_hook(lambda module, inputs, output: calls.append((inputs, output)))
    return model, calls


@pytest.mark.parametrize("weight", [0.1, 0.7])
def test_the_sparsity_weight_times_the_mean_inclusion_is_added_to_states_loss_exactly(weight):
    model, calls = watched("differentiable", gumbel_sparsity_weight=weight)
    seen = tiny.logged(model.train())
    loss = model.training_step(tiny.batch(), 0)
    include = calls[0][1].weights.detach()
    assert torch.equal(seen["train/gumbel_sparsity"], include.mean())
    assert torch.equal(seen["train/gumbel_active_ratio"], (include > 0.5).float().mean())
    assert torch.equal(loss, seen["train_loss"] + weight * seen["train/gumbel_sparsity"])


def test_without_the_sparsity_loss_its_value_is_logged_all_the_same():
    model = tiny.build(gumbel_sparsity_loss=False)
    seen = tiny.logged(model)
    assert torch.equal(model.training_step(tiny.batch(), 0), seen["train_loss"])
    assert 0 < float(seen["train/gumbel_sparsity"]) <= 1


@pytest.mark.parametrize("mode", ["genept", "vanilla", "hidden"])
def test_modes_without_a_selector_train_with_states_loss_alone(mode):
    model = tiny.build(mode)
    seen = tiny.logged(model)
    assert torch.equal(model.training_step(tiny.batch(), 0), seen["train_loss"])
    assert not [name for name in seen if "gumbel" in name]


def test_the_sparsity_weight_reaches_the_gradient_of_the_scorer():
    gradients = []
    for weight in (0.0, 1.0):
        model = tiny.build(gumbel_sparsity_weight=weight)
        tiny.logged(model)
        torch.manual_seed(0)
        model.training_step(tiny.batch(), 0).backward()
        gradients.append(model.selector.scorer_out.bias.grad)
    assert gradients[1][1] > gradients[0][1]  # descent lowers the logit of inclusion


def test_validation_between_steps_does_not_reach_the_next_loss():
    model = tiny.build()
    seen = tiny.logged(model)
    torch.manual_seed(0)
    expected = model.training_step(tiny.batch(), 0)
    model = tiny.build()
    seen = tiny.logged(model)
    model.eval().validation_step(tiny.batch(seed=3), 0)
    torch.manual_seed(0)
    assert torch.equal(model.train().training_step(tiny.batch(), 0), expected)
    assert "val_loss" in seen


def test_hidden_space_candidates_follow_the_current_weights_of_the_encoder():
    model, calls = watched("hidden", n_encoder_layers=2)
    batch = tiny.batch(tiny.names())
    model(batch)
    torch.nn.init.normal_(model.pert_encoder[0].weight)
    model(batch)
    before, after = (found.candidates for _, found in calls)
    assert not torch.equal(before, after)
    encoded = model.pert_encoder(model.knowledge.block("text")).double()
    cosine = torch.nn.functional.cosine_similarity(encoded[:, None], encoded[None], dim=-1)
    cosine.fill_diagonal_(-2)
    assert torch.equal(after.sort(-1).values, cosine.topk(3).indices.sort(-1).values)


def test_no_gradient_flows_to_the_encoded_base_and_its_dropout_is_off():
    model, calls = watched("hidden", n_encoder_layers=2, dropout=0.5)
    tiny.logged(model.train())
    model.training_step(tiny.batch(), 0)
    (_, query, _, base), _ = calls[0]
    encoded = base.encoded()
    assert not encoded.requires_grad
    assert query.requires_grad
    assert model.pert_encoder.training
    torch.testing.assert_close(encoded, model.eval().pert_encoder(model.knowledge.block("text")))


def test_text_candidates_do_not_change_with_the_weights():
    model, seen = tiny.build().eval(), []
    model.observer = seen.append
    model(tiny.batch())
    torch.nn.init.normal_(model.pert_encoder[0].weight)
    model(tiny.batch())
    assert torch.equal(seen[0].rows, seen[1].rows)


@pytest.mark.parametrize("mode", tiny.RETRIEVING)
def test_residual_fusion_adds_the_context_to_what_replace_leaves_out(mode):
    found, batch = {}, tiny.batch(["GENE0", "GENE3"])
    for fusion in ("replace", "residual"):
        model = tiny.build(mode, rag_fusion=fusion).eval()
        tiny.watch_transformer_input(model, found.setdefault(fusion, {}))
        model(batch)
    cells = model.basal_encoder(batch["ctrl_cell_emb"]).view(2, tiny.CELLS, -1)
    query = model.pert_encoder(model.knowledge.rows(torch.tensor([0, 3])))[:, None]
    expected = found["replace"]["input"] + cells + query
    torch.testing.assert_close(found["residual"]["input"], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mode", tiny.RETRIEVING)
def test_with_replace_the_context_is_the_transformers_whole_input(mode):
    (model, calls), seen = watched(mode), {}
    tiny.watch_transformer_input(model, seen)
    model(tiny.batch(["GENE0", "GENE3"]))
    torch.testing.assert_close(seen["input"], calls[0][1].context, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mode", tiny.RETRIEVING)
def test_retrieval_runs_in_prediction_as_in_training(mode):
    """Vanilla RAG was published with retrieval off at predict time."""
    model, batch = tiny.build(mode).eval(), tiny.batch(["GENE0", "GENE3"])
    plain = tiny.build("genept").eval()
    plain.load_state_dict(model.state_dict(), strict=False)
    assert float((model.predict_step(batch, 0)["preds"] - plain(batch)).abs().max()) > 1e-3


def test_a_trace_is_made_in_prediction_only_and_once_for_each_batch():
    traces = []
    bound = RagStateTransition.bound_to(
        tiny.knowledge(), trace_sink=lambda batch, output, trace: traces.append((batch["pert_name"][0], trace))
    )
    model = bound(**{**tiny.FLAGS["differentiable"], **tiny.arguments()})
    tiny.logged(model)
    model.training_step(tiny.batch(), 0)
    assert not traces
    model.eval()
    for name in ("GENE1", "GENE2"):
        model.predict_step(tiny.batch([name]), 0)
    assert [(first, trace.queries) for first, trace in traces] == [("GENE1", ("GENE1",)), ("GENE2", ("GENE2",))]
    assert traces[0][1].weights.shape == (1, tiny.CELLS, 3)
    assert ((traces[0][1].weights > 0) & (traces[0][1].weights < 1)).all()


def test_the_selector_follows_the_flags_and_states_dropout():
    selector = tiny.build(dropout=0.3, gumbel_temperature=0.7, rag_score_scale="none", rag_inference="argmax").selector
    assert (selector.dropout, selector.temperature) == (0.3, 0.7)
    assert (selector.score_scale, selector.inference) == ("none", "argmax")


@pytest.mark.parametrize("mode", tiny.RETRIEVING)
def test_query_dropout_leaves_the_perturbation_out_of_some_sets_of_a_training_step(mode):
    """What is added to the context shows which sets still see their own perturbation; some do, some do not."""
    model, calls, seen = tiny.build(mode, rag_query_dropout=0.5, rag_fusion="residual"), [], {}
    model.retriever.register_forward_hook(
        lambda module, inputs, kwargs, output: calls.append((kwargs, output)), with_kwargs=True
    )
    tiny.watch_transformer_input(model, seen)
    batch = tiny.batch([f"GENE{number}" for number in range(8)])
    cells = model.basal_encoder(batch["ctrl_cell_emb"]).view(8, tiny.CELLS, -1)
    query = model.pert_encoder(model.knowledge.rows(torch.arange(8)))[:, None]

    def shows_its_perturbation() -> list[bool]:
        model(batch)
        kwargs, output = calls[-1]
        added = seen["input"] - output.context
        with_it = [torch.allclose(added[k], (cells + query)[k], atol=1e-5) for k in range(8)]
        without = [torch.allclose(added[k], cells[k], atol=1e-5) for k in range(8)]
        assert with_it == [not left_out for left_out in without]
        if kwargs.get("told") is not None:
            assert kwargs["told"].bool().tolist() == with_it
        return with_it

    torch.manual_seed(1)
    assert 0 < sum(shows_its_perturbation()) < 8
    model.eval()
    assert all(shows_its_perturbation())
