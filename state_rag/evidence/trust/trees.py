"""Extremely randomised trees as one table of nodes: grown by scikit-learn, kept and asked without it.

Geurts, Ernst and Wehenkel (2006), Machine Learning 63, 3-42.
"""

from __future__ import annotations

import numpy as np

TREES = 100
LEAF = 5
"""Conditions in a leaf, at least."""

SHARE = 0.5
"""Of the signs, those that a node may divide by."""

AT_ONCE = 2048
"""Rows that go down the trees together."""

NONE = np.zeros((0, 5))
"""No trees."""


def grow(signs: np.ndarray, target: np.ndarray, seed: int = 0) -> np.ndarray:
    """Return the nodes of trees that tell a target [N] from signs [N, F].

    Returns
    -------
    numpy.ndarray
        float64 [M, 5]: the rows of both children, or -1 and the row itself in a leaf; the sign that divides, the value
        up to which it goes left, and what a leaf tells. The first `TREES` rows are the roots.
    """
    from sklearn.ensemble import ExtraTreesRegressor  # brings pandas with it

    forest = ExtraTreesRegressor(TREES, min_samples_leaf=LEAF, max_features=SHARE, random_state=seed)
    grown = [one.tree_ for one in forest.fit(signs, target).estimators_]
    # Roots first, then each tree's other nodes: node 0 of tree t is row t, node n > 0 is row start_t + n.
    starts = np.cumsum([len(grown), *(one.node_count - 1 for one in grown)])[:-1] - 1
    roots, others = [], []
    for number, (one, start) in enumerate(zip(grown, starts, strict=True)):
        own = np.append(number, start + np.arange(1, one.node_count))
        leaf = one.children_left < 0
        left = np.where(leaf, -1, start + one.children_left)
        right = np.where(leaf, own, start + one.children_right)
        nodes = np.stack([left, right, np.maximum(one.feature, 0), one.threshold, one.value[:, 0, 0]], 1)
        roots.append(nodes[:1])
        others.append(nodes[1:])
    return np.concatenate([*roots, *others]).astype(np.float64)


def tell(nodes: np.ndarray, signs: np.ndarray) -> np.ndarray:
    """Return the mean of what all trees tell of signs [N, F], float64 [N].

    Parameters
    ----------
    nodes
        Of `grow`.
    signs
        Compared in float32, as scikit-learn does.
    """
    left, right, sign = (nodes[:, column].astype(np.int64) for column in range(3))
    threshold, value = nodes[:, 3], nodes[:, 4]
    found = np.empty(len(signs))
    for start in range(0, len(signs), AT_ONCE):
        own = np.asarray(signs[start : start + AT_ONCE], dtype=np.float32).astype(np.float64)
        rows = np.arange(len(own))[:, None]
        at = np.repeat(np.arange(TREES)[None], len(own), axis=0)
        while (inner := left[at] >= 0).any():
            goes_left = own[rows, sign[at]] <= threshold[at]
            at = np.where(inner & goes_left, left[at], right[at])
        found[start : start + AT_ONCE] = value[at].mean(1)
    return found
