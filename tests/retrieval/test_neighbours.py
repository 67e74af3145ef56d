import importlib.util
import sys
import types

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from state_rag.errors import StateRagError
from state_rag.retrieval import neighbours
from state_rag.retrieval.knowledge import Knowledge
from state_rag.retrieval.neighbours import NeighbourTable, distinct, top_neighbours


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


def faiss_like():
    """A module with FAISS's flat inner-product index; equal scores come in falling row order, unlike ours."""

    class IndexFlatIP:
        def __init__(self, width):
            self.width = width

        def add(self, rows):
            assert rows.dtype == np.float32
            assert rows.shape[1] == self.width
            self.rows = rows

        def search(self, queries, k):
            scores = queries @ self.rows.T
            order = np.lexsort((-np.arange(len(self.rows))[None].repeat(len(queries), 0), -scores))[:, :k]
            return np.take_along_axis(scores, order, 1), order

    module = types.ModuleType("faiss")
    module.__spec__ = importlib.util.spec_from_loader("faiss", None)
    module.IndexFlatIP = IndexFlatIP
    return module


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


def test_a_large_base_goes_to_faiss_where_it_is_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", faiss_like())
    monkeypatch.setattr(neighbours, "FAISS_FROM", 20)
    called = []
    search = neighbours._search_faiss
    monkeypatch.setattr(neighbours, "_search_faiss", lambda *given: called.append(1) or search(*given))
    torch.manual_seed(2)
    base = torch.randn(30, 6)
    own = torch.tensor([3, -1, 29, 0])
    queries = base[torch.tensor([3, 5, 29, 0])]
    index, similarity = top_neighbours(queries, base, 4, own)
    assert called
    exact_index, exact_similarity = top_neighbours(queries, base, 4, own, backend="exact")
    assert torch.equal(index, exact_index)
    torch.testing.assert_close(similarity, exact_similarity)
    top_neighbours(queries, base[:20], 4, torch.full((4,), -1))
    assert len(called) == 1


def test_faiss_agrees_with_the_exact_search(monkeypatch):
    if importlib.util.find_spec("faiss") is None:
        monkeypatch.setitem(sys.modules, "faiss", faiss_like())
    torch.manual_seed(3)
    base = torch.randn(200, 16)
    own = torch.arange(200)
    index, similarity = top_neighbours(base, base, 7, own, backend="faiss")
    exact_index, exact_similarity = top_neighbours(base, base, 7, own, backend="exact")
    assert torch.equal(index, exact_index)
    torch.testing.assert_close(similarity, exact_similarity)
    assert top_neighbours(base[:0], base, 7, own[:0], backend="faiss")[0].shape == (0, 7)


def test_faiss_asked_for_but_missing_is_said(monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "faiss" else find_spec(name, *a))
    with pytest.raises(StateRagError, match=r"pip install 'state-rag\[faiss\]'"):
        top_neighbours(torch.ones(1, 2), torch.ones(3, 2), 1, torch.tensor([-1]), backend="faiss")
    with pytest.raises(StateRagError, match="unknown backend 'annoy'"):
        top_neighbours(torch.ones(1, 2), torch.ones(3, 2), 1, torch.tensor([-1]), backend="annoy")


@pytest.mark.parametrize(("own", "k", "available"), [(0, 3, 2), (-1, 4, 3), (-1, 0, 3)])
def test_too_large_a_k_names_flag_value_maximum_and_remedy(own, k, available):
    with pytest.raises(StateRagError, match=rf"topk_rag is {k}, but {available} .*set training.topk_rag to 1 up to"):
        top_neighbours(torch.ones(1, 2), torch.ones(3, 2), k, torch.tensor([own]))


def test_no_queries_give_empty_answers():
    index, similarity = top_neighbours(torch.ones(0, 2), torch.ones(3, 2), 2, torch.zeros(0, dtype=torch.long))
    assert index.shape == similarity.shape == (0, 2)


def test_a_table_leaves_each_base_row_out_of_its_own_neighbours_and_asking_rows_out_of_all():
    torch.manual_seed(4)
    values = torch.randn(12, 5)
    knowledge = Knowledge([f"G{i}" for i in range(10)], {"text": values[:10]})
    knowledge = knowledge.with_queries(["X", "Y"], {"text": values[10:]})
    table = NeighbourTable(knowledge, 9)
    index, similarity = table.lookup(torch.arange(12))
    assert index.shape == similarity.shape == (12, 9)
    assert index.max() < 10
    assert not (index[:10] == torch.arange(10).unsqueeze(1)).any()
    expected, _ = plain_neighbours(values, values[:10], 9, torch.tensor([*range(10), -1, -1]))
    assert torch.equal(index, expected)
    assert torch.equal(table.lookup(torch.tensor([3, 3]))[0], expected[[3, 3]])


def test_an_asking_row_that_repeats_a_candidate_retrieves_it():
    knowledge = Knowledge(["A", "B", "C"], {"text": torch.eye(3)}).with_queries(["A2"], {"text": torch.eye(3)[:1]})
    index, similarity = NeighbourTable(knowledge, 2).lookup(torch.tensor([3]))
    assert index.tolist() == [[0, 1]]
    assert similarity.tolist() == [[1, 0]]


def test_a_table_refuses_k_above_the_base_and_rows_that_do_not_exist():
    knowledge = Knowledge(["A", "B", "C"], {"text": torch.eye(3)})
    with pytest.raises(StateRagError, match="topk_rag is 3, but 2 candidates"):
        NeighbourTable(knowledge, 3)
    with pytest.raises(IndexError, match="unknown name or a control"):
        NeighbourTable(knowledge, 2).lookup(torch.tensor([0, -1]))


def test_another_block_gives_another_table():
    other = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.1]])
    knowledge = Knowledge(["A", "B", "C"], {"text": torch.eye(3), "response": other})
    assert NeighbourTable(knowledge, 1, "response").lookup(torch.tensor([0]))[0].tolist() == [[2]]


def test_distinct_rows_rebuild_the_index():
    index = torch.tensor([[7, 3, 9], [3, 9, 100]])
    rows, local = distinct(index)
    assert rows.tolist() == [3, 7, 9, 100]
    assert torch.equal(rows[local], index)
