"""From a kernel to vectors: every source is a table of vectors whose products are its similarities."""

import logging

import numpy as np

logger = logging.getLogger(__name__)

EXACT = 2048
"""Perturbations up to which a kernel is factored exactly."""
WIDTH = 1024
"""Directions that are kept of a larger one."""

_SMALL = 1e-10
"""Share of the largest eigenvalue below which one is rounding."""


def factor(kernel: np.ndarray, exact: int = EXACT, width: int = WIDTH) -> np.ndarray:
    """Return vectors whose products are a kernel.

    Parameters
    ----------
    kernel
        Symmetric, positive semi-definite [P, P].
    exact
        The largest P that is factored exactly.
    width
        Of the vectors of a larger kernel: its leading directions, found with a random start that is always the same
        (Halko, Martinsson and Tropp, "Finding structure with randomness", 2011). What that loses is logged.

    Returns
    -------
    numpy.ndarray
        float32 [P, D], D at most P, largest direction first. A row of zeros stays one.

    Examples
    --------
    >>> kernel = np.array([[2.0, 1.0], [1.0, 2.0]])
    >>> vectors = factor(kernel)
    >>> bool(np.allclose(vectors @ vectors.T, kernel))
    True
    """
    values = np.asarray(kernel)
    if len(values) <= exact:
        sizes, directions = np.linalg.eigh(values.astype(np.float64))
    else:
        sizes, directions = _leading(values, width)
        lost = 1.0 - float(sizes.clip(0).sum()) / max(float(np.trace(values, dtype=np.float64)), 1e-300)
        logger.info("%d perturbations: %d directions are kept, %.1f %% is lost.", len(values), width, 100 * lost)
    sizes, directions = sizes[::-1], directions[:, ::-1]
    real = sizes > _SMALL * max(float(sizes[0]), 0.0) if len(sizes) else np.zeros(0, dtype=bool)
    vectors = directions[:, real] * np.sqrt(sizes[real])
    vectors[~values.any(axis=1)] = 0.0
    return np.ascontiguousarray(vectors, dtype=np.float32)


def placed(new: np.ndarray, now: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Return new rows in the coordinates of earlier ones: their products with known rows stay what they are.

    A kernel's vectors depend on which names were asked for, its products do not (Williams and Seeger, "Using the
    Nystroem method to speed up kernel machines", 2001).

    Parameters
    ----------
    new
        Rows of new names [U, E].
    now, before
        Rows of the same known names, [N, E] beside the new ones and [N, D] as a model knows them.

    Returns
    -------
    numpy.ndarray
        float32 [U, D].

    Examples
    --------
    >>> before = np.array([[1.0, 0.0], [0.0, 1.0]])
    >>> placed(np.array([[3.0, 4.0, 1.0]]), np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]), before).round(3).tolist()
    [[4.0, 3.0]]
    """
    turned: np.ndarray = np.linalg.lstsq(now.astype(np.float64), before.astype(np.float64), rcond=1e-6)[0]
    return (new.astype(np.float64) @ turned).astype(np.float32)


def _leading(kernel: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the leading eigenvalues, ascending, and their directions."""
    start = np.random.default_rng(0).normal(size=(len(kernel), width + 64)).astype(kernel.dtype)
    basis = np.linalg.qr(kernel @ start)[0]
    for _ in range(3):
        basis = np.linalg.qr(kernel @ basis)[0]
    sizes, directions = np.linalg.eigh(basis.T @ (kernel @ basis))
    return sizes[-width:], (basis @ directions)[:, -width:]
