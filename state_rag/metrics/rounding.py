"""Differences of means of which rounding may be all that is left."""

import numpy as np


def difference(first: np.ndarray, second: np.ndarray, share: float) -> np.ndarray:
    """Return `first - second`, zero where they are within a share of the larger of both; infinity stays.

    Statistics that take no notice of scale, such as correlations and t, would make something of such remains.

    Parameters
    ----------
    first, second
        Arrays that go together.
    share
        Of the level, by which equal means may differ as they are added up or stored.

    Examples
    --------
    >>> difference(np.array([0.1 + 0.2, 2.0]), np.array([0.3, 1.0]), 1e-12).tolist()
    [0.0, 1.0]
    """
    apart: np.ndarray = first - second
    apart[np.abs(apart) < share * np.maximum(np.abs(first), np.abs(second))] = 0.0
    return apart
