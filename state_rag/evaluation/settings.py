"""What can be chosen about an evaluation, checked when it is chosen."""

import math
from dataclasses import dataclass
from typing import Any

from state_rag.errors import StateRagError
from state_rag.metrics.degs import LOG2FC_FROM, P_BELOW
from state_rag.metrics.pca import COMPONENTS

FOLD_CHANGES = ("log1p", "gge")


@dataclass(frozen=True)
class Settings:
    """What can be chosen about an evaluation.

    Attributes
    ----------
    deg_p, deg_log2fc, fold_change
        Thresholds and fold-change definition of `degs.differential_genes`.
    components
        Dimensions of the PCA space.
    batch
        Conditions whose cell distances are computed together.
    max_cells
        Cells of a condition that enter the pairwise distances; larger conditions are thinned to this many by a
        fixed random choice (the number of thinned conditions is reported). Means and DEGs use all cells.
    device
        `cpu`, `cuda`, or `auto`: the GPU where there is one.
    seed
        Seed of that choice, and of the control cells that baselines start from. Neither depends on the order of
        cells in their file.

    Raises
    ------
    StateRagError
        For a value that makes no sense; the message names the option.
    """

    deg_p: float = P_BELOW
    deg_log2fc: float = LOG2FC_FROM
    fold_change: str = "log1p"
    components: int = COMPONENTS
    batch: int = 32
    max_cells: int = 1000
    device: str = "auto"
    seed: int = 0

    @property
    def of_gge(self) -> dict[str, Any]:
        """Return what `metrics.gge.from_gge` takes of them."""
        return {"components": self.components, "deg_p": self.deg_p, "deg_log2fc": self.deg_log2fc}

    def __post_init__(self) -> None:
        """Refuse values that make no sense."""
        _check("--deg-p", self.deg_p, 0 < self.deg_p <= 1, "a p-value above 0 and up to 1")
        size = math.isfinite(self.deg_log2fc) and self.deg_log2fc >= 0
        _check("--deg-log2fc", self.deg_log2fc, size, "a number of at least 0; its sign is not looked at")
        _check("--fold-change", self.fold_change, self.fold_change in FOLD_CHANGES, " or ".join(FOLD_CHANGES))
        for option, value, least in (
            ("--components", self.components, 1),
            ("Settings.batch", self.batch, 1),
            ("Settings.max_cells", self.max_cells, 2),
            ("Settings.seed", self.seed, 0),
        ):
            whole = isinstance(value, int) and not isinstance(value, bool)
            _check(option, value, whole and value >= least, f"a whole number of at least {least}")


def _check(option: str, value: Any, holds: bool, expected: str) -> None:
    if not holds:
        raise StateRagError(f"{option} is {value}; expected {expected}")
