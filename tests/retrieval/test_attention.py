import math

import pytest
import torch
from torch.nn import functional

from state_rag.errors import StateRagError
from state_rag.retrieval.attention import CandidateAttention, HiddenSpaceRetrieval


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
    context, weights = module(combined, candidates, index)
    expected_context, expected_weights = plain_attention(module, combined, candidates, index)
    torch.testing.assert_close(context, expected_context)
    torch.testing.assert_close(weights, expected_weights)
    assert weights.sum(-1).allclose(torch.ones(3, 4))


def test_layers_run_on_distinct_candidates_only():
    module = CandidateAttention(6, 8)
    seen = []
    for layer in (module.project, module.key, module.value):
        layer.register_forward_hook(lambda _module, given, _out: seen.append(given[0].shape[0]))
    module(torch.randn(3, 4, 8), torch.randn(2, 6), torch.tensor([[0, 1], [1, 0], [0, 1]]))
    assert seen == [2, 2, 2]


def test_without_sets_attention_is_empty_and_parameters_still_join_the_graph():
    module = CandidateAttention(6, 8)
    context, weights = module(torch.zeros(0, 4, 8), torch.zeros(0, 6), torch.zeros(0, 3, dtype=torch.long))
    assert context.shape == (0, 4, 8)
    assert weights.shape == (0, 4, 3)
    total = module.zero_weight_terms()
    total.backward()
    assert total == 0
    assert all((parameter.grad == 0).all() for parameter in module.parameters())


@pytest.mark.parametrize("rag_weight", [0.0, 0.5])
def test_hidden_space_retrieval_takes_the_nearest_encoded_rows_and_leaves_self_out(rag_weight):
    torch.manual_seed(1)
    module = HiddenSpaceRetrieval(8, 3, rag_weight)
    base = torch.randn(9, 8, requires_grad=True)
    combined, own = torch.randn(2, 4, 8), torch.tensor([4, -1])
    output, weights, index, similarity = module(combined, base, base[[4, 5]], own)
    cosine = functional.cosine_similarity(base[[4, 5]].unsqueeze(1), base.unsqueeze(0), dim=-1).detach()
    cosine[0, 4] = -2
    assert torch.equal(index, cosine.topk(3).indices)
    torch.testing.assert_close(similarity, cosine.topk(3).values)
    assert index[1, 0] == 5
    context, expected_weights = plain_attention(module.attention, combined, base.detach(), index)
    query = module.attention.query(combined)
    torch.testing.assert_close(output, query + rag_weight * context if rag_weight else context)
    torch.testing.assert_close(weights, expected_weights)
    output.sum().backward()
    assert base.grad is None


def test_hidden_space_retrieval_follows_the_current_weights():
    torch.manual_seed(2)
    encoder, raw = torch.nn.Linear(5, 8), torch.randn(20, 5)
    module = HiddenSpaceRetrieval(8, 4)
    before = module(torch.zeros(1, 1, 8), encoder(raw), encoder(raw[:1]), torch.tensor([0]))[2]
    torch.nn.init.normal_(encoder.weight)
    after = module(torch.zeros(1, 1, 8), encoder(raw), encoder(raw[:1]), torch.tensor([0]))[2]
    assert not torch.equal(before, after)


def test_hidden_space_retrieval_refuses_more_candidates_than_there_are():
    with pytest.raises(StateRagError, match="topk_rag is 3, but 2"):
        HiddenSpaceRetrieval(8, 3)(torch.zeros(1, 1, 8), torch.randn(3, 8), torch.randn(1, 8), torch.tensor([0]))


def test_hidden_space_retrieval_gives_zero_weight_terms():
    module = HiddenSpaceRetrieval(8, 3)
    module.zero_weight_terms().backward()
    assert all((parameter.grad == 0).all() for parameter in module.parameters())


def test_a_candidate_that_is_switched_off_leaves_the_weights_of_the_others():
    torch.manual_seed(0)
    module = CandidateAttention(6, 8)
    combined, candidates, index = torch.randn(2, 4, 8), torch.randn(7, 6), torch.tensor([[0, 6, 2], [2, 3, 4]])
    keep = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    whole_context, whole = module(combined, candidates, index)
    context, weights = module(combined, candidates, index, keep)
    assert torch.equal(weights, whole * keep[:, None, :])
    value = module.value(module.project(candidates[6]))
    torch.testing.assert_close(context[0], whole_context[0] - whole[0, :, 1:2] * value)
    assert not context[1].any()


@pytest.mark.parametrize("rag_weight", [0.0, 0.5])
def test_hidden_space_retrieval_without_neighbours_is_the_query_alone_or_nothing(rag_weight):
    torch.manual_seed(1)
    module = HiddenSpaceRetrieval(8, 3, rag_weight)
    base, combined = torch.randn(9, 8), torch.randn(1, 4, 8)
    output, weights, _, _ = module(combined, base, base[:1], torch.tensor([0]), torch.zeros(1, 3))
    assert not weights.any()
    expected = module.attention.query(combined) if rag_weight else torch.zeros_like(output)
    torch.testing.assert_close(output, expected)
