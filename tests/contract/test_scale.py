import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from state_rag.contract.scale import Scale, ScaleTally, difference, measure


@pytest.fixture
def counts():
    rng = np.random.default_rng(0)
    return rng.poisson(rng.gamma(1.0, 2.0, 40), (200, 40)).astype(float) + np.eye(200, 40)


def normalised(counts, total):
    return counts / counts.sum(axis=1, keepdims=True) * total


def test_counts_logarithms_and_their_total_are_told_apart(counts):
    scaled = normalised(counts, 1e4)
    assert measure(counts).kind == "counts"
    assert measure(np.log1p(counts)).kind == "log counts"
    assert measure(scaled).kind == "linear"
    logged = measure(np.log1p(scaled))
    assert (logged.kind, logged.base, logged.total) == ("log1p", "e", pytest.approx(1e4, rel=1e-3))
    assert measure(np.log1p(scaled) / np.log(2)).base == "2"
    assert measure(np.log1p(scaled) / np.log(10)).base == "10"
    assert measure(np.log1p(scaled) - 1).kind == "signed"
    assert measure(0 * counts).kind == "empty"


def test_some_genes_of_a_normalised_matrix_have_no_one_total(counts):
    part = measure(np.log1p(normalised(counts, 1e4))[:, :9])
    assert (part.kind, part.total) == ("log1p", None)


def test_cells_normalised_to_less_than_one_are_no_counts(counts):
    assert measure(np.log1p(normalised(counts, 1.0))).kind == "log1p"


def test_what_is_no_number_is_counted_and_does_not_hide_the_rest(counts):
    values = np.log1p(normalised(counts, 1e4))
    values[3, 4], values[5, 6], values[7, 8] = np.nan, np.inf, -np.inf
    scale = measure(values)
    assert (scale.nan, scale.infinite, scale.kind, scale.is_finite) == (1, 2, "log1p", False)


def test_empty_cells_and_columns_are_found(counts):
    counts[[2, 9]], counts[:, 7] = 0, 0
    scale = measure(counts)
    assert (scale.empty_cells, scale.empty_columns) == (2, (7,))


@given(
    arrays(np.float32, (12, 5), elements=st.floats(0, 8, width=32)),
    st.lists(st.integers(1, 11), unique=True, max_size=4).map(sorted),
)
def test_blocks_add_up_to_the_whole(values, cuts):
    tally = ScaleTally(5)
    for block in np.split(values, cuts):
        tally.add(block)
    assert tally.finish() == measure(values)


def test_a_scale_comes_back_from_plain_types(counts):
    scale = measure(np.log1p(counts))
    assert Scale.from_dict(scale.to_dict()) == scale


@pytest.mark.parametrize(
    ("other", "wrong", "words"),
    [
        (lambda x: x, True, "counts"),
        (lambda x: np.log1p(normalised(x, 1e4)) / np.log(2), True, "base 2"),
        (lambda x: np.log1p(normalised(x, 2e4)), True, "20,000, where 10,000"),
        (lambda x: np.log1p(normalised(x, 1.2e4)), False, "12,000, where 10,000"),
        (lambda x: np.log1p(normalised(x, 1e4)) - 0.5, True, "both signs"),
    ],
)
def test_another_scale_is_told_from_a_less_exact_one(counts, other, wrong, words):
    found = difference(measure(np.log1p(normalised(counts, 1e4))), measure(other(counts)))
    assert found.is_wrong == wrong
    assert words in found.text


def test_the_same_scale_and_an_empty_matrix_do_not_differ(counts):
    known = measure(np.log1p(normalised(counts, 1e4)))
    assert difference(known, measure(np.log1p(normalised(counts[:50], 1.05e4)))) is None
    assert difference(known, measure(0 * counts)) is None
