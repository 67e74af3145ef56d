"""Two processes train one model as one process does with both their batches."""

from functools import partial

import pytest
import torch
from torch import nn

from state_rag.retrieval.knowledge import Knowledge
from state_rag.retrieval.selector import CandidateSelector
from tests import tiny_model as tiny
from tests.two_processes import Step, found_by_two, run_two

CASES = {
    **{mode: (mode, {}) for mode in tiny.MODES},
    "batch": ("differentiable", {"rag_score_scale": "batch"}),
    "no scale": ("differentiable", {"rag_score_scale": "none"}),
    "no sparsity loss": ("differentiable", {"gumbel_sparsity_loss": False, "rag_score_similarity": True}),
    "residual": ("differentiable", {"rag_fusion": "residual"}),
    "sources": ("differentiable", {"rag_sources": ["text=a", "other=b"]}),
}
SHARES = [
    (["GENE0", "GENE3"], ["GENE1", "GENE0"]),  # evenly much to retrieve for
    (["GENE5", "GENE2"], [tiny.CONTROL, tiny.CONTROL]),  # nothing to retrieve for in one
    ([tiny.CONTROL, tiny.CONTROL], [tiny.CONTROL, tiny.CONTROL]),
    ([tiny.CONTROL, "GENE4"], ["GENE1", "GENE7"]),
]
"""The sets of each step: of the first process and of the second."""


def build(case):
    mode, flags = CASES[case]
    base = None
    if "rag_sources" in flags:
        first, second = tiny.knowledge(), tiny.knowledge(seed=1)
        base = Knowledge(first.names, {"text": first.block(), "other": second.block()})
        flags = {**flags, "pert_dim": 2 * tiny.WIDTH}
    return tiny.build(mode, base, **flags)


def whole(number):
    first, second = SHARES[number]
    return tiny.batch([*first, *second], seed=number)


def trained(model, batches):
    """Take steps; return each step's loss and what was logged of the selector, and the gradients of the last one."""
    step = Step(model)
    if torch.distributed.is_initialized():
        step = nn.parallel.DistributedDataParallel(step, find_unused_parameters=False)
    seen = tiny.logged(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001)
    losses, gradients = [], []
    for batch in batches:
        optimizer.zero_grad()
        loss = step(batch)
        loss.backward()
        gradients.append({name: value.grad.clone() for name, value in model.named_parameters() if value.requires_grad})
        optimizer.step()
        losses.append([loss.detach(), *(seen[name].clone() for name in sorted(seen) if name.startswith("train/"))])
    return {"losses": losses, "gradients": gradients, "buffers": dict(model.state_dict())}


GATE = CandidateSelector._gate


def without_chance(self, scores, noise):
    """The selector's gate with every draw 0, whatever the batch is made of."""
    return GATE(self, scores, torch.zeros_like(scores))


def train_in_process(rank):
    CandidateSelector._gate = without_chance
    found = {}
    for case in CASES:
        mine = [2 * rank, 2 * rank + 1]
        found[case] = trained(build(case), [tiny.part(whole(number), mine) for number in range(len(SHARES))])
    return found


@pytest.fixture(scope="module")
def two(build_once):
    """What both processes found, by case."""
    return found_by_two(build_once("two-processes", partial(run_two, train_in_process)))


@pytest.fixture
def one(monkeypatch):
    monkeypatch.setattr(CandidateSelector, "_gate", without_chance)
    return lambda case: trained(build(case), map(whole, range(len(SHARES))))


@pytest.mark.timeout(120)
@pytest.mark.parametrize("case", CASES)
def test_losses_gradients_and_running_scale_are_those_of_one_process_with_both_batches(case, two, one):
    expected = one(case)
    for number, wanted in enumerate(expected["losses"]):
        mean = torch.stack([torch.stack(process[case]["losses"][number]) for process in two]).mean(0)
        torch.testing.assert_close(mean, torch.stack(wanted), rtol=2e-5, atol=1e-6)
    for number, wanted in enumerate(expected["gradients"]):
        size = torch.stack([gradient.norm() for gradient in wanted.values()]).norm()
        for process in two:
            for name, gradient in wanted.items():
                difference = (process[case]["gradients"][number][name] - gradient).norm()
                assert difference <= 1e-4 * gradient.norm() + 1e-5 * size, f"step {number}: {name}"
    for process in two:
        for name, value in expected["buffers"].items():
            difference = (process[case]["buffers"][name] - value).double().norm()
            assert difference <= 1e-4 * value.double().norm() + 1e-6, name
