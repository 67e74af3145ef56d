import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from state_rag.embeddings.similar import most_similar
from state_rag.embeddings.table import Embeddings
from state_rag.errors import StateRagError


@given(seed=st.integers(0, 1000), count=st.integers(1, 12))
def test_neighbours_are_those_of_a_plain_loop(seed, count):
    rng = np.random.default_rng(seed)
    table = Embeddings(tuple("ABCDEFGHIJ"), rng.standard_normal((10, 4)), "x")
    query = table.row("C")
    cosines = {}
    for name, row in zip(table.names, table.vectors, strict=True):
        if name != "C":
            cosines[name] = float(row @ query / np.linalg.norm(row) / np.linalg.norm(query))
    expected = sorted(cosines, key=lambda name: -cosines[name])[:count]
    _, near = most_similar(table, "C", count)
    assert [one.names for one in near] == [(name,) for name in expected]
    assert [one.cosine for one in near] == pytest.approx([cosines[name] for name in expected], abs=1e-5)


def test_names_with_one_vector_count_as_one_neighbour():
    vectors = np.array([[1, 0], [1, 0], [1, 1], [0, 1], [1, 1]], np.float32)
    aliases, near = most_similar(Embeddings(("AARS", "AARS1", "HARS", "X", "HARS1"), vectors, "x"), "AARS", 2)
    assert aliases == ("AARS1",)
    assert [one.names for one in near] == [("HARS", "HARS1"), ("X",)]


def test_an_unknown_gene_or_no_neighbours_is_refused(table):
    with pytest.raises(StateRagError, match="no embedding for 'COPB'; close spellings: COPB -> COPB1"):
        most_similar(table, "COPB")
    with pytest.raises(StateRagError, match="must be at least 1, found 0"):
        most_similar(table, "COPB1", 0)
