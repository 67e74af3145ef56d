import math

import pytest
import torch
from torch.nn import functional

from state_rag.retrieval.attention import CandidateAttention


def plain_attention(module, combined, candidates, index):
    """One cell and one candidate at a time."""
    context, weights = torch.zeros_like(combined), torch.zeros(*combined.shape[:2], index.shape[1])
    for b in range(combined.shape[0]):
        for s in range(combined.shape[1]):
            query = functional.linear(combined[b, s], module.query.weight, module.query.bias)
            scores, values = [], []
            for row in index[b].tolist():
                hidden = candidates[row]
                if module.project is not None:
                    hidden = functional.linear(hidden, module.project.weight, module.project.bias)
                key = functional.linear(hidden, module.key.weight, module.key.bias)
                scores.append(query @ key / math.sqrt(len(query)))
                values.append(functional.linear(hidden, module.value.weight, module.value.bias))
            weights[b, s] = torch.softmax(torch.stack(scores), 0)
            context[b, s] = sum(weight * value for weight, value in zip(weights[b, s], values, strict=True))
    return context, weights


@pytest.mark.parametrize("embedding_dim", [6, None])
def test_attention_is_that_of_the_definition(embedding_dim):
    torch.manual_seed(0)
    module = CandidateAttention(embedding_dim, 8)
    combined, candidates = torch.randn(3, 4, 8), torch.randn(7, embedding_dim or 8)
    index = torch.tensor([[0, 6, 2], [2, 3, 4], [5, 0, 1]])
    context, weights = module.attend(module.query(combined), candidates, index)
    expected_context, expected_weights = plain_attention(module, combined, candidates, index)
    torch.testing.assert_close(context, expected_context)
    torch.testing.assert_close(weights, expected_weights)
    assert weights.sum(-1).allclose(torch.ones(3, 4))


def test_layers_run_on_distinct_candidates_only():
    module = CandidateAttention(6, 8)
    seen = []
    for layer in (module.project, module.key, module.value):
        layer.register_forward_hook(lambda _module, given, _out: seen.append(given[0].shape[0]))
    module.attend(module.query(torch.randn(3, 4, 8)), torch.randn(2, 6), torch.tensor([[0, 1], [1, 0], [0, 1]]))
    assert seen == [2, 2, 2]


def test_without_sets_attention_is_empty_and_parameters_still_join_the_graph():
    module = CandidateAttention(6, 8)
    context, weights = module.attend(
        module.query(torch.zeros(0, 4, 8)), torch.zeros(0, 6), torch.zeros(0, 3, dtype=torch.long)
    )
    assert context.shape == (0, 4, 8)
    assert weights.shape == (0, 4, 3)
    total = module.zero_weight_terms()
    total.backward()
    assert total == 0
    assert all((parameter.grad == 0).all() for parameter in module.parameters())


def test_a_candidate_that_is_switched_off_leaves_the_weights_of_the_others():
    torch.manual_seed(0)
    module = CandidateAttention(6, 8)
    combined, candidates, index = torch.randn(2, 4, 8), torch.randn(7, 6), torch.tensor([[0, 6, 2], [2, 3, 4]])
    keep = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    whole_context, whole = module.attend(module.query(combined), candidates, index)
    context, weights = module.attend(module.query(combined), candidates, index, keep)
    assert torch.equal(weights, whole * keep[:, None, :])
    value = module.value(module.project(candidates[6]))
    torch.testing.assert_close(context[0], whole_context[0] - whole[0, :, 1:2] * value)
    assert not context[1].any()
