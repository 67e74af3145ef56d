"""What retrieval costs beside STATE, and that it runs on several devices."""

import os

import pytest
import torch
from torch import multiprocessing, nn

from benchmarks import forward_cost
from tests import tiny_model as tiny


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


class Step(nn.Module):
    """A training step as a forward pass, which is what distributed training wraps."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, batch):
        return self.model.training_step(batch, 0)


def train_in_process(rank, folder):
    """Three steps of one of two processes: one sees only controls, then the other one, and so on."""
    torch.set_num_threads(1)
    store = torch.distributed.FileStore(f"{folder}/store", 2)
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=2)
    model = tiny.build()
    tiny.logged(model)
    step = nn.parallel.DistributedDataParallel(Step(model), find_unused_parameters=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for number in range(3):
        optimizer.zero_grad()
        perturbed = ["GENE0", "GENE3"] if rank == number % 2 else [tiny.CONTROL, tiny.CONTROL]
        step(tiny.batch(perturbed, seed=2 * number + rank)).backward()
        optimizer.step()
    torch.save({name: value.detach() for name, value in model.named_parameters()}, f"{folder}/{rank}.pt")
    store.set(f"done {rank}", "")
    store.wait([f"done {1 - rank}"])
    os._exit(0)  # gloo's own end may wait for ever in a process that was forked


@pytest.mark.timeout(120)
def test_processes_of_which_one_sees_only_controls_train_together(tmp_path):
    # forked, since importing everything twice would take longer than all other tests of the model
    multiprocessing.start_processes(train_in_process, (str(tmp_path),), nprocs=2, daemon=True, start_method="fork")
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    start = dict(tiny.build().named_parameters())
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    moved = [name for name, value in first.items() if not torch.equal(value, start[name])]
    assert {"selector.scorer_out.weight", "pert_encoder.0.weight", "project_out.0.weight"} <= set(moved)
