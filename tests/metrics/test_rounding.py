import numpy as np

from state_rag.metrics.rounding import difference


def test_a_difference_is_zero_where_it_is_a_small_share_of_the_larger_value():
    rng = np.random.default_rng(0)
    first = rng.normal(size=(4, 50)) * 10.0 ** rng.integers(-8, 8, size=(4, 50))
    second = first * (1 + rng.choice([0, 1e-9, 1e-7, 1e-5, 1], size=first.shape))
    found = difference(first, second, 1e-6)
    for place in np.ndindex(first.shape):
        apart = first[place] - second[place]
        near = abs(apart) < 1e-6 * max(abs(first[place]), abs(second[place]))
        assert found[place] == (0 if near else apart)


def test_nan_and_infinity_stay():
    found = difference(np.array([np.nan, np.inf, 1.0]), np.array([1.0, 1.0, np.nan]), 1e-6)
    assert np.isnan(found[[0, 2]]).all()
    assert found[1] == np.inf
