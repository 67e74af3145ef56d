import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from state_rag.errors import StateRagError
from state_rag.retrieval import neighbours
from state_rag.retrieval.neighbours import distinct, top_neighbours


def plain_neighbours(queries, base, k, own):
    """The definition, in loops: sort by (falling cosine, row); cosines within 1e-9 are equal."""
    index, similarity = [], []
    for query, left_out in zip(queries.double().numpy(), own.tolist(), strict=True):
        scored = []
        for row, candidate in enumerate(base.double().numpy()):
            length = np.linalg.norm(query) * np.linalg.norm(candidate)
            cosine = float(query @ candidate / length) if length else 0.0
            if row != left_out:
                scored.append((-round(cosine * 2**30), row))
        best = sorted(scored)[:k]
        index.append([row for _, row in best])
        similarity.append([-minus / 2**30 for minus, _ in best])
    return torch.tensor(index), torch.tensor(similarity, dtype=torch.float32)


@pytest.mark.parametrize("chunk", [1, 100, 2**24])
def test_neighbours_are_those_of_the_definition(monkeypatch, chunk):
    monkeypatch.setattr(neighbours, "CHUNK_ELEMENTS", chunk)
    torch.manual_seed(0)
    base, queries = torch.randn(30, 8), torch.randn(7, 8)
    own = torch.full((7,), -1)
    index, similarity = top_neighbours(queries, base, 5, own)
    expected_index, expected_similarity = plain_neighbours(queries, base, 5, own)
    assert torch.equal(index, expected_index)
    torch.testing.assert_close(similarity, expected_similarity)
    assert index.dtype == torch.long
    assert similarity.dtype == torch.float32


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_ties_go_to_the_lower_row_and_self_is_never_returned(data):
    n_base, width = data.draw(st.integers(2, 12)), data.draw(st.integers(1, 3))
    values = st.lists(st.integers(-1, 1), min_size=width, max_size=width)
    base = torch.tensor(data.draw(st.lists(values, min_size=n_base, max_size=n_base)), dtype=torch.float32)
    k = data.draw(st.integers(1, n_base - 1))
    own = torch.arange(n_base)
    index, similarity = top_neighbours(base, base, k, own)
    assert not (index == own.unsqueeze(1)).any()
    assert all(len(set(row)) == k for row in index.tolist())
    expected_index, expected_similarity = plain_neighbours(base, base, k, own)
    assert torch.equal(index, expected_index)
    torch.testing.assert_close(similarity, expected_similarity)


def test_a_wide_duplicate_ties_exactly_wherever_it_lies():
    torch.manual_seed(1)
    row = torch.randn(1, 1537)
    base = torch.cat([row] * 37)
    index, similarity = top_neighbours(base[:3], base, 5, torch.tensor([0, 1, -1]))
    assert index.tolist() == [[1, 2, 3, 4, 5], [0, 2, 3, 4, 5], [0, 1, 2, 3, 4]]
    assert (similarity == similarity[0, 0]).all()


def test_length_plays_no_role_and_a_zero_vector_resembles_nothing():
    base = torch.tensor([[1.0, 0.0], [0.0, 0.0], [100.0, 1.0]])
    index, similarity = top_neighbours(torch.tensor([[1e-20, 0.0]]), base, 3, torch.tensor([-1]))
    assert index.tolist() == [[0, 2, 1]]
    assert similarity[0, 2] == 0


def test_a_large_base_is_gone_through_in_blocks_with_the_same_answer(monkeypatch):
    torch.manual_seed(2)
    base = torch.randn(97, 6).round()  # with ties, also between blocks
    queries, own = base[:40], torch.cat([torch.arange(30), torch.full((10,), -1)])
    whole = top_neighbours(queries, base, 20, own)
    monkeypatch.setattr(neighbours, "LARGE", 20)
    monkeypatch.setattr(neighbours, "BLOCK_ELEMENTS", 6 * 16)  # fewer rows than k
    for chunk in (16 * 7, 2**24):
        monkeypatch.setattr(neighbours, "CHUNK_ELEMENTS", chunk)
        index, similarity = top_neighbours(queries, base, 20, own)
        assert torch.equal(index, whole[0])
        assert torch.equal(similarity, whole[1])


@pytest.mark.parametrize(("own", "k", "available"), [(0, 3, 2), (-1, 4, 3), (-1, 0, 3)])
def test_too_large_a_k_names_flag_value_maximum_and_remedy(own, k, available):
    with pytest.raises(StateRagError, match=rf"topk_rag is {k}, but {available} .*set training.topk_rag to 1 up to"):
        top_neighbours(torch.ones(1, 2), torch.ones(3, 2), k, torch.tensor([own]))


def test_no_queries_give_empty_answers():
    index, similarity = top_neighbours(torch.ones(0, 2), torch.ones(3, 2), 2, torch.zeros(0, dtype=torch.long))
    assert index.shape == similarity.shape == (0, 2)


def test_distinct_rows_rebuild_the_index():
    index = torch.tensor([[7, 3, 9], [3, 9, 100]])
    rows, local = distinct(index)
    assert rows.tolist() == [3, 7, 9, 100]
    assert torch.equal(rows[local], index)
