"""What retrieval costs beside STATE, and that it runs on several devices."""

import pytest
import torch
from torch import nn

from benchmarks import forward_cost
from tests import tiny_model as tiny
from tests.two_processes import Step, found_by_two, run_two


def test_a_forward_pass_at_the_published_size_costs_at_most_a_fiftieth_more_than_states():
    theirs, ours, batch = forward_cost.build("cpu")
    assert ours.settings.mode == "differentiable"
    assert len(ours.knowledge) == 2009
    state = forward_cost.flops(theirs, batch)
    assert state > 90e9  # 64 sets of 64 cells through eight layers
    assert forward_cost.flops(ours, batch) <= 1.02 * state


@pytest.mark.parametrize("cells", [2, 50])
def test_queries_are_encoded_once_a_set_and_candidates_once_a_batch(cells):
    model, rows = tiny.build(topk_rag=4, cell_set_len=cells), []
    tiny.logged(model)
    model.pert_encoder.register_forward_hook(lambda module, inputs, output: rows.append(len(inputs[0])))
    perturbations = ["GENE0", "GENE3", "GENE0", tiny.CONTROL]
    model.training_step(tiny.batch(perturbations, cells=cells), 0)
    candidates = set(model.retriever.neighbours.lookup(torch.tensor([0, 3]))[0].flatten().tolist())
    assert rows == [len(perturbations), len(candidates)]


def train_in_process(rank):
    """Three steps of one of two processes: one sees only controls, then the other one, and so on."""
    model = tiny.build()
    tiny.logged(model)
    step = nn.parallel.DistributedDataParallel(Step(model), find_unused_parameters=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for number in range(3):
        optimizer.zero_grad()
        perturbed = ["GENE0", "GENE3"] if rank == number % 2 else [tiny.CONTROL, tiny.CONTROL]
        step(tiny.batch(perturbed, seed=2 * number + rank)).backward()
        optimizer.step()
    return {name: value.detach() for name, value in model.named_parameters()}


@pytest.mark.timeout(120)
def test_processes_of_which_one_sees_only_controls_train_together(tmp_path):
    run_two(train_in_process, tmp_path)
    first, second = found_by_two(tmp_path)
    start = dict(tiny.build().named_parameters())
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    moved = [name for name, value in first.items() if not torch.equal(value, start[name])]
    assert {"selector.scorer_out.weight", "pert_encoder.0.weight", "project_out.0.weight"} <= set(moved)
