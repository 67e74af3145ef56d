"""A model with several sources of knowledge; with one it is the model of always."""

import copy

import pytest
import torch

from state_rag.checkpoint import CHECKPOINT_KEY
from state_rag.errors import StateRagError
from state_rag.model import RagStateTransition
from state_rag.retrieval.knowledge import Knowledge
from tests import tiny_model as tiny

TWO = {"rag_sources": ["table=table.npz", "sets=sets.gmt"]}
ONE = {"rag_sources": ["genept=table.npz"]}
PROPOSING = ("vanilla", "differentiable")


def two_sources(count=8):
    generator = torch.Generator().manual_seed(1)
    blocks = {name: torch.randn(count, width, generator=generator) for name, width in (("table", 6), ("sets", 4))}
    blocks["sets"][2] = 0
    return Knowledge(tiny.names(count), blocks)


def trained(model, steps=5):
    """Return the losses of some steps, and the state after them."""
    torch.manual_seed(3)
    tiny.logged(model)
    optimiser = torch.optim.Adam(model.train().parameters(), lr=1e-2)
    losses = []
    for step in range(steps):
        optimiser.zero_grad()
        loss = model.training_step(tiny.batch(seed=step), step)
        loss.backward()
        optimiser.step()
        losses.append(loss.detach())
    return torch.stack(losses), model.state_dict()


@pytest.mark.parametrize("mode", tiny.MODES)
def test_one_source_is_bit_for_bit_what_its_table_is_without_a_name(mode):
    named = Knowledge(tiny.names(), {"genept": tiny.knowledge().block()})
    first, second = (trained(tiny.build(mode, base, **flags)) for base, flags in ((None, {}), (named, ONE)))
    assert torch.equal(first[0], second[0])
    assert first[1].keys() == second[1].keys()
    assert all(torch.equal(value, second[1][name]) for name, value in first[1].items())


@pytest.mark.parametrize("mode", PROPOSING)
def test_trust_starts_at_nothing_and_is_learned(mode):
    model = tiny.build(mode, two_sources(), **TWO)
    trust = model.retriever.trust
    assert torch.equal(torch.stack([trust.proposed, trust.alike]), torch.zeros(2, 2))
    trained(model)
    assert (trust.proposed != 0).all()
    assert (trust.alike != 0).all()
    facts = model.retriever.facts()
    assert {"source_trust/table", "source_trust/sets", "source_likeness/table", "source_likeness/sets"} <= facts.keys()


@pytest.mark.parametrize("mode", PROPOSING)
def test_candidates_of_a_source_that_is_trusted_more_weigh_more(mode):
    model = tiny.build(mode, two_sources(), topk_rag=4, **TWO).eval()
    seen = []
    model.observer = seen.append
    model(tiny.batch(tiny.names(6)))
    with torch.no_grad():
        model.retriever.trust.proposed[1] = 0.2
    model(tiny.batch(tiny.names(6)))
    before, after = (one.weights.detach().mean(1) for one in seen)
    of_sets = seen[0].proposed[..., 1]
    assert of_sets.any()
    assert not of_sets.all()
    if mode == "differentiable":
        assert (after > before)[of_sets].all()
        assert torch.equal(after[~of_sets], before[~of_sets])
    else:
        both = of_sets.any(1) & (~of_sets).any(1)
        share = [(weights * of_sets).sum(1)[both] for weights in (before, after)]
        assert (share[1] > share[0]).all()


@pytest.mark.parametrize("mode", tiny.MODES)
def test_a_checkpoint_with_several_sources_is_self_contained_and_predicts_the_same(mode, tmp_path):
    model = tiny.build(mode, two_sources(), **TWO)
    model.sources = {"sets": {"file": "/somewhere/sets.gmt"}}
    trained(model, 2)
    saved = {
        "state_dict": model.state_dict(),
        "hyper_parameters": dict(model.hparams),
        "pytorch-lightning_version": "2.4",
    }
    model.on_save_checkpoint(saved)
    torch.save(saved, tmp_path / "run.ckpt")
    again = RagStateTransition.load_from_checkpoint(tmp_path / "run.ckpt", weights_only=True).eval()
    assert again.sources == {"sets": {"file": "/somewhere/sets.gmt"}}
    assert again.knowledge.block_names == ("table", "sets")
    with torch.no_grad():
        assert torch.equal(model.eval()(tiny.batch()), again(tiny.batch()))
    assert torch.load(tmp_path / "run.ckpt", weights_only=True)[CHECKPOINT_KEY]["knowledge"]["blocks"].keys() == {
        "table",
        "sets",
    }


def test_a_trace_names_the_sources_that_proposed_each_candidate():
    traces = []
    bound = RagStateTransition.bound_to(two_sources(), trace_sink=lambda batch, output, trace: traces.append(trace))
    torch.manual_seed(0)
    model = bound(**{**tiny.FLAGS["differentiable"], **tiny.arguments(**copy.deepcopy(TWO), topk_rag=4)}).eval()
    model.predict_step(tiny.batch(["GENE0", "GENE2"]), 0)
    sources = traces[0].candidate_sources
    assert {"table", "sets"} <= {name for said in sources[0] for name in said.split("+")} <= {"table", "sets", "none"}
    assert "table" in sources[1]
    assert set(sources[1]) <= {"table", "none"}  # the sets know nothing of GENE2
    single = RagStateTransition.bound_to(tiny.knowledge(), trace_sink=lambda batch, output, trace: traces.append(trace))
    model = single(**{**tiny.FLAGS["differentiable"], **tiny.arguments()}).eval()
    model.predict_step(tiny.batch(["GENE0"]), 0)
    assert traces[-1].candidate_sources == []


@pytest.mark.parametrize("mode", tiny.MODES)
def test_batches_of_controls_alone_give_every_parameter_a_gradient(mode):
    model = tiny.build(mode, two_sources(), **TWO)
    tiny.logged(model)
    model.training_step(tiny.batch([tiny.CONTROL, tiny.CONTROL]), 0).backward()
    part = model.retriever
    assert part is None or all(parameter.grad is not None for parameter in part.parameters())


def test_knowledge_with_another_number_of_sources_is_refused():
    with pytest.raises(StateRagError, match="has the sources text, but this model was built for table, sets"):
        tiny.build("differentiable", tiny.knowledge(), **TWO)
