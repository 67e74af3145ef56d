import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from state_rag.cells.anchored import LARGEST_FACTOR, brought_to_mean, redetected, scaled_to_mean, shifted_to_mean

CELLS = arrays(np.float32, (6, 4), elements=st.floats(0, 8, width=32).map(lambda value: value if value > 0.01 else 0.0))
MEANS = arrays(np.float64, 4, elements=st.floats(-2, 8))


@given(CELLS, MEANS)
def test_scaled_cells_have_the_wanted_mean_and_none_is_negative(cells, mean):
    found = scaled_to_mean(cells, mean)
    assert np.allclose(found.mean(axis=0), np.maximum(mean, 0), atol=1e-4)
    assert (found >= -1e-4).all()


@given(CELLS, MEANS)
def test_zeros_stay_zeros_where_a_factor_will_do(cells, mean):
    found = scaled_to_mean(cells, mean)
    own = cells.mean(axis=0, dtype=np.float64)
    enough = (own > 0) & (np.maximum(mean, 0) <= own * LARGEST_FACTOR)
    assert (found[:, enough][cells[:, enough] == 0] == 0).all()


def test_cells_with_the_wanted_mean_stay_as_they_are():
    cells = np.random.default_rng(0).random((20, 5)).astype(np.float32)
    assert np.allclose(scaled_to_mean(cells, cells.mean(axis=0)), cells, atol=1e-6)


@given(arrays(np.float32, (6, 4), elements=st.floats(-8, 8, width=32)), MEANS)
def test_shifted_cells_have_the_wanted_mean_and_keep_their_differences(cells, mean):
    found = shifted_to_mean(cells, mean)
    assert np.allclose(found.mean(axis=0), mean, atol=1e-4)
    assert np.allclose(found - found[0], cells - cells[0], atol=1e-4)


def test_scaling_does_not_hang_on_the_order_of_cells():
    rng = np.random.default_rng(1)
    cells, mean, order = rng.random((9, 3)), rng.random(3), rng.permutation(9)
    assert scaled_to_mean(cells[order], mean) == pytest.approx(scaled_to_mean(cells, mean)[order])


@given(CELLS, MEANS, st.integers(0, 5))
def test_cells_made_of_controls_have_the_wanted_mean_and_none_is_negative(cells, mean, seed):
    found = brought_to_mean(cells, mean, np.random.default_rng(seed), expression=True)
    assert np.allclose(found.mean(axis=0), np.maximum(mean, 0), atol=1e-4)
    assert (found >= -1e-4).all()
    again = brought_to_mean(cells, mean, np.random.default_rng(seed), expression=True)
    assert np.array_equal(found, again)


@given(CELLS, MEANS)
def test_as_many_cells_show_a_gene_as_poisson_counts_would(cells, mean):
    found = redetected(cells, mean, np.random.default_rng(0))
    for gene in range(cells.shape[1]):
        before, own = (cells[:, gene] > 0).mean(), float(cells[:, gene].mean(dtype=np.float64))
        wanted = max(mean[gene], 0.0)
        if own == 0:
            continue
        expected = round((1 - (1 - before) ** (wanted / own)) * len(cells))
        assert (found[:, gene] > 0).sum() == min(max(expected, int(wanted > 0)), len(cells))


@given(CELLS, MEANS)
def test_values_of_cells_that_show_a_gene_before_and_after_stay_and_new_ones_are_values_of_others(cells, mean):
    found = redetected(cells, mean, np.random.default_rng(0))
    both = (cells > 0) & (found > 0)
    assert np.array_equal(found[both], cells[both])
    for gene in np.flatnonzero((cells > 0).any(axis=0)):
        assert set(found[found[:, gene] > 0, gene]) <= set(cells[:, gene])


def test_a_gene_that_every_cell_shows_is_scaled_alone():
    cells = 1 + np.random.default_rng(0).random((20, 5)).astype(np.float32)
    mean = 1.2 * cells.mean(axis=0)
    found = brought_to_mean(cells, mean, np.random.default_rng(1), expression=True)
    assert np.allclose(found, 1.2 * cells, atol=1e-5)


def test_a_gene_that_no_cell_showed_comes_to_be_shown_by_a_few_at_the_level_of_others():
    cells = np.zeros((10, 2), dtype=np.float32)
    cells[:5, 0] = 2
    found = brought_to_mean(cells, np.array([1.0, 0.4]), np.random.default_rng(0), expression=True)
    assert sorted(found[:, 1].tolist()) == [0] * 8 + [2, 2]


def test_zeros_of_counts_are_those_of_counts_with_the_wanted_mean():
    rng = np.random.default_rng(0)
    low, high = rng.poisson(0.4, (4000, 3)), rng.poisson(0.8, (4000, 3))
    for start, wanted in ((low, high), (high, low)):
        found = brought_to_mean(start.astype(np.float32), wanted.mean(axis=0), rng, expression=True)
        assert np.allclose((found == 0).mean(axis=0), (wanted == 0).mean(axis=0), atol=0.03)
        scaled = scaled_to_mean(start.astype(np.float32), wanted.mean(axis=0))
        assert np.abs((scaled == 0).mean(axis=0) - (wanted == 0).mean(axis=0)).min() > 0.1
