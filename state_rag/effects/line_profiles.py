"""Mean profiles of one cell line's conditions, and the metrics that are computed on them, block by block."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from state_rag.metrics.inputs import Profiles
from state_rag.metrics.pca import PcaSpace
from state_rag.metrics.registry import Metric
from state_rag.metrics.row_blocks import RowBlocks, row_blocks

PROFILE_ROWS = 64


@dataclass
class LineProfiles:
    """Mean profiles of one cell line: `[C, G]`, arrays or read from a file in slices of rows; controls `[G]`."""

    perturbations: list[str]
    real: RowBlocks
    predicted: RowBlocks
    degs: RowBlocks
    control: np.ndarray
    own_control: np.ndarray


def finite_mean(profiles: RowBlocks) -> tuple[np.ndarray, np.ndarray | None]:
    """Return which rows are finite, and the mean of those in float64; None if there are none."""
    finite, total = [], 0.0
    for rows in row_blocks(len(profiles)):
        block = profiles[rows].astype(np.float64)
        finite.append(np.isfinite(block).all(axis=1))
        total = total + block[finite[-1]].sum(axis=0)
    usable = np.concatenate(finite)
    return usable, (np.asarray(total) / usable.sum() if usable.any() else None)


@np.errstate(invalid="ignore")  # infinity among predictions makes NaN, which is meant and counted
def profile_columns(
    metrics: Sequence[Metric],
    profiles: LineProfiles,
    predicted: RowBlocks,
    *,
    own: np.ndarray,
    centre: np.ndarray,
    space: PcaSpace | None,
) -> dict[str, np.ndarray]:
    """Return each metric's values `[C]` for some predictor's profiles; NaN where a prediction is not finite.

    Parameters
    ----------
    metrics
        Those on profiles.
    profiles
        The cell line's.
    predicted
        The predictor's profiles `[C, G]`.
    own
        What it predicts for controls, `[G]`.
    centre, space
        As in `Profiles`.
    """
    finite: list[np.ndarray] = []
    parts: dict[str, list[np.ndarray]] = {}
    for rows in row_blocks(len(predicted), PROFILE_ROWS):
        block = Profiles(
            profiles.real[rows].astype(np.float64),
            predicted[rows].astype(np.float64),
            profiles.control,
            own,
            centre,
            profiles.degs[rows],
            space,
        )
        finite.append(np.isfinite(block.predicted).all(axis=1))
        for metric in metrics:
            if not metric.compares_conditions:
                parts.setdefault(metric.name, []).append(np.array(metric.compute(block), dtype=np.float64))
    columns = {name: np.concatenate(values) for name, values in parts.items()}
    whole = Profiles(profiles.real, predicted, profiles.control, own, centre, profiles.degs, space)
    for metric in metrics:
        if metric.compares_conditions:
            columns[metric.name] = np.array(metric.compute(whole), dtype=np.float64)
    for values in columns.values():
        values[~np.concatenate(finite)] = np.nan
    return columns
