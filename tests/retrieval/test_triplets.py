import pytest
import torch
from torch import nn
from torch.nn import functional

from state_rag.retrieval.triplets import HardGate, triplets

SETS, CELLS, K, N, WIDTH = 3, 4, 5, 7, 6


def inputs(dtype, shift=0.0):
    """Cells, queries, candidates and their places, normalisation and two layers; `shift` takes parts away from 0."""
    torch.manual_seed(0)
    parts = [torch.randn(*shape, WIDTH, dtype=dtype) + shift for shape in ((SETS, CELLS), (SETS,), (N,))]
    norm, layers = nn.LayerNorm(3 * WIDTH), [nn.Linear(3 * WIDTH, WIDTH), nn.Linear(3 * WIDTH, 2)]
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    for module in (norm, *layers):
        module.to(dtype)
    return [part.requires_grad_() for part in parts], torch.randint(N, (SETS, K)), norm, layers


def ours(parts, index, norm, layers, told):
    made = triplets(*parts, index, norm, layers)
    if told is None:
        inverse, v = made.inverse(), made.v()
    else:
        inverse, v = made.inverse(told[None, :, None])[0], made.told(told[:, None])
    return inverse[..., None] * (made.u[:, :, None] + v[:, None]) + made.constant


def plain(parts, index, norm, layers, told):
    """The layers of triplets that are built."""
    cells, query, candidates = parts
    if told is not None:
        query = query * told[:, None]
    shape = (SETS, CELLS, K, WIDTH)
    triplet = torch.cat(
        (
            cells[:, :, None].expand(shape),
            query[:, None, None].expand(shape),
            candidates[index][:, None].expand(shape),
        ),
        -1,
    )
    return torch.cat([layer(norm(triplet)) for layer in layers], -1)


@pytest.mark.parametrize("told", [None, torch.tensor([1.0, 0.0, 1.0])])
@pytest.mark.parametrize(
    ("dtype", "shift", "within"), [(torch.float64, 0.0, 1e-11), (torch.float32, 0.0, 1e-5), (torch.float32, 30.0, 3e-4)]
)
def test_outputs_and_gradients_are_those_of_triplets_that_are_built(dtype, shift, within, told):
    told = None if told is None else told.to(dtype)
    found = []
    for layered in (ours, plain):
        parts, index, norm, layers = inputs(dtype, shift)
        parameters = [*parts, *(value for module in (norm, *layers) for value in module.parameters())]
        output = layered(parts, index, norm, layers, told)
        probe = torch.linspace(-1, 1, output.numel(), dtype=dtype).reshape(output.shape)
        gradients = torch.autograd.grad((output * probe).sum(), parameters)
        found.append([output.detach(), *gradients])
    for mine, wanted in zip(*found, strict=True):
        assert (mine - wanted).norm() <= within * wanted.norm()


def test_the_cosine_is_that_of_query_and_candidate_and_zero_for_a_zero_vector():
    parts, index, norm, layers = inputs(torch.float64)
    query = torch.cat((parts[1][:-1], torch.zeros(1, WIDTH, dtype=torch.float64)))
    made = triplets(parts[0], query, parts[2], index, norm, layers, cosine=True)
    wanted = functional.cosine_similarity(query[:, None], parts[2][index], dim=-1)
    torch.testing.assert_close(made.cosine, wanted)
    assert not made.cosine[-1].any()


def test_the_gate_is_hard_forward_and_soft_backward():
    difference = torch.tensor([-1.0, 0.0, 0.5, 3.0], dtype=torch.float64, requires_grad=True)
    weights = HardGate.apply(difference, 0.5)
    assert weights.tolist() == [0, 0, 1, 1]
    (gradient,) = torch.autograd.grad(weights.sum(), difference)
    (wanted,) = torch.autograd.grad(torch.sigmoid(difference / 0.5).sum(), difference)
    torch.testing.assert_close(gradient, wanted)
