"""Our model on another device than the CPU: the same numbers, and no waiting for the device that STATE does not do."""

import numpy as np
import pytest
import torch

from tests import pretend_gpu
from tests import tiny_model as tiny

RECOMMENDED = {"rag_query_dropout": 0.25, "rag_score_similarity": True, "rag_fusion": "residual"}
METHODS = [*tiny.MODES, "recommended"]
RETRIEVING = [*tiny.RETRIEVING, "recommended"]


def build(method, **changes):
    if method == "state":
        return tiny.upstream()
    if method == "recommended":
        return tiny.build("differentiable", **RECOMMENDED, **changes)
    return tiny.build(method, **changes)


def on_device(device, method, **changes):
    """A model of ours, or STATE's, and a batch, on a device."""
    model = build(method, **changes)
    batch = tiny.batch()
    if method == "state":
        batch["pert_emb"] = torch.zeros(len(batch["pert_name"]), tiny.WIDTH)
    sent = {key: value.to(device) if isinstance(value, torch.Tensor) else value for key, value in batch.items()}
    tiny.logged(model)
    return model.to(device), sent


def train(device, method, dropout):
    """Loss and gradients of one step, as NumPy arrays, and where the host waited."""
    model, batch = on_device(device, method, dropout=dropout)
    torch.manual_seed(1)
    with pretend_gpu.waits_counted() as waits:
        loss = model.training_step(batch, 0)
        loss.backward()
    gradients = {name: value.grad.cpu().numpy() for name, value in model.named_parameters() if value.grad is not None}
    return loss.item(), gradients, waits


def predict(device, method):
    model, batch = on_device(device, method)
    traces = []
    type(model).trace_sink = staticmethod(lambda batch, output, trace: traces.append(trace))
    with torch.no_grad():
        output = model.eval().predict_step(batch, 0)
    return output["preds"].cpu().numpy(), [(trace.candidates, trace.weights) for trace in traces]


def retrieve(device, method):
    model, batch = on_device(device, method)
    seen = model.eval().retrieve_for(["GENE1", "GENE2"], batch["ctrl_cell_emb"][: tiny.CELLS])
    return seen.rows.tolist(), seen.weights.cpu().numpy()


@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("method", METHODS)
def test_a_training_step_gives_the_same_loss_and_gradients(on_pretend_gpu, method, dropout):
    loss, gradients, _ = train("cpu", method, dropout)
    loss_there, gradients_there, _ = on_pretend_gpu(train, "pretend", method, dropout)
    assert loss_there == pytest.approx(loss, rel=1e-3)
    assert gradients_there.keys() == gradients.keys()
    largest = max(np.abs(gradient).max() for gradient in gradients.values())
    for name, gradient in gradients.items():
        np.testing.assert_allclose(gradients_there[name], gradient, rtol=1e-2, atol=1e-3 * largest, err_msg=name)


@pytest.mark.parametrize("method", METHODS)
def test_a_prediction_and_its_trace_are_the_same(on_pretend_gpu, method):
    predicted, traces = predict("cpu", method)
    predicted_there, traces_there = on_pretend_gpu(predict, "pretend", method)
    np.testing.assert_allclose(predicted_there, predicted, rtol=1e-3, atol=1e-4)
    assert len(traces_there) == len(traces) == (method in RETRIEVING)
    for (names_there, weights_there), (names, weights) in zip(traces_there, traces, strict=True):
        assert names_there == names
        np.testing.assert_allclose(weights_there, weights, rtol=1e-3, atol=1e-4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize("method", METHODS)
def test_a_prediction_on_a_gpu_is_the_same(method):
    np.testing.assert_allclose(predict("cuda", method)[0], predict("cpu", method)[0], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("method", RETRIEVING)
def test_what_would_be_retrieved_is_the_same(on_pretend_gpu, method):
    rows, weights = retrieve("cpu", method)
    rows_there, weights_there = on_pretend_gpu(retrieve, "pretend", method)
    assert rows_there == rows
    np.testing.assert_allclose(weights_there, weights, rtol=1e-3, atol=1e-4)


def waits_of_ours(waits):
    return [wait for wait in waits if wait.startswith("state_rag/")]


@pytest.mark.parametrize("method", ["genept", "vanilla", "differentiable", "recommended"])
def test_a_training_step_waits_for_the_device_no_more_often_than_states(on_pretend_gpu, method):
    _, _, of_state = on_pretend_gpu(train, "pretend", "state", 0.1)
    _, _, waits = on_pretend_gpu(train, "pretend", method, 0.1)
    assert waits_of_ours(waits) == []
    assert len(waits) == len(of_state)


def test_hidden_space_retrieval_waits_once_to_learn_which_candidates_are_distinct(on_pretend_gpu):
    _, _, waits = on_pretend_gpu(train, "pretend", "hidden", 0.1)
    assert len(waits_of_ours(waits)) == 1
    assert "neighbours.py" in waits_of_ours(waits)[0]
