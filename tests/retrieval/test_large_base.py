"""A base too large for a table: what an index finds against the exact search, and what is said without one."""

import importlib.util
import logging

import pytest
import torch

from state_rag.errors import StateRagError
from state_rag.retrieval import large_base
from state_rag.retrieval.large_base import LargeBase
from state_rag.retrieval.neighbours import top_neighbours

needs_faiss = pytest.mark.skipif(importlib.util.find_spec("faiss") is None, reason="the extra faiss is not installed")


def clusters(count, width=24, seed=0):
    draw = torch.Generator().manual_seed(seed)
    centres = torch.randn(count // 20, width, generator=draw)
    rows = centres[torch.randint(len(centres), (count,), generator=draw)]
    return rows + 0.3 * torch.randn(count, width, generator=draw)


@pytest.fixture
def no_faiss(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "faiss" else find(name, *a))


@needs_faiss
def test_an_index_finds_what_it_promises_with_the_similarities_of_the_exact_search():
    base = clusters(6000)
    asked = torch.arange(0, 6000, 17)
    found = LargeBase(base, 10, "faiss")
    index, similarity = found.nearest(base[asked], asked)
    exact, alike = top_neighbours(base[asked], base, 10, asked)
    hits = (index[:, :, None] == exact[:, None]).any(1)
    assert hits.double().mean() >= 0.98  # .99 over other rows
    assert found.recall >= 0.99
    assert found.cells < 310  # of 310
    assert not (index == asked[:, None]).any()
    assert (similarity[:, :-1] >= similarity[:, 1:]).all()
    same = (index == exact).all(1)
    assert same.sum() > 200
    torch.testing.assert_close(similarity[same], alike[same], rtol=0, atol=0)


@needs_faiss
def test_an_index_is_the_same_each_time():
    base = clusters(2000)
    first, second = (LargeBase(base, 5, "faiss").nearest(base[:50], torch.arange(50)) for _ in range(2))
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


@needs_faiss
def test_structureless_vectors_are_searched_in_as_many_cells_as_it_takes():
    base = torch.randn(1500, 40, generator=torch.Generator().manual_seed(1))
    found = LargeBase(base, 8, "faiss")
    index, _ = found.nearest(base, torch.arange(1500))
    exact, _ = top_neighbours(base, base, 8, torch.arange(1500))
    assert (index[:, :, None] == exact[:, None]).any(1).double().mean() >= 0.98


@needs_faiss
@pytest.mark.parametrize("count", [3, 70])
def test_a_base_of_few_rows_equal_rows_and_zeros_is_searched_as_exactly(count):
    base = torch.zeros(count, 4)
    base[: count // 2 + 1] = torch.tensor([1.0, 2.0, 0.0, 0.0])
    own = torch.tensor([0, -1])
    index, similarity = LargeBase(base, 2, "faiss").nearest(base[:2], own)
    exact, alike = top_neighbours(base[:2], base, 2, own)
    assert torch.equal(similarity, alike)
    assert count > 3 or torch.equal(index, exact)
    assert LargeBase(base, 2, "faiss").nearest(base[:0], own[:0])[0].shape == (0, 2)


@pytest.mark.parametrize("scale", [1e-30, 1e-15, 1.0, 1e15])
def test_comparing_all_gives_what_the_exact_search_gives(monkeypatch, scale):
    monkeypatch.setattr(large_base, "CHUNK_ELEMENTS", 1500)
    draw = torch.Generator().manual_seed(2)
    base = clusters(500) + 100  # nearly parallel, so that float32 alone would err
    base[100:150] = base[0]  # equal rows
    base[7] = 0
    base[200:210] = base[1] + 1e-5 * torch.randn(10, base.shape[1], generator=draw)
    base, asked = base * scale, torch.tensor([0, 1, 7, 120, 205, 499])
    for own in (asked, torch.full((6,), -1)):
        with torch.autocast("cpu", torch.bfloat16):
            found = LargeBase(base, 20, "exact").nearest(base[asked], own)
        exact = top_neighbours(base[asked], base, 20, own)
        assert torch.equal(found[0], exact[0])
        assert torch.equal(found[1], exact[1])


def test_without_faiss_all_are_compared_and_the_cost_is_said_once(no_faiss, caplog):
    base = clusters(200)
    found = LargeBase(base, 3)
    with caplog.at_level(logging.WARNING):
        for rows in (torch.arange(5), torch.arange(9)):
            index, _ = found.nearest(base[rows], rows)
            assert torch.equal(index, top_neighbours(base[rows], base, 3, rows)[0])
    assert [record.message.count("state-rag[faiss]") for record in caplog.records] == [1]
    assert "200 perturbations are compared one by one" in caplog.text
    assert (found.recall, found.cells) == (1.0, None)


def test_a_backend_that_is_missing_or_unknown_is_refused(no_faiss):
    with pytest.raises(StateRagError, match=r"pip install 'state-rag\[faiss\]'"):
        LargeBase(torch.ones(3, 2), 1, "faiss")
    with pytest.raises(StateRagError, match="unknown backend 'annoy'; choose auto, exact, faiss"):
        LargeBase(torch.ones(3, 2), 1, "annoy")
    with pytest.raises(StateRagError, match="topk_rag is 3, but 2 candidates"):
        LargeBase(torch.ones(3, 2), 3).nearest(torch.ones(1, 2), torch.tensor([0]))


@needs_faiss
def test_cells_that_hold_too_few_rows_are_no_end(monkeypatch):
    monkeypatch.setattr(large_base, "POINTS_A_CELL", 4)
    base = clusters(400)
    index, _ = LargeBase(base, 60, "faiss", recall=0.0).nearest(base[:20], torch.arange(20))
    assert (index[:, :1] == top_neighbours(base[:20], base, 60, torch.arange(20))[0][:, :1]).all()
    assert all(len(set(row)) == 60 for row in index.tolist())
