"""PCA spaces: one per cell line, fitted once on all its real cells, controls included."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy import linalg

BLOCK = 2048


@dataclass(frozen=True)
class PcaSpace:
    """Principal components of one cell line's real cells.

    Attributes
    ----------
    mean
        Centre, `[genes]`.
    components
        Orthonormal columns `[genes, k]`, by decreasing variance; the largest loading of each is positive.
    variance
        Variance along each component, `[k]`.
    n_cells
        Number of cells it was fitted on.
    """

    mean: np.ndarray
    components: np.ndarray
    variance: np.ndarray
    n_cells: int

    def project(self, cells: np.ndarray) -> np.ndarray:
        """Return the coordinates `[n, k]` of cells `[n, genes]` in float64."""
        return (np.asarray(cells, dtype=np.float64) - self.mean) @ self.components


def fit_pca(blocks: Iterable[np.ndarray], components: int = 50) -> PcaSpace:
    """Fit PCA on cells that arrive in blocks, without keeping them.

    The covariance is gathered exactly, so neither the order nor the size of the blocks matters (up to rounding).
    Memory is two matrices of `genes x genes`.

    Parameters
    ----------
    blocks
        Arrays `[n, genes]`.
    components
        Number of components; fewer are kept if there are fewer genes or cells minus one.

    Returns
    -------
    PcaSpace
        The space.
    """
    waiting: list[np.ndarray] = []
    held = n = 0
    shift = total = products = None

    def flush() -> None:
        nonlocal held, n, shift, total, products
        if not waiting:
            return
        cells = np.concatenate(waiting).astype(np.float64)
        if shift is None:
            shift = cells.mean(axis=0)
            total = np.zeros_like(shift)
            products = np.zeros((len(shift), len(shift)), order="F")
        cells -= shift
        total += cells.sum(axis=0)
        # Upper triangle only: half the work of a product.
        products = linalg.blas.dsyrk(1.0, cells.T, beta=1.0, c=products, overwrite_c=1)
        n += len(cells)
        waiting.clear()
        held = 0

    for block in blocks:
        waiting.append(block)
        held += len(block)
        if held >= BLOCK:
            flush()
    flush()
    if shift is None or total is None or products is None:
        raise ValueError("no cells to fit a PCA on")
    centre = total / n
    products -= n * np.outer(centre, centre)
    genes = len(shift)
    kept = max(1, min(components, genes, n - 1))
    values, vectors = linalg.eigh(products, lower=False, subset_by_index=[genes - kept, genes - 1], overwrite_a=True)
    vectors = vectors[:, ::-1]
    signs = np.sign(vectors[np.abs(vectors).argmax(axis=0), np.arange(kept)])
    variance = np.clip(values[::-1], 0, None) / max(n - 1, 1)
    return PcaSpace(shift + centre, vectors * np.where(signs == 0, 1, signs), variance, n)
