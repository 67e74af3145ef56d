"""Cells with a wanted mean: controls, or a model's cells, moved gene by gene."""

import numpy as np

LARGEST_FACTOR = 1.5
"""Expression is scaled up to this factor; what is still lacking is added to every cell."""


def drawn_from(pool: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Return `count` members of a pool, none twice while others are left."""
    rounds = [rng.permutation(pool) for _ in range(-(-count // len(pool)))]
    return np.concatenate(rounds)[:count]


def brought_to_mean(cells: np.ndarray, mean: np.ndarray, *, expression: bool) -> np.ndarray:
    """Return cells whose mean is the wanted one: scaled where they are expression, else shifted."""
    return scaled_to_mean(cells, mean) if expression else shifted_to_mean(cells, mean)


def scaled_to_mean(cells: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Return cells of expression whose mean is the wanted one.

    Each gene is multiplied by one factor, so zeros stay zeros and cells keep their differences; where that takes more
    than `LARGEST_FACTOR`, or no cell expresses the gene, the rest is added to all cells.

    Parameters
    ----------
    cells
        `[n, G]`, none negative.
    mean
        `[G]`; negative values count as zero.

    Returns
    -------
    numpy.ndarray
        float32 `[n, G]`, none negative.

    Examples
    --------
    >>> scaled_to_mean(np.array([[0.0, 2.0], [2.0, 2.0]]), np.array([1.25, 5.0])).tolist()
    [[0.0, 5.0], [2.5, 5.0]]
    """
    own = cells.mean(axis=0, dtype=np.float64)
    wanted = np.maximum(np.asarray(mean, dtype=np.float64), 0)
    factor = np.divide(wanted, own, out=np.zeros_like(own), where=own > 0)
    factor = np.minimum(factor, LARGEST_FACTOR)
    return (cells * factor + (wanted - own * factor)).astype(np.float32)


def shifted_to_mean(cells: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Return cells of a space that is not expression, `[n, D]`, all moved alike so that they have the wanted mean."""
    return (cells + (np.asarray(mean, dtype=np.float64) - cells.mean(axis=0, dtype=np.float64))).astype(np.float32)
