"""The table of nodes tells what scikit-learn's trees tell."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import ExtraTreesRegressor

from state_rag.evidence.trust.trees import LEAF, SHARE, TREES, grow, tell


@settings(deadline=None, max_examples=8)
@given(rows=st.integers(1, 80), columns=st.integers(1, 5), seed=st.integers(0, 99))
def test_it_tells_what_the_forest_predicts(rows, columns, seed):
    rng = np.random.default_rng(seed)
    signs, target = rng.normal(size=(rows, columns)), rng.normal(size=rows)
    forest = ExtraTreesRegressor(TREES, min_samples_leaf=LEAF, max_features=SHARE, random_state=seed)
    forest.fit(signs, target)
    asked = np.concatenate([signs, 3 * rng.normal(size=(50, columns))])
    np.testing.assert_allclose(tell(grow(signs, target, seed), asked), forest.predict(asked), rtol=1e-12, atol=1e-12)


def test_a_constant_target_is_told_everywhere():
    told = tell(grow(np.random.default_rng(0).normal(size=(40, 3)), np.full(40, 0.25)), np.zeros((5000, 3)))
    assert told == pytest.approx(np.full(5000, 0.25))


def test_the_same_seed_grows_the_same_trees():
    rng = np.random.default_rng(0)
    signs, target = rng.normal(size=(60, 3)), rng.normal(size=60)
    np.testing.assert_array_equal(grow(signs, target, 1), grow(signs, target, 1))
