"""Every metric as one line of data: name, label, direction and what computes it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from state_rag.evaluation.metrics import distances, effects, profile
from state_rag.evaluation.spaces import PcaSpace


@dataclass(frozen=True)
class Profiles:
    """What a profile metric sees: mean profiles of all conditions of one cell line.

    Attributes
    ----------
    real, predicted
        `[C, G]` float64. A metric that compares conditions may get them as `row_store.RowBlocks`.
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


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes
    ----------
    name
        Column name in every table.
    label
        What a reader sees.
    higher_is_better
        Direction.
    on
        `profiles`: `compute(Profiles) -> [C]`. `cells`: `compute(x, y, n, m) -> [B]` on cells in PCA space.
        `raw`: `compute(RawCells) -> float` on one condition's cells (metrics that come from GGE).
    space
        Where it is computed: `genes`, `degs` (fitted per condition) or `pca` (fitted once per cell line).
    compute
        The function; its formula and source are in the docstring of the function it calls.
    in_paper
        Whether Table 1 of the paper reports it.
    compares_conditions
        Whether a condition's value depends on the other conditions of its cell line.
    """

    name: str
    label: str
    higher_is_better: bool
    on: Literal["profiles", "cells", "raw"]
    space: Literal["genes", "degs", "pca"]
    compute: Callable
    in_paper: bool = False
    compares_conditions: bool = False


def _deltas(inputs: Profiles, reference: str = "control") -> tuple[np.ndarray, np.ndarray]:
    """Return real and predicted effects.

    `control`: both against the real control mean. `own`: the prediction against the model's own control, which
    cancels an error it makes everywhere. `centre`: both against the mean over perturbations, which leaves what is
    specific to each (Systema; Vinas Torne et al. 2025).
    """
    if reference == "own":
        return inputs.real - inputs.control, inputs.predicted - inputs.own_control
    base = inputs.control if reference == "control" else inputs.centre
    return inputs.real - base, inputs.predicted - base


def _mse_pca(inputs: Profiles) -> np.ndarray:
    if inputs.space is None:
        return np.full(len(inputs.real), np.nan)
    return profile.mean_squared_error(inputs.space.project(inputs.real), inputs.space.project(inputs.predicted))


METRICS: tuple[Metric, ...] = (
    Metric(
        "pearson_deg",
        "Pearson (DEG)",
        True,
        "profiles",
        "degs",
        lambda i: profile.pearson(i.real, i.predicted, i.degs),
        True,
    ),
    Metric(
        "spearman_deg",
        "Spearman (DEG)",
        True,
        "profiles",
        "degs",
        lambda i: profile.spearman(i.real, i.predicted, i.degs),
        True,
    ),
    Metric(
        "mse",
        "MSE",
        False,
        "profiles",
        "genes",
        lambda i: profile.mean_squared_error(i.real, i.predicted),
        True,
    ),
    Metric(
        "rmse",
        "RMSE",
        False,
        "profiles",
        "genes",
        lambda i: profile.root_mean_squared_error(i.real, i.predicted),
        True,
    ),
    Metric(
        "mae",
        "MAE",
        False,
        "profiles",
        "genes",
        lambda i: profile.mean_absolute_error(i.real, i.predicted),
        True,
    ),
    Metric("mse_pca50", "MSE PCA-50", False, "profiles", "pca", _mse_pca, True),
    Metric("w1_pca50", "W1", False, "cells", "pca", distances.wasserstein_1, True),
    Metric("w2_pca50", "W2", False, "cells", "pca", distances.wasserstein_2, True),
    Metric("energy_pca50", "Energy", False, "cells", "pca", distances.energy_distance, True),
    Metric("mmd_pca50", "MMD", False, "cells", "pca", distances.maximum_mean_discrepancy),
    Metric("r2", "R2", True, "profiles", "genes", lambda i: profile.r_squared(i.real, i.predicted)),
    Metric(
        "pearson_delta",
        "Pearson delta",
        True,
        "profiles",
        "genes",
        lambda i: profile.pearson(*_deltas(i)),
    ),
    Metric(
        "spearman_delta",
        "Spearman delta",
        True,
        "profiles",
        "genes",
        lambda i: profile.spearman(*_deltas(i)),
    ),
    Metric(
        "pearson_delta_deg",
        "Pearson delta (DEG)",
        True,
        "profiles",
        "degs",
        lambda i: profile.pearson(*_deltas(i), i.degs),
    ),
    Metric(
        "spearman_delta_deg",
        "Spearman delta (DEG)",
        True,
        "profiles",
        "degs",
        lambda i: profile.spearman(*_deltas(i), i.degs),
    ),
    Metric(
        "direction_deg",
        "Direction (DEG)",
        True,
        "profiles",
        "degs",
        lambda i: effects.direction_agreement(*_deltas(i), i.degs),
    ),
    Metric(
        "discrimination",
        "Discrimination",
        True,
        "profiles",
        "genes",
        lambda i: effects.discrimination(i.real, i.predicted),
        compares_conditions=True,
    ),
    Metric(
        "pearson_delta_own",
        "Pearson delta, own control",
        True,
        "profiles",
        "genes",
        lambda i: profile.pearson(*_deltas(i, "own")),
    ),
    Metric(
        "pearson_delta_deg_own",
        "Pearson delta (DEG), own control",
        True,
        "profiles",
        "degs",
        lambda i: profile.pearson(*_deltas(i, "own"), i.degs),
    ),
    Metric(
        "pearson_delta_centred",
        "Pearson delta, centred",
        True,
        "profiles",
        "genes",
        lambda i: profile.pearson(*_deltas(i, "centre")),
    ),
    Metric(
        "pearson_delta_deg_centred",
        "Pearson delta (DEG), centred",
        True,
        "profiles",
        "degs",
        lambda i: profile.pearson(*_deltas(i, "centre"), i.degs),
    ),
)

BY_NAME: dict[str, Metric] = {metric.name: metric for metric in METRICS}


def choose(names: list[str] | None) -> tuple[Metric, ...]:
    """Return the named metrics, or all for None.

    Raises
    ------
    StateRagError
        For an unknown name; the message lists the known ones.
    """
    from state_rag.errors import StateRagError

    if names is None:
        return METRICS
    if unknown := [name for name in names if name not in BY_NAME]:
        raise StateRagError(f"--metrics: no metric '{unknown[0]}'; choose from {', '.join(BY_NAME)}")
    return tuple(BY_NAME[name] for name in names)
