import numpy as np
import pytest
import torch

from state_rag.anchor import Anchor, brought_to_mean
from state_rag.cells.anchored import scaled_to_mean
from state_rag.errors import StateRagError
from state_rag.evidence.estimator import Evidence
from state_rag.evidence.responses import Responses
from state_rag.evidence.training import Settings
from state_rag.model import RagStateTransition
from state_rag.upstream.sets.grouped_loader import Sets
from state_rag.upstream.sets.grouped_sets import CELLS_A_PASS, GroupedSets
from tests import tiny_model as tiny

QUICK = Settings(steps=2, episodes=4, judging=2, fusion_steps=2)


def responses(genes=6, names=("A", "B", "C", "D", "E")):
    rng = np.random.default_rng(0)
    labels = [(line, name) for line in ("k562", "rpe1") for name in names]
    controls = {line: rng.uniform(0.5, 2, genes) for line in ("k562", "rpe1")}
    effects = rng.normal(0, 0.3, (len(labels), genes))
    return Responses(effects, [line for line, _ in labels], [name for _, name in labels], controls=controls)


@pytest.fixture(scope="module")
def engine():
    return Evidence(QUICK).fit(responses())


@pytest.fixture
def cells():
    generator = torch.Generator().manual_seed(0)
    return torch.rand(3, 8, 6, generator=generator) * 2 - 0.3


def test_sets_are_scaled_as_cells_in_memory_are(cells):
    wanted = torch.rand(3, 6, generator=torch.Generator().manual_seed(1)) * 3
    found = brought_to_mean(cells, wanted)
    for one, mean, own in zip(found, wanted, cells, strict=True):
        assert np.allclose(one.numpy(), scaled_to_mean(own.clamp_min(0).numpy(), mean.numpy()), atol=1e-5)
    assert torch.allclose(found.mean(1), wanted, atol=1e-5)


def test_a_gene_that_no_cell_expresses_is_added_to_all_and_the_gradient_stays_finite():
    cells = torch.zeros(1, 4, 2, requires_grad=True)
    found = brought_to_mean(cells, torch.tensor([[0.5, 0.0]]))
    assert torch.allclose(found, torch.tensor([0.5, 0.0]).expand(1, 4, 2))
    found.square().sum().backward()
    assert torch.isfinite(cells.grad).all()


def test_means_are_the_controls_plus_the_predicted_effect(engine):
    anchor = Anchor(engine, "ctrl", expression=True)
    control = engine.responses.controls["k562"]
    assert np.allclose(anchor.mean("k562", "ctrl").numpy(), control, atol=1e-6)
    expected = control + engine.predict("k562", ["A"]).mean[0]
    assert np.allclose(anchor.mean("k562", "A").numpy(), expected, atol=1e-6)
    assert anchor.mean("hela", "A") is None


def test_conditions_that_were_foretold_are_not_solved_again(engine, cells, monkeypatch):
    alone = Anchor(engine, "ctrl", expression=True)
    given = (["k562", "rpe1", "hela"], ["new", "new", "A"], cells.abs())
    expected = alone.bring(cells, *given)
    anchor = Anchor(engine, "ctrl", expression=True)
    for context, name in zip(*given[:2], strict=True):
        assert anchor.foretell(context, [name]).trust is not None
    monkeypatch.setattr(Evidence, "predict", lambda *_, **__: pytest.fail("solved again"))
    assert torch.allclose(anchor.bring(cells, *given), expected, atol=1e-5)


def test_whoever_asked_for_it_is_given_the_anchor_of_a_checkpoint(anchored):
    checkpoint = {}
    anchored("predict").on_save_checkpoint(checkpoint)
    seen = []
    bound = RagStateTransition.bound_to(tiny.knowledge(), anchor_sink=seen.append)
    model = bound(**{**tiny.FLAGS["genept"], **tiny.arguments(), "rag_evidence": "predict"})
    assert not seen
    model.on_load_checkpoint(checkpoint)
    assert seen == [model.anchor]


def test_in_a_context_without_known_controls_the_effect_is_added_to_those_of_the_set(engine, cells):
    anchor = Anchor(engine, "ctrl", expression=False)
    controls = cells.abs()
    found = anchor.bring(cells, ["hela", "hela", "k562"], ["A", "ctrl", "A"], controls)
    effect = torch.from_numpy(engine.predict("hela", ["A"]).mean[0]).float()
    assert torch.allclose(found[0].mean(0), controls[0].mean(0) + effect, atol=1e-5)
    assert torch.allclose(found[1].mean(0), controls[1].mean(0), atol=1e-5)
    assert torch.allclose(found[2].mean(0), anchor.mean("k562", "A"), atol=1e-5)


def test_contexts_come_from_the_batch_or_from_who_knows(engine):
    anchor = Anchor(engine, "ctrl", expression=True)
    assert anchor.contexts({"cell_type": ["a"] * 4 + ["b"] * 4}, 2) == ["a", "b"]
    assert anchor.contexts({}, 2) == ["", ""]
    anchor.context_of = lambda: "k562"
    assert anchor.contexts({}, 2) == ["k562", "k562"]


def test_an_anchor_comes_back_from_plain_types(engine, cells):
    anchor = Anchor(engine, "ctrl", expression=True)
    again = Anchor.from_state(anchor.to_state())
    given = (["k562"] * 3, ["A", "B", "ctrl"], cells)
    assert torch.equal(again.bring(cells, *given), anchor.bring(cells, *given))


@pytest.fixture(scope="module")
def anchored():
    """Return a function that builds a model whose cells are anchored, with its anchor."""
    known = Evidence(QUICK).fit(responses(tiny.GENES, tuple(tiny.names(8))))
    state = Anchor(known, tiny.CONTROL, expression=True).to_state()

    def build(when, mode="genept"):
        torch.manual_seed(0)
        bound = RagStateTransition.bound_to(tiny.knowledge(), evidence=state)
        return bound(**{**tiny.FLAGS[mode], **tiny.arguments(), "rag_evidence": when})

    return build


@pytest.mark.parametrize("mode", ["genept", "differentiable"])
@pytest.mark.parametrize("when", ["predict", "train"])
def test_predicted_cells_of_each_set_have_the_mean_of_the_evidence(anchored, when, mode):
    model = anchored(when, mode).eval()
    batch = tiny.batch()
    with torch.no_grad():
        found = model.predict_step(batch, 0)["preds"].reshape(3, tiny.CELLS, -1)
        again = torch.cat(
            [model.predict_step(tiny.part(batch, [place]), 0, padded=False)["preds"] for place in range(3)]
        )
    for cells, name in zip(found, ("GENE0", "GENE3", tiny.CONTROL), strict=True):
        assert torch.allclose(cells.mean(0), model.anchor.mean("k562", name).clamp_min(0), atol=1e-5)
    assert torch.allclose(again.reshape(found.shape), found, atol=1e-5)


@pytest.mark.parametrize("when", ["predict", "train"])
def test_sets_that_are_predicted_in_a_group_are_anchored_each_by_itself(anchored, when, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setitem(CELLS_A_PASS, "cpu", 2 * tiny.CELLS)
    model, names = anchored(when).eval(), ["GENE0", "GENE3", tiny.CONTROL, "GENE3", "GENE6"]
    batch = tiny.batch(names)
    with torch.no_grad():
        alone = [model.predict_step(tiny.part(batch, [place]), 0, padded=False)["preds"] for place in range(5)]
    model.anchor._effects.clear()
    with GroupedSets() as group:
        found = group.predict(model, Sets(batch, [tiny.CELLS] * 5))["preds"]
    assert torch.allclose(found, torch.cat(alone), atol=1e-5)


def test_training_is_anchored_only_where_that_was_asked_for(anchored):
    batch = tiny.batch()
    plain = tiny.build("genept")
    cells = {when: anchored(when)(batch) for when in ("predict", "train")}
    assert torch.equal(cells["predict"], plain(batch))
    assert not torch.allclose(cells["train"], plain(batch), atol=1e-2)
    model = anchored("train")
    model.log = lambda *_, **__: None
    model.training_step(batch, 0).backward()
    assert all(torch.isfinite(value.grad).all() for value in model.parameters() if value.grad is not None)


def test_the_evidence_travels_in_the_checkpoint(anchored):
    model = anchored("predict").eval()
    checkpoint = {"state_dict": model.state_dict()}
    model.on_save_checkpoint(checkpoint)
    torch.manual_seed(1)
    other = RagStateTransition(**{**tiny.FLAGS["genept"], **tiny.arguments(), "rag_evidence": "predict"})
    other.on_load_checkpoint(checkpoint)
    other.load_state_dict(checkpoint["state_dict"])
    with torch.no_grad():
        found, expected = (one.eval().predict_step(tiny.batch(), 0)["preds"] for one in (other, model))
    assert torch.allclose(found, expected, atol=1e-6)
    del checkpoint["state_rag"]["evidence"]
    with pytest.raises(StateRagError, match="lacks the evidence"):
        RagStateTransition(
            **{**tiny.FLAGS["genept"], **tiny.arguments(), "rag_evidence": "predict"}
        ).on_load_checkpoint(checkpoint)
