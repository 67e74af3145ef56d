import contextlib
import io
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from state_rag.analysis.ablation import ALL, ablation_table
from state_rag.datasets.splitting.split_toml import read_split
from state_rag.errors import StateRagError
from state_rag.model import RagStateTransition
from state_rag.upstream import ablate
from state_rag.upstream.ablate import LastTrace, Space, ablate_run, made_with, switch_off_each, weights_times
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
    monkeypatch.setattr(ablate, "OUTPUT_ELEMENTS", 1)
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


@pytest.mark.slow
def test_a_trained_run_is_ablated_from_its_checkpoint(ptrag, project):
    parts = read_split(project.split).fewshot.values()
    tested = sorted(name for part in parts for name in part["test"])
    done = ablate_run(ptrag / "ptrag", tested[:2], progress=False)
    assert [(one.cell_line, one.perturbation) for one in done] == [("hepg2", name) for name in tested[:2]]
    table = ablation_table(done)
    assert len(table) == 2 * (8 + 1)
    assert set(table["cells"]) == {16}
    assert (table.loc[table["neighbour"] == ALL, "change"] > 0).all()
    again = ablation_table(ablate_run(ptrag / "ptrag", tested[:2], progress=False))
    pd.testing.assert_frame_equal(table, again)
    few = ablate_run(ptrag / "ptrag", at_most=3, progress=False)
    assert len(few) == 3
    alone = ablation_table(ablate_run(ptrag / "ptrag", [few[2].perturbation], progress=False))
    pd.testing.assert_frame_equal(alone, ablation_table(few[2:]), check_exact=True)
    with pytest.raises(StateRagError, match=f"--gene {tested[0].lower()}: .*close spellings: .* -> {tested[0]}"):
        ablate_run(ptrag / "ptrag", [tested[0].lower()], progress=False)
    with pytest.raises(StateRagError, match="--ablate-at-most 0"):
        ablate_run(ptrag / "ptrag", at_most=0, progress=False)
    with pytest.raises(StateRagError, match="--gene NOSUCH: not among the .* test perturbations"):
        ablate_run(ptrag / "ptrag", ["NOSUCH"], progress=False)


@pytest.mark.slow
def test_what_ablations_depend_on_is_told_by_content_so_that_a_run_may_move(ptrag, run_copy, project, tmp_path):
    here, there = made_with(ptrag / "ptrag"), made_with(run_copy)
    assert here == there
    toml = tmp_path / "other.toml"
    toml.write_text(project.split.read_text() + "# another\n")
    other = made_with(run_copy, toml=str(toml))
    assert {key for key in here if here[key] != other[key]} == {"split file"}


def test_a_run_without_retrieval_has_no_neighbours_to_switch_off(tmp_path):
    (tmp_path / "config.yaml").write_text("data: {kwargs: {}}\ntraining: {use_genept: true}\n")
    with pytest.raises(StateRagError, match="does not retrieve"):
        ablate_run(tmp_path)
