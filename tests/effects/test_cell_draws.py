import numpy as np

from state_rag.effects.cell_draws import choose_cells, condition_generator, content_keys


def cells(n=40, seed=0):
    return np.random.default_rng(seed).normal(size=(n, 5)).astype(np.float32)


def test_the_same_cells_are_chosen_in_the_same_order_wherever_they_lie():
    x = cells()
    order = np.random.default_rng(1).permutation(len(x))
    y = x[order]
    np.testing.assert_array_equal(x[choose_cells([content_keys(x)], 12)], y[choose_cells([content_keys(y)], 12)])
    in_blocks = choose_cells((content_keys(block) for block in np.array_split(y, 7)), 12)
    np.testing.assert_array_equal(x[choose_cells([content_keys(x)], 12)], y[in_blocks])


def test_another_seed_chooses_other_cells_and_every_cell_is_as_likely():
    x = cells()
    counts = np.zeros(len(x))
    for seed in range(400):
        counts[choose_cells([content_keys(x, seed)], 10)] += 1
    assert counts.sum() == 4000
    np.testing.assert_allclose(counts / 400, 0.25, atol=0.1)


def test_negative_zero_and_other_float_types_have_the_same_keys():
    x = cells()
    x[0] = 0
    minus = x.astype(np.float64)
    minus[0] = -0.0
    np.testing.assert_array_equal(content_keys(minus), content_keys(x))


def test_a_conditions_generator_is_its_own():
    draws = {
        tuple(condition_generator(seed, line, name).integers(0, 2**60, 3))
        for seed in (0, 1)
        for line, name in (("a", "b"), ("b", "a"), ("ab", ""), ("a", "c"))
    }
    assert len(draws) == 8
    assert condition_generator(3, "a", "b").random() == condition_generator(3, "a", "b").random()
