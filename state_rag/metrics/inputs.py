"""What the metrics of the registry are given."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from state_rag.metrics.pca import PcaSpace


@dataclass(frozen=True)
class Profiles:
    """What a profile metric sees: mean profiles of all conditions of one cell line.

    Attributes
    ----------
    real, predicted
        `[C, G]` float64. A metric that compares conditions may get them as `row_blocks.RowBlocks`.
    control, own_control
        Means `[G]` of the cell line's real controls and of the model's prediction for controls.
    centre
        Mean of `real` over conditions, `[G]`.
    degs
        Differential genes of the real cells, boolean `[C, G]`.
    space
        The cell line's PCA space, or None where there are too few cells for one.
    """

    real: Any
    predicted: Any
    control: np.ndarray
    own_control: np.ndarray
    centre: np.ndarray
    degs: Any
    space: PcaSpace | None


@dataclass(frozen=True)
class RawCells:
    """What a metric on raw cells sees: one condition, in genes.

    Attributes
    ----------
    real, predicted, control
        Cells `[n, G]`; the control's are real ones of the cell line.
    space
        The cell line's PCA space, or None where there are too few cells for one.
    features
        Gene names.
    """

    real: np.ndarray
    predicted: np.ndarray
    control: np.ndarray
    space: PcaSpace | None
    features: list[str]
