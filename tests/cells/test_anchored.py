import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from state_rag.cells.anchored import LARGEST_FACTOR, scaled_to_mean, shifted_to_mean

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
    assert (np.abs(found[:, enough][cells[:, enough] == 0]) < 1e-4).all()


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
