import numpy as np
import pytest

from state_rag.effects.row_store import RowStore
from state_rag.metrics.row_blocks import row_blocks


def test_a_store_reads_back_what_was_written_and_zeros_elsewhere():
    rng = np.random.default_rng(0)
    expected = np.zeros((7, 5), np.float32)
    store = RowStore(7, 5, np.float32)
    for row in (3, 0, 6):
        expected[row] = store[row] = rng.normal(size=5)
    np.testing.assert_array_equal(np.asarray(store), expected)
    np.testing.assert_array_equal(store[2:5], expected[2:5])
    np.testing.assert_array_equal(store[-1], expected[-1])
    assert store[5:2].shape == (0, 5)
    assert np.asarray(store, dtype=np.float64).dtype == np.float64


def test_masks_and_single_values_can_be_stored():
    store = RowStore(2, 3, np.bool_)
    store[1] = True
    assert store[:].tolist() == [[False] * 3, [True] * 3]


def test_rows_outside_the_store_and_gaps_are_refused():
    store = RowStore(2, 3, np.float32)
    with pytest.raises(IndexError):
        store[2] = 0
    with pytest.raises(IndexError):
        store[2]
    with pytest.raises(ValueError, match="without gaps"):
        store[::2]


def test_blocks_cover_every_row_once():
    rows = [row for part in row_blocks(10, 4) for row in range(10)[part]]
    assert rows == list(range(10))


def test_consecutive_rows_are_written_at_once_and_a_store_grows_by_zeros():
    store = RowStore(3, 2, np.float64)
    store[1:3] = [[1, 2], [3, 4]]
    store.grow(5)
    store.grow(2)
    store[4:5] = 7
    assert store[:].tolist() == [[0, 0], [1, 2], [3, 4], [0, 0], [7, 7]]
    with pytest.raises(ValueError, match="without gaps"):
        store[0:4:2] = 1
