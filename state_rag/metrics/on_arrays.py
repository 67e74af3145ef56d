"""Every metric as a function of arrays: cells in, one number a condition out."""

from collections.abc import Callable, Sequence
from functools import partial, update_wrapper
from typing import Any

import numpy as np

from state_rag.errors import StateRagError
from state_rag.metrics.degs import differential_genes, moments_of
from state_rag.metrics.inputs import Profiles, RawCells
from state_rag.metrics.pca import PcaSpace, fit_pca
from state_rag.metrics.registry import BY_NAME, METRICS, Metric, choose

Cells = np.ndarray | Sequence[np.ndarray]


def compute(
    metric: str | Metric,
    real: Cells,
    predicted: Cells,
    control: np.ndarray | None = None,
    *,
    predicted_control: np.ndarray | None = None,
    degs: np.ndarray | None = None,
    space: PcaSpace | None = None,
) -> Any:
    """Compute one metric for conditions of one cell line, given as arrays of cells.

    Parameters
    ----------
    metric
        Name in the registry, or a metric.
    real, predicted
        Cells `[n, G]` of one condition, or one such array for each of C conditions, in log expression. One row a
        condition serves for metrics of mean profiles.
    control
        Real control cells `[n, G]`; needed by metrics of effects and of differential genes.
    predicted_control
        What the model predicts for controls; `control` where it is not given.
    degs
        Differential genes, boolean `[C, G]`; by Welch's t-test against `control` where they are not given.
    space
        PCA space for metrics of clouds; fitted on all real cells and the controls where it is not given.

    Returns
    -------
    numpy.ndarray
        `[C]`, or a float for one condition given as an array; NaN where a condition's cells have NaN or infinity, as
        they have no part in the PCA space nor in the mean over conditions.

    Raises
    ------
    StateRagError
        For an unknown metric, unequal numbers of conditions or genes, or a missing `control`.

    Notes
    -----
    `state_rag.metrics.evaluate` does the same for whole files, in bounded memory, and thins large clouds.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> control, real = rng.normal(2, 1, (200, 30)), rng.normal(2.5, 1, (50, 30))
    >>> float(compute("mse", real, real))
    0.0
    >>> round(float(compute("pearson_delta", real, real, control)), 6)
    1.0
    """
    chosen = choose([metric], "metric")[0] if isinstance(metric, str) else metric
    single = isinstance(real, np.ndarray) and real.ndim == 2
    reals, predictions = _conditions(real, "real"), _conditions(predicted, "predicted")
    if len(reals) != len(predictions):
        raise StateRagError(f"{len(reals)} real conditions and {len(predictions)} predicted ones; give equally many")
    widths = {cells.shape[1] for cells in [*reals, *predictions, *([] if control is None else [np.asarray(control)])]}
    if len(widths) > 1:
        raise StateRagError(f"arrays of {' and '.join(map(str, sorted(widths)))} genes; give the same genes everywhere")
    if chosen.space == "pca" and space is None:
        cells = reals if control is None else [np.asarray(control), *reals]
        space = fit_pca(part[np.isfinite(part).all(axis=1)] for part in cells)
    if chosen.on == "cells":
        values = [_cloud(chosen, r, p, space) for r, p in zip(reals, predictions, strict=True)]
        return values[0] if single else np.array(values)
    if chosen.on == "raw":
        base = _needed(control, chosen)
        names = [f"gene_{number}" for number in range(base.shape[1])]
        values = [
            np.float64(chosen.compute(RawCells(r, p, base, space, names)))
            for r, p in zip(reals, predictions, strict=True)
        ]
        return values[0] if single else np.array(values)
    inputs = _profiles(chosen, reals, predictions, control, predicted_control, degs, space)
    found = np.asarray(chosen.compute(inputs), dtype=np.float64)
    return found[0] if single else found


def table():
    """Return the registry as a table: one row a metric, with label, direction, space, meaning, formula and source.

    Returns
    -------
    pandas.DataFrame
        Indexed by name.

    Examples
    --------
    >>> table().loc["mse", "higher_is_better"]
    False
    """
    import pandas as pd

    names = ("label", "higher_is_better", "space", "in_paper", "meaning", "formula", "values", "source")
    rows = [{name: getattr(metric, name) for name in names} for metric in METRICS]
    return pd.DataFrame(rows, index=pd.Index([metric.name for metric in METRICS], name="metric")).astype(
        {"higher_is_better": object}
    )


def metric_function(name: str) -> Callable[..., Any]:
    """Return `compute` for one metric, as `state_rag.metrics.<name>`.

    Raises
    ------
    AttributeError
        If there is no such metric.
    """
    if name not in BY_NAME:
        raise AttributeError(f"module 'state_rag.metrics' has no attribute {name!r}")
    function: Any = partial(compute, BY_NAME[name])
    update_wrapper(function, compute)
    function.__name__ = name
    function.__doc__ = (
        f"{BY_NAME[name].label}: {BY_NAME[name].meaning}\n\nArguments are those of `compute`, but metric."
    )
    return function


def _conditions(cells: Cells, what: str) -> list[np.ndarray]:
    arrays = [cells] if isinstance(cells, np.ndarray) and cells.ndim == 2 else list(cells)
    arrays = [np.asarray(each) for each in arrays]
    if any(each.ndim != 2 for each in arrays):
        raise StateRagError(f"{what}: expected cells [n, genes] of one condition, or a list of such arrays")
    return arrays


def _needed(control: np.ndarray | None, metric: Metric) -> np.ndarray:
    if control is None:
        raise StateRagError(f"{metric.name} measures effects against control cells: give `control`")
    return np.asarray(control)


def _cloud(metric: Metric, real: np.ndarray, predicted: np.ndarray, space: PcaSpace | None) -> np.float64:
    import torch

    if space is None or min(len(real), len(predicted)) < 2:
        return np.float64("nan")
    x, y = (torch.from_numpy(space.project(cells))[None] for cells in (real, predicted))
    return np.float64(metric.compute(x, y, torch.tensor([len(real)]), torch.tensor([len(predicted)]))[0])


def _profiles(metric, reals, predictions, control, predicted_control, degs, space) -> Profiles:
    means = [np.stack([cells.mean(axis=0, dtype=np.float64) for cells in side]) for side in (reals, predictions)]
    needs_control = metric.space == "degs" or "delta" in metric.name
    if needs_control or control is not None:
        moments = moments_of(_needed(control, metric))
        base = moments.mean
        if degs is None and metric.space == "degs":
            degs = np.stack([differential_genes(moments_of(cells), moments).mask for cells in reals])
    else:
        base = np.zeros(means[0].shape[1])
    own = base if predicted_control is None else np.asarray(predicted_control).mean(axis=0, dtype=np.float64)
    mask = np.zeros(means[0].shape, dtype=bool) if degs is None else np.atleast_2d(np.asarray(degs, dtype=bool))
    usable = means[0][np.isfinite(means[0]).all(axis=1)]
    return Profiles(means[0], means[1], base, own, usable.mean(axis=0) if len(usable) else base, mask, space)
