import contextlib
import io
from dataclasses import replace

import numpy as np
import pytest
import torch

from state_rag.model import RagStateTransition
from state_rag.upstream.ablation import switching_off
from state_rag.upstream.ablation.switching_off import LastTrace, Space, switch_off_each, weights_times
from tests import tiny_model as tiny

K = 3


def model_of(mode, last, **changes):
    torch.manual_seed(0)
    bound = RagStateTransition.bound_to(tiny.knowledge(), trace_sink=last)
    with contextlib.redirect_stdout(io.StringIO()):
        model = bound(**{**tiny.FLAGS[mode], **tiny.arguments(**changes)}).eval()
    torch.nn.init.normal_(model.pert_encoder[0].weight)
    return model


def one_set(cells):
    return tiny.batch(["GENE3"], cells=cells)


def explicit(model, batch, keep):
    """One forward pass of one set, with the context put together by hand."""
    retriever = model.retriever

    def values(cells, query, base, found):
        """What each candidate brings to each cell, [S, K, H]."""
        embeddings = base.knowledge.rows(found.candidates[0])
        if model.settings.mode == "differentiable":
            rows = base.encode(embeddings)
            parts = [
                [retriever.project(retriever.norm(torch.cat([c, query[0], row]))) for row in rows] for c in cells[0]
            ]
            return torch.stack([torch.stack(part) for part in parts])
        if model.settings.mode == "vanilla":
            return retriever.value(retriever.project(embeddings)).expand(len(cells[0]), -1, -1)
        return retriever.attention.value(base.encode(embeddings)).expand(len(cells[0]), -1, -1)

    def by_hand(module, given, output):
        cells, query, _, base = given
        context = (output.weights[0] * keep)[..., None] * values(cells, query, base, output)
        return replace(output, context=context.sum(1)[None])

    handle = retriever.register_forward_hook(by_hand)
    try:
        with torch.no_grad():
            return model(batch, padded=False).double().sum(0).numpy()
    finally:
        handle.remove()


@pytest.mark.parametrize("mode", tiny.RETRIEVING)
@pytest.mark.parametrize("cells", [tiny.CELLS, 4])
def test_every_variant_is_a_forward_pass_with_that_weight_at_zero(mode, cells):
    last = LastTrace()
    model, batch = model_of(mode, last), one_set(cells)
    found = switch_off_each(model, batch, last)
    assert found.candidates == tuple(last.trace.candidates[0])
    assert "GENE3" not in found.candidates
    variants = [(found.whole, [1, 1, 1]), (found.without_any, [0, 0, 0])]
    variants += [(found.without_one[k], [float(k != other) for other in range(K)]) for k in range(K)]
    for mine, keep in variants:
        expected = explicit(model, batch, torch.tensor(keep))
        np.testing.assert_allclose(mine, expected, rtol=1e-4, atol=1e-4)
    assert np.abs(found.without_one - found.whole).max() > 1e-2


def switched_off_on(device, mode):
    last = LastTrace()
    found = switch_off_each(model_of(mode, last).to(device), one_set(tiny.CELLS), last)
    return found.whole, found.without_one, found.without_any, found.inclusion


@pytest.mark.parametrize("mode", tiny.RETRIEVING)
def test_another_device_gives_the_same_variants(on_pretend_gpu, mode):
    for there, here in zip(on_pretend_gpu(switched_off_on, "pretend", mode), switched_off_on("cpu", mode), strict=True):
        np.testing.assert_allclose(there, here, rtol=1e-3, atol=1e-4)


def test_a_neighbour_that_nobody_includes_changes_nothing(monkeypatch):
    last = LastTrace()
    model = model_of("differentiable", last)
    gate = model.selector._gate

    def never_the_second(scores, noise):
        include = gate(scores, noise).clone()
        include[..., 1] = 0
        return include

    monkeypatch.setattr(model.selector, "_gate", never_the_second)
    found = switch_off_each(model, one_set(tiny.CELLS), last)
    assert found.inclusion[1] == 0
    np.testing.assert_array_equal(found.without_one[1], found.whole)
    assert (found.without_one[0] != found.whole).any()


def test_the_size_of_the_groups_that_go_through_the_model_changes_nothing(monkeypatch):
    last = LastTrace()
    model, batch = model_of("differentiable", last), one_set(tiny.CELLS)
    together = switch_off_each(model, batch, last)
    monkeypatch.setattr(switching_off, "OUTPUT_ELEMENTS", 1)
    singly = switch_off_each(model, batch, last)
    np.testing.assert_allclose(singly.without_one, together.without_one, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(singly.without_any, together.without_any, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(singly.inclusion, together.inclusion, rtol=1e-5)


def test_switching_off_leaves_the_model_as_it_was():
    last = LastTrace()
    model, batch = model_of("vanilla", last), one_set(tiny.CELLS)
    with torch.no_grad():
        before = model(batch)
        with contextlib.suppress(KeyboardInterrupt), weights_times(model, torch.zeros(1, K)):
            assert not torch.equal(model(batch), before)
            raise KeyboardInterrupt
        assert torch.equal(model(batch), before)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"embed_key": "X_hvg", "output_space": "gene"}, Space()),
        ({"embed_key": "X_state", "output_space": "gene"}, Space("pert_cell_counts_preds", "pert_cell_counts")),
        ({"embed_key": "X_hvg", "output_space": "all"}, Space("pert_cell_counts_preds", "pert_cell_counts")),
        ({"embed_key": None, "output_space": "all"}, Space()),
        ({"embed_key": "X_state", "output_space": "embedding"}, Space(clip=False)),
    ],
)
def test_the_values_compared_are_those_that_upstream_writes(data, expected):
    assert Space.of(data) == expected
