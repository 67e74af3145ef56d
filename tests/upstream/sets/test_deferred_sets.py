"""Sets that `tx infer` asks for one by one are predicted later, and take the place of the zeros that it was given."""

import anndata
import numpy as np
import pytest
import torch

from state_rag.upstream.sets import deferred_sets
from state_rag.upstream.sets.deferred_sets import DeferredSets
from state_rag.upstream.sets.grouped_sets import DECODED, keep_trace
from tests import tiny_model as tiny

NAMES = ["GENE0", "GENE3", tiny.CONTROL, "GENE5", "GENE0"]
SIZES = [6, 4, 6, 6, 1]
ROWS = np.random.default_rng(0).permutation(sum(SIZES))


def asked_for():
    """The batches that the command makes, which say less than a loader's."""
    for number, (name, size) in enumerate(zip(NAMES, SIZES, strict=True)):
        batch = tiny.batch([name], cells=size, seed=number)
        yield {key: batch[key] for key in ("ctrl_cell_emb", "pert_emb", "pert_name", "batch")}


def infer(model, deferred, width=tiny.GENES):
    """Ask for every set and write it to its rows, as the command does; return what it would write."""
    result, start = anndata.AnnData(np.full((sum(SIZES), width), -7, np.float32)), 0
    with deferred, torch.no_grad():
        bound = deferred.deferring(type(model))
        model.__class__ = bound
        for batch in asked_for():
            preds = model.predict_step(batch, batch_idx=0, padded=False)["preds"]
            result.X[ROWS[start : start + len(preds)]] = preds.numpy()
            start += len(preds)
        deferred.fill(result, ROWS, "X", None, clipped=True)
    return result.X


@pytest.mark.parametrize("mode", tiny.MODES)
@pytest.mark.parametrize("window", [1, 2**25])
def test_every_row_gets_what_its_set_gets_alone(mode, window, monkeypatch):
    monkeypatch.setattr(deferred_sets, "WINDOW_BYTES", window)
    model = tiny.build(mode).eval()
    with torch.no_grad():
        alone = torch.cat([model.predict_step(batch, 0, padded=False)["preds"] for batch in asked_for()])
    assert float(alone.abs().max()) > 1e-3
    found = infer(model, DeferredSets(decoded=False, about=dict))
    np.testing.assert_allclose(found[ROWS], alone.clamp(0, 14).numpy(), atol=1e-5)


def test_zeros_have_the_shapes_of_the_answer():
    decoder = {"latent_dim": tiny.GENES, "gene_dim": 9, "hidden_dims": [8], "dropout": 0.0}
    model = tiny.build("genept", embed_key="X_pca", gene_decoder_bool=True, decoder_cfg=decoder).eval()
    answer = DeferredSets(decoded=True, about=dict).put_off(model, next(asked_for()))
    assert answer["preds"].shape == (6, tiny.GENES)
    assert answer[DECODED].shape == (6, 9)


def test_draws_by_chance_are_not_put_off():
    model = tiny.build(rag_inference="sample").eval()
    type(model).trace_sink, seen = staticmethod(keep_trace), []
    torch.manual_seed(0)
    with torch.no_grad():
        alone = torch.cat([model.predict_step(batch, 0, padded=False)["preds"] for batch in asked_for()])
    torch.manual_seed(0)
    deferred = DeferredSets(decoded=False, about=dict, trace_sink=lambda batch, output, trace: seen.append(trace))
    found = infer(model, deferred)
    np.testing.assert_allclose(found[ROWS], alone.numpy(), atol=1e-5)
    assert len(seen) == len(NAMES)


def test_what_was_retrieved_is_told_with_what_the_set_was_about():
    model, seen, number = tiny.build().eval(), [], iter(range(100))
    type(model).trace_sink = staticmethod(keep_trace)

    def told(batch, output, trace):
        seen.append((batch["draw"][0], batch["pert_name"][0], trace.queries))

    infer(model, DeferredSets(decoded=False, about=lambda: {"draw": next(number)}, trace_sink=told))
    expected = [(n, name, () if name == tiny.CONTROL else (name,)) for n, name in enumerate(NAMES)]
    assert seen == expected
