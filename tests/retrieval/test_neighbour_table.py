"""Whose neighbours are looked up when, and that they are those of the definition."""

import pytest
import torch
from torch import nn

from state_rag.errors import StateRagError
from state_rag.retrieval import large_base, neighbour_table
from state_rag.retrieval.knowledge import Knowledge
from state_rag.retrieval.neighbour_table import NeighbourTable
from state_rag.retrieval.neighbours import top_neighbours
from state_rag.retrieval.retriever import Base, TableRetriever


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
    expected, _ = top_neighbours(values, values[:10], 9, torch.tensor([*range(10), -1, -1]))
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


def test_of_a_large_base_only_those_that_ask_are_looked_up_and_once(monkeypatch):
    torch.manual_seed(5)
    knowledge = Knowledge([f"G{i}" for i in range(40)], {"text": torch.randn(40, 5)}, n_candidates=35)
    whole = NeighbourTable(knowledge, 4)
    asked = []
    nearest = large_base.LargeBase.nearest
    monkeypatch.setattr(neighbour_table, "LARGE", 39)
    monkeypatch.setattr(
        large_base.LargeBase, "nearest", lambda self, *given: asked.append(len(given[0])) or nearest(self, *given)
    )
    table = NeighbourTable(knowledge, 4)
    assert len(table.index) == 0
    for rows in ([3, 38, 3], [38, 0], [3]):
        index, similarity = table.lookup(torch.tensor(rows))
        assert torch.equal(index, whole.index[rows])
        torch.testing.assert_close(similarity, whole.similarity[rows])
    assert asked == [2, 1]
    assert len(table.index) == 3
    with pytest.raises(IndexError, match="unknown name or a control"):
        table.lookup(torch.tensor([-1]))


@pytest.mark.parametrize("sources", [1, 2])
def test_what_retrieves_gets_the_same_candidates_from_a_large_base(monkeypatch, sources):
    torch.manual_seed(6)
    blocks = {f"s{number}": torch.randn(30, 4) for number in range(sources)}
    knowledge = Knowledge([f"G{i}" for i in range(30)], blocks)
    base, rows = Base(knowledge, nn.Identity()), torch.tensor([4, 9, 4])
    found = []
    for large in (30, 29):
        monkeypatch.setattr(neighbour_table, "LARGE", large)
        retriever = TableRetriever(sources)
        retriever.prepare(knowledge, 6)
        found.append(retriever.look_up(rows, base, torch.device("cpu")))
    whole, asked = found
    for name in ("rows", "embeddings", "index"):
        assert torch.equal(getattr(whole, name), getattr(asked, name))
    torch.testing.assert_close(whole.similarity, asked.similarity)
    assert sources == 1 or torch.equal(whole.proposed, asked.proposed)


def test_a_cosine_counts_less_the_farther_treatments_are():
    generator = torch.Generator().manual_seed(0)
    rows, where = torch.randn(9, 4, generator=generator), torch.randn(9, 2, generator=generator)
    table = NeighbourTable(Knowledge(list("ABCDEFGHI"), {"text": rows}, 8, where, {}), 3)
    cosine = torch.nn.functional.cosine_similarity(rows[:, None], rows[None], dim=2)
    product = cosine * torch.exp(-0.5 * (where[:, None] - where[None]).square().sum(2))
    for row in range(9):
        expected = sorted((p for p in range(8) if p != row), key=lambda other: -float(product[row, other]))[:3]
        assert table.index[row].tolist() == expected
        assert torch.allclose(table.similarity[row], product[row, expected], atol=1e-6)
