"""Sets predicted many at a time are what they are one at a time, in their order."""

import numpy as np
import pytest
import torch

from state_rag.retrieval.trace import RetrievalTrace
from state_rag.upstream.sets.grouped_loader import Sets
from state_rag.upstream.sets.grouped_sets import CELLS_A_PASS, GroupedSets, keep_trace, keeps_decoded
from tests import tiny_model as tiny

NAMES = ["GENE0", "GENE3", tiny.CONTROL, "GENE5", "GENE0", tiny.CONTROL, "GENE7"]
SIZES = [6, 3, 6, 6, 3, 2, 6]


def some_sets(seed=0):
    """Sets of unequal length, of several perturbations, as the loader hands them over."""
    parts = [
        tiny.batch([name], cells=size, seed=seed + n) for n, (name, size) in enumerate(zip(NAMES, SIZES, strict=True))
    ]
    batch = {
        key: torch.cat([part[key] for part in parts])
        if isinstance(value, torch.Tensor)
        else [x for part in parts for x in part[key]]
        for key, value in parts[0].items()
        if key != "pert_emb"
    }
    return Sets({**batch, "batch_name": ["one"] * sum(SIZES)}, SIZES), parts


def alone(model, parts):
    """What STATE's loop would get: every set in a pass of its own."""
    with torch.no_grad():
        return [model.predict_step(part, 0, padded=False)["preds"] for part in parts]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("mode", tiny.MODES)
def test_a_group_gives_what_its_sets_give_one_by_one_and_in_their_order(mode, threads, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    model = tiny.build(mode, batch_encoder=True, batch_dim=tiny.BATCHES).eval()
    sets, parts = some_sets()
    with GroupedSets() as group:
        output = group.predict(model, sets)
    torch.testing.assert_close(output["preds"], torch.cat(alone(model, parts)), rtol=0, atol=1e-5)
    assert output["pert_name"] == [name for name, size in zip(NAMES, SIZES, strict=True) for _ in range(size)]
    assert torch.equal(output["pert_cell_emb"], sets.batch["pert_cell_emb"])


def test_small_passes_and_large_ones_agree(monkeypatch):
    model, (sets, _) = tiny.build().eval(), some_sets()
    found = []
    for cells in (1, 12, 1024):
        monkeypatch.setitem(CELLS_A_PASS, "cpu", cells)
        with GroupedSets() as group:
            found.append(group.predict(model, sets)["preds"])
    torch.testing.assert_close(found[1], found[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(found[2], found[0], rtol=0, atol=1e-5)


def test_draws_by_chance_are_those_of_one_set_after_the_other():
    model = tiny.build(rag_inference="sample").eval()
    assert not model.sets_are_independent
    sets, parts = some_sets()
    torch.manual_seed(3)
    expected = torch.cat(alone(model, parts))
    torch.manual_seed(3)
    with GroupedSets() as group:
        output = group.predict(model, sets)
    torch.testing.assert_close(output["preds"], expected, rtol=0, atol=1e-5)
    assert not torch.equal(torch.cat(alone(model, parts)), expected), "the test could not fail"


@pytest.mark.parametrize("changes", [{"rag_score_scale": "batch"}, {"confidence_token": True}])
def test_what_depends_on_the_batch_is_predicted_set_by_set(changes):
    model = tiny.build(**changes).eval()
    assert not model.sets_are_independent
    sets, parts = some_sets()
    with GroupedSets() as group:
        output = group.predict(model, sets)
    torch.testing.assert_close(output["preds"], torch.cat(alone(model, parts)), rtol=0, atol=1e-5)


def test_what_was_retrieved_is_told_for_each_set_in_order():
    model, seen = tiny.build(), []
    type(model).trace_sink = staticmethod(keep_trace)
    sets, parts = some_sets()
    group = GroupedSets()
    group.trace_sink = lambda batch, output, trace: seen.append((batch, output, trace))
    with group:
        output = group.predict(model.eval(), sets)
    assert [batch["pert_name"][0] for batch, _, _ in seen] == NAMES
    start = 0
    for (batch, own, trace), part, size in zip(seen, parts, SIZES, strict=True):
        with torch.no_grad():
            model.predict_step(part, 0, padded=False)
        expected: RetrievalTrace = part["trace"]
        assert trace.queries == expected.queries
        assert trace.candidates == expected.candidates
        np.testing.assert_allclose(trace.weights, expected.weights, atol=1e-5)
        assert torch.equal(own["preds"], output["preds"][start : start + size])
        assert torch.equal(batch["ctrl_cell_emb"], part["ctrl_cell_emb"])
        start += size


def test_where_cells_are_taken_state_gets_none_and_everything_comes_once_in_order():
    model, taken = tiny.build().eval(), []
    windows = [some_sets(seed=seed)[0] for seed in (0, 10, 20)]
    with GroupedSets(taken.append) as group:
        answers = [group.predict(model, sets) for sets in windows]
        group.finish()
    assert [len(answer["preds"]) for answer in answers] == [0, 0, 0]
    assert [id(done.sets) for done in taken] == [id(sets) for sets in windows]


def test_threads_are_put_back_and_a_failing_pass_is_reported():
    before = torch.get_num_threads()
    model, (sets, _) = tiny.build().eval(), some_sets()
    sets.batch["pert_name"][0] = "GENE1"
    with pytest.raises(Exception, match="mixes perturbations"), GroupedSets() as group:
        group.predict(model, sets)
    assert torch.get_num_threads() == before


def test_decoded_genes_are_made_only_where_state_writes_them():
    assert keeps_decoded("X_pca", "gene")
    assert keeps_decoded("X_hvg", "all")
    assert not any([keeps_decoded("X_hvg", "gene"), keeps_decoded(None, "all"), keeps_decoded("X_pca", "embedding")])


def decoding(mode="genept"):
    """A model of an embedding space whose decoder makes 9 genes."""
    decoder = {"latent_dim": tiny.GENES, "gene_dim": 9, "hidden_dims": [8], "dropout": 0.0}
    model = tiny.build(mode, embed_key="X_pca", gene_decoder_bool=True, decoder_cfg=decoder)
    return model.eval()


@pytest.mark.parametrize("decoded", [True, False])
def test_predictions_in_an_embedding_keep_their_sign_with_and_without_decoding(decoded):
    model, (sets, parts) = decoding(), some_sets()
    with torch.no_grad():
        expected = [model.predict_step(part, 0, padded=False) for part in parts]
    with GroupedSets(decoded=decoded) as group:
        output = group.predict(model, sets)
    wanted = torch.cat([one["preds"] for one in expected])
    assert (wanted < 0).any()
    torch.testing.assert_close(output["preds"], wanted, rtol=0, atol=1e-5)
    assert ("pert_cell_counts_preds" in output) is decoded
    if decoded:
        genes = torch.cat([one["pert_cell_counts_preds"] for one in expected])
        torch.testing.assert_close(output["pert_cell_counts_preds"], genes, rtol=0, atol=1e-5)
        assert genes.shape[1] == 9
    assert model.gene_decoder is not None
