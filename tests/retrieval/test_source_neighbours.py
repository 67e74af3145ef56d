"""Candidates from several sources: who proposes whom, against a search by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from state_rag.errors import StateRagError
from state_rag.retrieval import neighbour_table
from state_rag.retrieval.knowledge import Knowledge
from state_rag.retrieval.source_neighbours import SourceNeighbours


def knowledge_of(*blocks, n_candidates=None):
    names = [f"G{row}" for row in range(len(blocks[0]))]
    return Knowledge(names, {f"s{number}": block for number, block in enumerate(blocks)}, n_candidates)


def cosine(a, b):
    norm = np.linalg.norm(a) * np.linalg.norm(b)
    return float(a @ b / norm) if norm else 0.0


def by_hand(blocks, k, n_base, row):
    """Return the candidates of a row as sets of sources, best rank first, by loops."""
    ranks: dict[int, tuple[int, int]] = {}
    proposed: dict[int, set[int]] = {}
    others = [other for other in range(n_base) if other != row]
    for source, block in enumerate(blocks):
        alike = {other: cosine(block[row], block[other]) for other in others}
        nearest = sorted(others, key=lambda other, alike=alike: (-round(alike[other] * 2**30), other))[:k]
        for rank, other in enumerate(nearest):
            if round(alike[other] * 2**30) > 0:
                ranks[other] = min(ranks.get(other, (rank, source)), (rank, source))
                proposed.setdefault(other, set()).add(source)
    chosen = sorted(ranks, key=ranks.__getitem__)[:k]
    mean = {other: np.mean([cosine(block[row], block[other]) for block in blocks]) for other in others}
    rest = sorted(set(others) - set(chosen) - set(ranks), key=lambda other: (-mean[other], other))
    return [(other, proposed.get(other, set())) for other in [*chosen, *rest][:k]]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 6))
def test_candidates_are_those_with_the_best_rank_in_any_source(seed, k):
    rng = np.random.default_rng(seed)
    blocks = [rng.normal(size=(9, width)) for width in (4, 3)]
    for block in blocks:
        block[rng.random(9) < 0.3] = 0  # a source does not know everything
    table = SourceNeighbours(knowledge_of(*map(torch.from_numpy, blocks), n_candidates=8), k)
    blocks = [block.astype(np.float32).astype(np.float64) for block in blocks]
    for row in range(9):
        wanted = by_hand(blocks, k, 8, row)
        said = [set(np.flatnonzero(by).tolist()) for by in table.proposals.by[row].numpy()]
        assert sorted(said, key=sorted) == sorted((by for _, by in wanted), key=sorted)
        sure = [place for place, (_, by) in enumerate(wanted) if by]
        assert table.index[row, sure].tolist() == [wanted[place][0] for place in sure]
        for place in sure:
            other = wanted[place][0]
            alike = [cosine(block[row], block[other]) for block in blocks]
            assert table.proposals.cosines[row, place].tolist() == pytest.approx(alike, abs=1e-5)
            assert float(table.similarity[row, place]) == pytest.approx(
                max(alike[s] for s in wanted[place][1]), abs=1e-5
            )


def test_a_source_that_does_not_know_the_query_leaves_its_places_to_the_others():
    text = torch.tensor([[1.0, 0.1], [1.0, 0.2], [1.0, 0.3], [1.0, 0.4], [0.0, 0.0]])
    sets = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    table = SourceNeighbours(knowledge_of(text, sets), 3)
    assert table.index[0].tolist() == [1, 2, 3]
    assert table.proposals.by[0].tolist() == [[True, False]] * 3
    assert table.index[4].tolist()[:2] == [1, 2]
    assert table.proposals.by[4].tolist()[:2] == [[False, True]] * 2
    assert table.index[4, 2] in (0, 3)  # nobody proposes a third
    assert not table.proposals.by[4, 2].any()


def test_nobody_is_a_candidate_of_itself_and_rows_that_only_ask_are_of_nobody():
    rng = torch.Generator().manual_seed(0)
    blocks = [torch.randn(12, width, generator=rng) for width in (5, 3)]
    table = SourceNeighbours(knowledge_of(*blocks, n_candidates=10), 9)
    assert (table.index[:10] != torch.arange(10)[:, None]).all()
    assert (table.index < 10).all()
    assert all(len(set(row)) == 9 for row in table.index.tolist())


def test_where_entries_lie_somewhere_a_cosine_counts_as_they_are_near_in_every_source():
    rng = np.random.default_rng(0)
    blocks = [rng.normal(size=(9, width)) for width in (4, 3)]
    blocks[1][[0, 3]] = 0
    where = rng.normal(size=(9, 2))
    near = np.exp(-0.5 * np.square(where[:, None] - where[None]).sum(-1))
    names = [f"G{row}" for row in range(9)]
    sources = {f"s{number}": torch.from_numpy(block) for number, block in enumerate(blocks)}
    table = SourceNeighbours(Knowledge(names, sources, 8, torch.from_numpy(where), {}), 5)
    for row in range(9):
        alike = np.array(
            [[cosine(block[row], block[other]) * near[row, other] for other in range(8)] for block in blocks]
        )
        ranks = {}
        for source, own in enumerate(alike):
            order = [other for other in np.argsort(-own, kind="stable").tolist() if other != row and own[other] > 0][:5]
            for rank, other in enumerate(order):
                ranks[other] = min(ranks.get(other, (rank, source)), (rank, source))
        wanted = sorted(ranks, key=ranks.__getitem__)[:5]
        assert table.index[row, : len(wanted)].tolist() == wanted
        for place, other in enumerate(wanted):
            np.testing.assert_allclose(table.proposals.cosines[row, place], alike[:, other], atol=1e-5)
    assert not table.proposals.by[0, :, 1].any()  # which the second does not know


def test_more_candidates_than_there_are_is_refused():
    with pytest.raises(StateRagError, match="training.topk_rag is 4, but 3 candidates"):
        SourceNeighbours(knowledge_of(torch.eye(4), torch.eye(4)), 4)


def test_a_large_base_has_the_same_candidates_for_those_that_ask(monkeypatch):
    rng = np.random.default_rng(3)
    blocks = [rng.normal(size=(60, width)) for width in (4, 3)]
    for block in blocks:
        block[rng.random(60) < 0.5] = 0  # many propose less than K
    blocks[1][:50] = 0
    knowledge = knowledge_of(*map(torch.from_numpy, blocks), n_candidates=55)
    whole = SourceNeighbours(knowledge, 30)
    monkeypatch.setattr(neighbour_table, "LARGE", 20)
    table = SourceNeighbours(knowledge, 30)
    for rows in ([7, 59, 3], list(range(60))):
        places = table.places(torch.tensor(rows))
        assert torch.equal(table.index[places], whole.index[rows])
        torch.testing.assert_close(table.similarity[places], whole.similarity[rows])
        assert torch.equal(table.proposals.by[places], whole.proposals.by[rows])
        torch.testing.assert_close(table.proposals.cosines[places], whole.proposals.cosines[rows])
