import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from state_rag.contract.align import align
from state_rag.errors import StateRagError

GENES = st.lists(st.sampled_from([f"G{number}" for number in range(12)]), unique=True, min_size=1)


@given(GENES, GENES)
def test_every_expected_gene_is_found_where_it_lies(expected, given_names):
    found = align(expected, given_names)
    for name, place in zip(expected, found.places.tolist(), strict=True):
        assert (place == -1) == (name not in given_names)
        assert place == -1 or given_names[place] == name
    assert set(found.missing) == set(expected) - set(given_names)
    assert set(found.extra) == set(given_names) - set(expected)
    assert found.is_identity == (expected == given_names)


@given(st.permutations([f"G{number}" for number in range(9)]))
def test_an_order_is_told_in_words(order):
    found = align(sorted(order), order)
    assert found.words == ("" if order == sorted(order) else "in another order")


def test_a_gene_that_is_there_twice_is_refused_where_it_is_needed():
    with pytest.raises(StateRagError, match=r"occur more than once among the given columns \(A\)"):
        align(["A", "B"], ["A", "B", "A"])
    assert align(["B"], ["A", "B", "A"]).places.tolist() == [1]
    with pytest.raises(StateRagError, match="among the expected"):
        align(["A", "A"], ["A", "B"])
    assert np.array_equal(align(["A", "A"], ["A", "A"]).places, [0, 1])
