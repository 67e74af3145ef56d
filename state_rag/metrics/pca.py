"""PCA spaces: one per cell line, fitted once on all its real cells, controls included."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy import linalg
from scipy.sparse.linalg import ArpackError, LinearOperator, eigsh

from state_rag.metrics.row_blocks import row_blocks

logger = logging.getLogger(__name__)
COMPONENTS = 50
"""Dimensions that the metrics' labels speak of (PCA-50)."""
BLOCK_VALUES = 2**22
"""Values that are taken up at once, in float64: 32 MiB."""
LANCZOS_GENES = 3000
"""Up to so many genes the full solver takes about a second."""


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


def fit_pca(blocks: Iterable[np.ndarray], components: int = COMPONENTS) -> PcaSpace:
    """Fit PCA on cells that arrive in blocks, without keeping them.

    The covariance is gathered exactly, so neither the order nor the size of the blocks matters (up to rounding).
    Memory is one matrix of `genes x genes` in float64 (2.4 GiB for 18,000 genes), two up to `LANCZOS_GENES`.

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
    n = 0
    shift = total = products = None

    def flush() -> None:
        nonlocal n, shift, total, products
        cells = np.concatenate(waiting)
        waiting.clear()
        for rows in row_blocks(len(cells), max(1, BLOCK_VALUES // max(1, cells.shape[1]))):
            part = cells[rows].astype(np.float64)
            if shift is None:
                shift = part.mean(axis=0)
                total = np.zeros_like(shift)
                products = np.zeros((len(shift), len(shift)), order="F")
            part -= shift
            total += part.sum(axis=0)
            # Upper triangle only: half the work of a product.
            products = linalg.blas.dsyrk(1.0, part.T, beta=1.0, c=products, overwrite_c=1)
            n += len(part)

    for block in blocks:
        waiting.append(block)
        if sum(part.size for part in waiting) >= BLOCK_VALUES:
            flush()
    if waiting:
        flush()
    if shift is None or total is None or products is None:
        raise ValueError("no cells to fit a PCA on")
    centre = total / n
    products = linalg.blas.dsyr(-float(n), centre, a=products, overwrite_a=1)
    kept = max(1, min(components, len(shift), n - 1))
    values, vectors = _largest(products, kept)
    signs = np.sign(vectors[np.abs(vectors).argmax(axis=0), np.arange(kept)])
    variance = np.clip(values, 0, None) / max(n - 1, 1)
    return PcaSpace(shift + centre, vectors * np.where(signs == 0, 1, signs), variance, n)


def _largest(products: np.ndarray, kept: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the largest eigenvalues, falling, and their eigenvectors, from the upper triangle of a matrix.

    Of many genes only the wanted ones are computed, by the Lanczos method (ARPACK) from a fixed start: the matrix is
    then only multiplied with, where a full solver takes time cubic in its width and room for a second one.
    """
    genes = len(products)
    if genes > LANCZOS_GENES and kept <= genes // 4 and products.diagonal().max() > 0:
        operator = LinearOperator(
            (genes, genes), matvec=lambda v: linalg.blas.dsymv(1.0, products, v.ravel()), dtype=np.float64
        )
        start = np.random.default_rng(0).normal(size=genes)
        try:
            values, vectors = eigsh(operator, kept, which="LA", v0=start, ncv=2 * kept + 20)
            order = np.argsort(values)[::-1]
            return values[order], vectors[:, order]
        except ArpackError as error:
            logger.debug("PCA falls back to the full solver: %s", error)
    values, vectors = linalg.eigh(products, lower=False, subset_by_index=[genes - kept, genes - 1], overwrite_a=True)
    return values[::-1], vectors[:, ::-1]
