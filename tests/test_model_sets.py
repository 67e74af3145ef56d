"""Which sets are retrieved for: perturbed ones; controls and names that cannot be placed are told apart."""

import pytest
import torch

from state_rag.errors import StateRagError
from state_rag.model import RagStateTransition
from state_rag.retrieval.knowledge import Knowledge
from tests import tiny_model as tiny

CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def traced(mode, base=None, controls=(), **changes):
    """A model in evaluation mode and the list that its traces go to."""
    traces = []
    bound = RagStateTransition.bound_to(
        tiny.knowledge() if base is None else base,
        controls=controls,
        trace_sink=lambda batch, output, trace: traces.append(trace),
    )
    torch.manual_seed(0)
    return bound(**{**tiny.FLAGS[mode], **tiny.arguments(**changes)}).eval(), traces


@pytest.mark.parametrize("mode", tiny.MODES)
def test_a_controls_input_is_the_encoded_zero_vector_plus_its_cells(mode):
    model, seen, batch = tiny.build(mode).eval(), {}, tiny.batch(["GENE1", tiny.CONTROL])
    tiny.watch_transformer_input(model, seen)
    model(batch)
    cells = model.basal_encoder(batch["ctrl_cell_emb"].view(2, tiny.CELLS, -1)[1])
    torch.testing.assert_close(seen["input"][1], cells + model.pert_encoder(torch.zeros(tiny.WIDTH)), **CLOSE)


@pytest.mark.parametrize("mode", tiny.RETRIEVING)
def test_controls_are_neither_retrieved_for_nor_retrieved(mode):
    model, traces = traced(mode)
    model.predict_step(tiny.batch(["GENE1", tiny.CONTROL, "GENE2"]), 0)
    (trace,) = traces
    assert trace.queries == ("GENE1", "GENE2")
    assert trace.weights.shape == (2, tiny.CELLS, 3)
    assert all(tiny.CONTROL not in row and len(set(row)) == 3 for row in trace.candidates)


@pytest.mark.parametrize("mode", tiny.RETRIEVING)
def test_no_set_retrieves_its_own_perturbation(mode):
    model, traces = traced(mode)
    model.predict_step(tiny.batch(tiny.names()), 0)
    assert all(query not in row for query, row in zip(traces[0].queries, traces[0].candidates, strict=True))


@pytest.mark.parametrize("mode", tiny.RETRIEVING)
def test_a_control_that_has_an_embedding_is_a_control_all_the_same(mode):
    model, traces = traced(mode, controls=["GENE5"])
    batch = tiny.batch(["GENE5", "GENE1"])
    output = model.predict_step(batch, 0)["preds"]
    assert traces[0].queries == ("GENE1",)
    as_control = {**batch, "pert_name": [tiny.CONTROL] * tiny.CELLS + ["GENE1"] * tiny.CELLS}
    assert torch.equal(model(as_control), output)


@pytest.mark.parametrize("mode", tiny.RETRIEVING)
def test_rows_that_may_only_ask_are_retrieved_for_but_never_retrieved(mode):
    base = tiny.knowledge()
    base = base.with_queries(["NEW"], {"text": base.block("text")[:1] + 1e-3})
    model, traces = traced(mode, base)
    model.predict_step(tiny.batch(["NEW", "GENE0", "GENE1"]), 0)
    assert traces[0].queries == ("NEW", "GENE0", "GENE1")
    assert traces[0].candidates[0][0] == "GENE0"
    assert all("NEW" not in row for row in traces[0].candidates)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("mode", tiny.MODES)
def test_a_mixed_batch_equals_its_controls_and_perturbed_sets_apart(mode, training):
    batch = tiny.batch([tiny.CONTROL, "GENE1", "GENE2", tiny.CONTROL, "GENE7"])
    outputs = []
    for chosen in (range(5), [0, 3], [1, 2, 4]):
        model = tiny.build(mode).train(training)
        torch.manual_seed(0)
        outputs.append(model(tiny.part(batch, chosen)).view(len(chosen), tiny.CELLS, -1))
    whole, controls, perturbed = outputs
    torch.testing.assert_close(whole[[0, 3]], controls, **CLOSE)
    torch.testing.assert_close(whole[[1, 2, 4]], perturbed, **CLOSE)


def test_statistics_and_mean_inclusion_are_over_retrieved_sets_only():
    batch, found = tiny.batch([tiny.CONTROL, "GENE1", "GENE2", tiny.CONTROL]), []
    for chosen in (range(4), [1, 2]):
        model = tiny.build()
        seen = tiny.logged(model)
        torch.manual_seed(0)
        model.training_step(tiny.part(batch, chosen), 0)
        found.append((seen["train/gumbel_sparsity"], seen["train/gumbel_active_ratio"], model.selector.score_std))
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("mode", tiny.RETRIEVING)
def test_a_batch_of_controls_gives_every_parameter_a_gradient_and_the_retriever_a_zero_one(mode):
    model = tiny.build(mode)
    seen = tiny.logged(model)
    loss = model.training_step(tiny.batch([tiny.CONTROL] * 2), 0)
    loss.backward()
    if mode == "differentiable":
        assert float(seen["train/gumbel_sparsity"]) == 0
        assert float(seen["train/gumbel_active_ratio"]) == 0
        assert int(model.selector.score_batches) == 0
    assert torch.equal(loss, seen["train_loss"])
    wanted = {name: value.grad for name, value in model.named_parameters() if value.requires_grad}
    assert not [name for name, grad in wanted.items() if grad is None]
    retriever = [grad for name, grad in wanted.items() if name.split(".")[0] in ("selector", "attention", "hidden")]
    assert retriever
    assert all(not grad.any() for grad in retriever)
    assert wanted["pert_encoder.0.bias"].any()


@pytest.mark.parametrize("mode", tiny.RETRIEVING)
def test_a_batch_of_controls_leaves_an_empty_trace(mode):
    model, traces = traced(mode)
    model.predict_step(tiny.batch([tiny.CONTROL]), 0)
    assert traces[0].queries == ()
    assert list(traces[0].cells()) == []


@pytest.mark.parametrize("length", [1, 2, tiny.CELLS, 11])
@pytest.mark.parametrize("mode", tiny.MODES)
def test_an_unpadded_batch_is_one_set_of_any_length(mode, length):
    model, batch = tiny.build(mode).eval(), tiny.batch(["GENE2"], cells=length)
    assert model(batch, padded=False).shape == (length, tiny.GENES)
    if length == tiny.CELLS:
        assert torch.equal(model(batch, padded=False), model(batch))
    tiny.logged(model)
    loss = model.train().training_step(batch, 0, padded=False)
    loss.backward()
    assert loss.isfinite()
    assert model.test_step(batch, 0) is None


@pytest.mark.parametrize("mode", tiny.MODES)
def test_a_set_that_mixes_perturbations_is_refused(mode):
    batch = tiny.batch(["GENE1", "GENE2"])
    batch["pert_name"][2] = "GENE3"
    with pytest.raises(StateRagError, match=r"mixes perturbations \(GENE1, GENE3\)"):
        tiny.build(mode)(batch)
    with pytest.raises(StateRagError, match="mixes perturbations"):
        tiny.build(mode)(tiny.batch(["GENE1", "GENE2"]), padded=False)


@pytest.mark.parametrize("mode", tiny.MODES)
def test_an_unknown_name_is_refused_with_close_spellings(mode):
    base = Knowledge(["WARS", "HARS", "TP53", "GATA1"], {"text": torch.randn(4, tiny.WIDTH)})
    with pytest.raises(
        StateRagError, match=r"No embedding for perturbation 'WARS1'.*close spellings: WARS1 -> WARS"
    ) as error:
        tiny.build(mode, base)(tiny.batch(["TP53", "WARS1"]))
    assert "TP53" not in str(error.value)


def test_a_model_without_knowledge_says_where_to_get_it():
    model = RagStateTransition(**tiny.FLAGS["differentiable"], **tiny.arguments())
    with pytest.raises(StateRagError, match="no knowledge base"):
        model(tiny.batch())


def test_embeddings_of_another_width_are_refused():
    model = tiny.build()
    with pytest.raises(StateRagError, match="7 wide, but this model was built for 10"):
        model.set_knowledge(tiny.knowledge(width=7))
    assert model.knowledge.width() == tiny.WIDTH


@pytest.mark.parametrize("mode", tiny.RETRIEVING)
def test_more_candidates_than_other_perturbations_are_refused_when_the_model_is_built(mode):
    with pytest.raises(StateRagError, match="training.topk_rag=3 exceeds the 2 other perturbations"):
        tiny.build(mode, tiny.knowledge(3))


@pytest.mark.parametrize("mode", tiny.MODES)
def test_a_batch_as_infer_makes_them_predicts_too(mode):
    """`state tx infer` passes no targets and no cell types."""
    model, batch = tiny.build(mode, batch_encoder=True, batch_dim=tiny.BATCHES).eval(), tiny.batch(["GENE1"], cells=4)
    bare = {key: batch[key] for key in ("ctrl_cell_emb", "pert_emb", "pert_name", "batch")}
    output = model.predict_step(bare, 0, padded=False)
    assert torch.equal(output["preds"], model(batch, padded=False))
    assert output["pert_cell_emb"] is None


def test_one_hot_and_numbered_batches_are_alike():
    model, batch = tiny.build(batch_encoder=True, batch_dim=tiny.BATCHES).eval(), tiny.batch()
    one_hot = torch.nn.functional.one_hot(batch["batch"], tiny.BATCHES).float()
    assert torch.equal(model({**batch, "batch": one_hot}), model(batch))
