import pytest
import torch
from torch.nn import functional

from state_rag.retrieval import scoring
from state_rag.retrieval.scoring import score_in_blocks


def arguments(n_sets=3, n_cells=5, n_candidates=4, width=6, dtype=torch.float64):
    torch.manual_seed(0)
    shapes = [
        (n_sets, n_cells, width),
        (n_sets, n_candidates, width),
        (n_sets, n_cells, n_candidates),
        (width,),
        (2, width),
        (2,),
    ]
    return [torch.randn(*shape, dtype=dtype, requires_grad=True) for shape in shapes]


def plain_scores(u, v, inverse, constant, weight, bias):
    hidden = inverse.unsqueeze(-1) * (u.unsqueeze(2) + v.unsqueeze(1)) + constant
    return functional.linear(functional.gelu(hidden), weight, bias)


@pytest.mark.parametrize("block_elements", [1, 24, 60, 120, 250, 10**6])
def test_scores_and_gradients_do_not_depend_on_the_block(block_elements):
    given = arguments()
    expected = plain_scores(*given)
    scores = score_in_blocks(*given, block_elements=block_elements)
    torch.testing.assert_close(scores, expected)
    direction = torch.randn_like(scores)
    for ours, plain in zip(
        torch.autograd.grad(scores, given, direction), torch.autograd.grad(expected, given, direction), strict=True
    ):
        torch.testing.assert_close(ours, plain)


def test_gradients_are_those_of_finite_differences_with_dropout_too():
    given = arguments(2, 3, 2, 4)

    def repeatable(*tensors):
        torch.manual_seed(5)
        return score_in_blocks(*tensors, dropout=0.4, block_elements=20)

    assert torch.autograd.gradcheck(repeatable, given)


def test_dropout_drops_the_given_share_and_keeps_the_mean():
    u, v, inverse = torch.zeros(2, 40, 64), torch.ones(2, 50, 64), torch.ones(2, 40, 50)
    gelu_of_one = float(functional.gelu(torch.ones(())))
    scores = score_in_blocks(u, v, inverse, torch.zeros(64), torch.ones(1, 64), torch.zeros(1), dropout=0.25)
    kept = scores / gelu_of_one * 0.75
    torch.testing.assert_close(kept, kept.round(), atol=1e-3, rtol=0)
    assert float(kept.mean() / 64) == pytest.approx(0.75, abs=0.002)
    assert float(kept.std()) == pytest.approx((64 * 0.75 * 0.25) ** 0.5, rel=0.05)


def test_each_forward_draws_its_own_mask_and_a_seed_repeats_it():
    given = arguments(dtype=torch.float32)
    torch.manual_seed(1)
    first, second = score_in_blocks(*given, dropout=0.5), score_in_blocks(*given, dropout=0.5)
    torch.manual_seed(1)
    assert torch.equal(first, score_in_blocks(*given, dropout=0.5))
    assert not torch.equal(first, second)


def test_blocks_have_different_masks():
    u, v, inverse = torch.zeros(1, 8, 32), torch.ones(1, 2, 32), torch.ones(1, 8, 2)
    masks_seen = score_in_blocks(
        u, v, inverse, torch.zeros(32), torch.randn(1, 32), torch.zeros(1), dropout=0.5, block_elements=64
    )
    assert masks_seen.unique().numel() == 16


@pytest.mark.parametrize("shape", [(0, 5, 4, 6), (3, 0, 4, 6), (3, 5, 0, 6)])
def test_nothing_to_score_gives_empty_scores_and_zero_gradients(shape):
    given = arguments(*shape)
    scores = score_in_blocks(*given)
    assert scores.shape == (*shape[:3], 2)
    scores.sum().backward()
    assert all((tensor.grad == 0).all() for tensor in given)


def test_no_tensor_of_the_hidden_layers_size_is_saved_for_backward(monkeypatch):
    monkeypatch.setattr(scoring, "CPU_BLOCK_ELEMENTS", 2**10)
    given = arguments(4, 16, 8, 32, dtype=torch.float32)
    sizes = []

    def note(tensor):
        sizes.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        score_in_blocks(*given, dropout=0.1)
    hidden_layer = 4 * 16 * 8 * 32
    assert sizes
    assert sum(sizes) < hidden_layer / 3
