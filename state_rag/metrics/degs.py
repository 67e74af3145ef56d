"""Differentially expressed genes by Welch's t-test, from moments that can be gathered while streaming."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy import stats

from state_rag.metrics.rounding import difference
from state_rag.metrics.significance import benjamini_hochberg

LOG2 = float(np.log(2.0))
P_BELOW, LOG2FC_FROM = 0.1, 0.05
"""Thresholds of a differential gene unless others are asked for."""
LISTED = 50
"""Differential genes that a row of `retrieval_info.csv` names, those with the smallest p-value."""
CHANGED_FDR = 0.05
"""False discovery rate, within a condition, at which a gene counts as changed."""
ROUNDING = 1e-10
"""Means that are this close to each other, as a share of the larger, are equal: sums of many cells round."""


@dataclass
class WelchMoments:
    """Number of cells, sum and sum of squared deviations per gene, updated in blocks.

    The blocks are merged with the parallel form of Welford's update (Chan, Golub and LeVeque 1983), so no
    precision is lost to the difference of two large sums.

    Parameters
    ----------
    genes
        Number of genes.

    Examples
    --------
    >>> moments = WelchMoments(1)
    >>> moments.add(np.array([[1.0], [2.0]])); moments.add(np.array([[6.0]]))
    >>> float(moments.mean[0]), float(moments.variance[0])
    (3.0, 7.0)
    """

    genes: int
    n: int = 0
    mean: np.ndarray = field(init=False)
    squares: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        """Start from no cells."""
        self.mean = np.zeros(self.genes)
        self.squares = np.zeros(self.genes)

    @classmethod
    def of(cls, n: int, mean: np.ndarray, std: np.ndarray) -> "WelchMoments":
        """Return the moments of `n` cells with a mean and a standard deviation (unbiased variance), each `[genes]`."""
        moments = cls(len(mean), n)
        moments.mean = np.asarray(mean, dtype=np.float64)
        moments.squares = np.square(np.asarray(std, dtype=np.float64)) * (n - 1) if n > 1 else moments.squares
        return moments

    def add(self, cells: np.ndarray) -> None:
        """Add cells `[n, genes]`."""
        count = cells.shape[0]
        if count == 0:
            return
        total = self.n + count
        # Infinite values make NaN moments, which callers look for.
        with np.errstate(invalid="ignore"):
            mean = cells.mean(axis=0, dtype=np.float64)
            squares = np.square(cells - mean).sum(axis=0)
            shift = mean - self.mean
            self.squares += squares + np.square(shift) * (self.n * count / total)
            self.mean += shift * (count / total)
        self.n = total

    @property
    def variance(self) -> np.ndarray:
        """Return the unbiased variance per gene; NaN with fewer than two cells."""
        return self.squares / (self.n - 1) if self.n > 1 else np.full(self.genes, np.nan)


def moments_of(blocks: Iterable[np.ndarray] | np.ndarray) -> WelchMoments:
    """Return the moments of one array `[n, genes]` or of a stream of them."""
    if isinstance(blocks, np.ndarray):
        blocks = [blocks]
    result: WelchMoments | None = None
    for block in blocks:
        result = result or WelchMoments(block.shape[1])
        result.add(block)
    if result is None:
        raise ValueError("no cells to take moments of")
    return result


@dataclass(frozen=True)
class DifferentialGenes:
    """Result per gene: Welch's p-value, log2 fold change and whether both thresholds are met."""

    p: np.ndarray
    log2fc: np.ndarray
    mask: np.ndarray


def differential_genes(
    moments: WelchMoments,
    control: WelchMoments,
    *,
    p_below: float = P_BELOW,
    log2fc_from: float = LOG2FC_FROM,
    fold_change: str = "log1p",
) -> DifferentialGenes:
    r"""Test every gene of a condition against the controls of its cell line.

    .. math:: t = (m - m_c) / \sqrt{s^2/n + s_c^2/n_c}

    with Welch-Satterthwaite degrees of freedom (Welch 1947), two-sided, not corrected for the number of genes, as
    in the paper's DEG space. A gene is differential if p < `p_below` and abs(log2FC) >= `log2fc_from`.

    Parameters
    ----------
    moments, control
        Moments of the condition's real cells and of the cell line's real controls.
    p_below, log2fc_from
        Thresholds.
    fold_change
        `log1p`: `(m - m_c) / ln 2`, the log2 ratio of geometric means of `1 + x` for log1p data. `gge`:
        `log2(m + 1) - log2(m_c + 1)`, as GGE 1.0.1 computes it from whatever it is given.

    Returns
    -------
    DifferentialGenes
        Arrays of shape `[genes]`. A gene of one value on both sides has p = 1, one that is constant on both at
        different values p = 0. With fewer than two cells on a side p is NaN and no gene is differential.
    """
    if fold_change == "log1p":
        log2fc = (moments.mean - control.mean) / LOG2
    elif fold_change == "gge":
        log2fc = np.log2(moments.mean + 1) - np.log2(control.mean + 1)
    else:
        raise ValueError(f"fold_change is '{fold_change}'; expected 'log1p' or 'gge'")
    if moments.n < 2 or control.n < 2:
        return DifferentialGenes(np.full(moments.genes, np.nan), log2fc, np.zeros(moments.genes, dtype=bool))
    p = _welch(moments, control)
    return DifferentialGenes(p, log2fc, (p < p_below) & (np.abs(log2fc) >= log2fc_from))


def changes(moments: WelchMoments, control: WelchMoments, fdr: float = CHANGED_FDR) -> np.ndarray:
    """Return which genes a condition changes, float32 `[genes]`: 1 up, -1 down, 0 not, NaN where it cannot be told.

    Welch's test with the p-values of the condition's genes corrected (Benjamini and Hochberg 1995). It cannot be told
    with fewer than two cells on a side.

    Parameters
    ----------
    moments, control
        As for `differential_genes`.
    fdr
        False discovery rate within the condition.
    """
    if moments.n < 2 or control.n < 2:
        return np.full(moments.genes, np.nan, dtype=np.float32)
    found = benjamini_hochberg(_welch(moments, control)) <= fdr
    return (np.sign(moments.mean - control.mean) * found).astype(np.float32)


def _welch(moments: WelchMoments, control: WelchMoments) -> np.ndarray:
    mine, theirs = moments.variance / moments.n, control.variance / control.n
    # the variance of a gene that is constant rounds too, so that what t would tell is one rounding against another
    apart = np.abs(difference(moments.mean, control.mean, ROUNDING))
    with np.errstate(divide="ignore", invalid="ignore"):
        t = apart / np.sqrt(mine + theirs)
        freedom = (mine + theirs) ** 2 / (mine**2 / (moments.n - 1) + theirs**2 / (control.n - 1))
        p: np.ndarray = 2 * stats.t.sf(t, freedom)
    constant = (mine + theirs) == 0
    p[constant] = np.where(apart[constant] == 0, 1.0, 0.0)
    return p


def differential_names(moments: WelchMoments, control: WelchMoments, names: Sequence[str]) -> list[str]:
    """Return the names of a condition's differential genes, smallest p-value first; none with fewer than two cells.

    Parameters
    ----------
    moments, control
        As for `differential_genes`.
    names
        Of the genes; numbers are given where there are more or fewer.
    """
    if min(moments.n, control.n) < 2:
        return []
    test = differential_genes(moments, control)
    ranked = np.flatnonzero(test.mask)[np.argsort(test.p[test.mask], kind="stable")]
    return [str(names[gene]) if len(names) == moments.genes else str(gene) for gene in ranked]
