import pytest
import torch
from torch.nn import functional

from state_rag.errors import StateRagError
from state_rag.retrieval.hidden import HiddenSpaceRetrieval
from tests.retrieval.test_attention import plain_attention


@pytest.mark.parametrize("rag_weight", [0.0, 0.5])
def test_takes_the_nearest_encoded_rows_and_leaves_self_out(rag_weight):
    torch.manual_seed(1)
    module = HiddenSpaceRetrieval(8, 3, rag_weight)
    base = torch.randn(9, 8, requires_grad=True)
    combined, own = torch.randn(2, 4, 8), torch.tensor([4, -1])
    output, weights, index, similarity = module.retrieve(combined, base, base[[4, 5]], own)
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


def test_follows_the_current_weights():
    torch.manual_seed(2)
    encoder, raw = torch.nn.Linear(5, 8), torch.randn(20, 5)
    module = HiddenSpaceRetrieval(8, 4)
    before = module.retrieve(torch.zeros(1, 1, 8), encoder(raw), encoder(raw[:1]), torch.tensor([0]))[2]
    torch.nn.init.normal_(encoder.weight)
    after = module.retrieve(torch.zeros(1, 1, 8), encoder(raw), encoder(raw[:1]), torch.tensor([0]))[2]
    assert not torch.equal(before, after)


def test_refuses_more_candidates_than_there_are():
    with pytest.raises(StateRagError, match="topk_rag is 3, but 2"):
        HiddenSpaceRetrieval(8, 3).retrieve(
            torch.zeros(1, 1, 8), torch.randn(3, 8), torch.randn(1, 8), torch.tensor([0])
        )


def test_gives_zero_weight_terms():
    module = HiddenSpaceRetrieval(8, 3)
    module.zero_weight_terms().backward()
    assert all((parameter.grad == 0).all() for parameter in module.parameters())


@pytest.mark.parametrize("rag_weight", [0.0, 0.5])
def test_without_neighbours_is_the_query_alone_or_nothing(rag_weight):
    torch.manual_seed(1)
    module = HiddenSpaceRetrieval(8, 3, rag_weight)
    base, combined = torch.randn(9, 8), torch.randn(1, 4, 8)
    output, weights, _, _ = module.retrieve(combined, base, base[:1], torch.tensor([0]), torch.zeros(1, 3))
    assert not weights.any()
    expected = module.attention.query(combined) if rag_weight else torch.zeros_like(output)
    torch.testing.assert_close(output, expected)
