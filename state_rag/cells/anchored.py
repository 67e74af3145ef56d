"""Cells with a wanted mean: controls, or a model's cells, moved gene by gene.

Where a gene's mean rises in real cells, more of them show the gene; where it falls, fewer do. Multiplying alone keeps
every zero, and the cells look less like real ones.
"""

import numpy as np

LARGEST = 14.0
"""STATE clips what it predicts of genes, and what it compares with, to [0, 14]."""

LARGEST_FACTOR = 1.5
"""Expression is scaled up to this factor; what is still lacking is added to every cell."""


def drawn_from(pool: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Return `count` members of a pool, none twice while others are left."""
    rounds = [rng.permutation(pool) for _ in range(-(-count // len(pool)))]
    return np.concatenate(rounds)[:count]


def brought_to_mean(cells: np.ndarray, mean: np.ndarray, rng: np.random.Generator, *, expression: bool) -> np.ndarray:
    """Return cells whose mean is the wanted one, with the zeros that go with it; no expression is shifted instead."""
    return scaled_to_mean(redetected(cells, mean, rng), mean) if expression else shifted_to_mean(cells, mean)


def redetected(cells: np.ndarray, mean: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return cells of expression in which as many show each gene as counts with the wanted mean would have.

    A cell shows a gene where the value is above zero. If counts are Poisson and a share `d` of cells shows the gene,
    `1 - (1 - d)^r` of them do at `r` times the mean. Cells that come to show a gene get the value of one that did,
    those that cease to get zero, both drawn at random. A gene that no cell showed gets the typical level of the others.

    Parameters
    ----------
    cells
        `[n, G]`, none negative.
    mean
        `[G]`: wanted; negative values count as zero. It is neared, not met: `scaled_to_mean` comes after.
    rng
        For the draws.

    Returns
    -------
    numpy.ndarray
        float32 `[n, G]`.

    Examples
    --------
    >>> cells = np.array([[0.0, 2.0], [4.0, 2.0]])
    >>> redetected(cells, np.array([0.0, 1.0]), np.random.default_rng(0)).tolist()
    [[0.0, 2.0], [0.0, 2.0]]
    """
    found = np.array(cells, dtype=np.float32)
    count, own = len(found), found.mean(axis=0, dtype=np.float64)
    showing = np.count_nonzero(found, axis=0)
    wanted = np.maximum(np.asarray(mean, dtype=np.float64), 0)
    seen = showing > 0
    level = float(np.median(own[seen] * count / showing[seen])) if seen.any() else 1.0
    ratio = np.divide(wanted, own, out=np.zeros_like(own), where=own > 0)
    share = np.where(seen, 1 - (1 - showing / max(count, 1)) ** ratio, np.minimum(wanted / level, 1))
    target = np.clip(np.rint(share * count).astype(np.int64), wanted > 0, count)
    genes = np.flatnonzero(target != showing)
    if not len(genes):
        return found
    # those that show a gene first, both kinds in random order: places up to the target will show it
    part = found[:, genes]
    drawn = rng.random(part.shape, dtype=np.float32)
    order = np.argsort(np.where(part > 0, drawn, 1 + drawn), axis=0)
    place = np.empty_like(order)
    np.put_along_axis(place, order, np.arange(count)[:, None], axis=0)
    rows, columns = np.nonzero((part == 0) & (place < target[genes]))
    had = showing[genes][columns]
    donor = order[(rng.random(len(columns)) * np.maximum(had, 1)).astype(np.int64), columns]
    values = np.where(had > 0, part[donor, columns], np.float32(level))
    part[(part > 0) & (place >= target[genes])] = 0
    part[rows, columns] = values
    found[:, genes] = part
    return found


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
    enough = (own > 0) & (factor <= LARGEST_FACTOR)
    factor = np.minimum(factor, LARGEST_FACTOR)
    lacking = np.where(enough, 0.0, wanted - own * factor)  # exactly zero, or zeros would not stay
    return (cells * factor + lacking).astype(np.float32)


def shifted_to_mean(cells: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Return cells of a space that is not expression, `[n, D]`, all moved alike so that they have the wanted mean."""
    return (cells + (np.asarray(mean, dtype=np.float64) - cells.mean(axis=0, dtype=np.float64))).astype(np.float32)
