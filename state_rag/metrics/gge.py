r"""Our metrics as GGE metrics, and GGE's metrics as ours.

Importing this module registers every metric of ours in GGE's `MetricRegistry` under `rag_<name>`, so that
`gge.evaluate(real, generated, condition_columns=[...], metrics=["rag_energy_pca50"])` takes them by name.

GGE hands a metric the cells of one condition. That is enough for means and DEGs, but not for a PCA per cell line, the
model's own controls or a comparison among conditions. `evaluation.gge_command.prepare` supplies those; without it
PCA is fitted on the condition's real cells (with the controls, where GGE passes them), and metrics that need the
other conditions are NaN. Each result's metadata says where its space was fitted.

What is not inherited from GGE 1.0.1: a PCA or DEG space fitted on the first condition and used for all others, and
correlations that pair the i-th real with the i-th predicted cell where both sides have equally many.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from gge import MetricRegistry
from gge.metrics.base_metric import BaseMetric, MetricResult

from state_rag.errors import StateRagError
from state_rag.metrics import effects
from state_rag.metrics.degs import LOG2FC_FROM, P_BELOW, differential_genes, moments_of
from state_rag.metrics.inputs import Profiles, RawCells
from state_rag.metrics.pca import COMPONENTS, PcaSpace, fit_pca
from state_rag.metrics.registry import METRICS, Metric
from state_rag.names import suggest

PREFIX = "rag_"


@dataclass
class Prepared:
    """What a single condition's cells do not tell.

    Attributes
    ----------
    control
        Label of control cells.
    profiles
        Cell line to the mean profiles of its conditions, which have `perturbations`, `real`, `predicted`, `degs`
        (`[C, G]`), `control` and `own_control` (`[G]`).
    spaces
        Cell line to its PCA space.
    place
        Condition to its cell line and its row in that line's profiles.
    """

    control: str
    profiles: Mapping[str, Any]
    spaces: Mapping[str, PcaSpace]
    place: dict[frozenset[str], tuple[str, int]] = field(default_factory=dict)
    discrimination: dict[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Index the conditions."""
        for line, profiles in self.profiles.items():
            for row, perturbation in enumerate(profiles.perturbations):
                self.place[frozenset((perturbation, line))] = (line, row)

    def find(self, condition: str | None) -> tuple[str, int] | None:
        """Return the cell line and row of GGE's condition key, whatever the order of its parts."""
        return self.place.get(frozenset((condition or "").split("####")))

    def is_control(self, condition: str | None) -> bool:
        """Return whether GGE's condition key means control cells."""
        return self.control in (condition or "").split("####")


_prepared: Prepared | None = None


def use(prepared: Prepared) -> None:
    """Let the metrics know what one condition's cells do not tell."""
    global _prepared
    _prepared = prepared


def forget() -> None:
    """Drop what `prepare` gathered."""
    global _prepared
    _prepared = None


class RagMetric(BaseMetric):
    """One of our metrics with GGE's interface; the subclasses are made from the registry.

    The aggregate is the metric. Values per gene are squared and absolute errors where the metric is their mean, and
    else the aggregate repeated, as GGE does for its multivariate metrics. Control conditions get NaN: they are what
    effects are measured against.
    """

    metric: Metric

    def __init__(self, **space: Any):
        super().__init__(
            name=PREFIX + self.metric.name,
            description=self.metric.label,
            higher_is_better=self.metric.higher_is_better,
            requires_distribution=self.metric.on == "cells",
            # GGE passes control cells to metrics that say "deg".
            space="deg",
            deg_lfc=space.get("deg_lfc", LOG2FC_FROM),
            deg_pval=space.get("deg_pval", P_BELOW),
            n_components=space.get("n_components", COMPONENTS),
        )

    @property
    def name(self) -> str:
        """Return the registered name; the space is part of it."""
        return self._base_name

    def compute_per_gene(self, real: np.ndarray, generated: np.ndarray) -> np.ndarray:
        """Return the per-gene values `[G]` of `compute` without a condition or controls."""
        return self.compute(real, generated).per_gene_values

    def compute(
        self,
        real: np.ndarray,
        generated: np.ndarray,
        gene_names: list[str] | None = None,
        aggregate_method: str = "mean",
        condition: str | None = None,
        split: str | None = None,
        control_data: np.ndarray | None = None,
        **_: Any,
    ) -> MetricResult:
        """Compute the metric for one condition; `aggregate_method` does not apply, since the metric is a number."""
        real, generated = np.atleast_2d(real).astype(np.float32), np.atleast_2d(generated).astype(np.float32)
        names = list(gene_names) if gene_names is not None else [f"gene_{number}" for number in range(real.shape[1])]
        value, fitted_on = float("nan"), "nothing: controls are no condition"
        if _prepared is None or not _prepared.is_control(condition):
            value, fitted_on = self._value(real, generated, condition, control_data)
        return MetricResult(
            name=self.name,
            per_gene_values=self._per_gene(real, generated, value),
            gene_names=names,
            aggregate_value=value,
            aggregate_method="none",
            space={"genes": "raw", "degs": "deg", "pca": "pca"}[self.metric.space],  # type: ignore[arg-type]
            condition=condition,
            split=split,
            metadata={
                "higher_is_better": self.higher_is_better,
                "description": self.description,
                "base_name": self._base_name,
                "space_fitted_on": fitted_on,
            },
        )

    def _per_gene(self, real: np.ndarray, generated: np.ndarray, value: float) -> np.ndarray:
        error = real.mean(axis=0, dtype=np.float64) - generated.mean(axis=0, dtype=np.float64)
        by_gene = {"mse": np.square, "mae": np.abs}.get(self.metric.name)
        return by_gene(error) if by_gene and np.isfinite(value) else np.full(real.shape[1], value)

    def _value(self, real, generated, condition: str | None, control: np.ndarray | None) -> tuple[float, str]:
        place = _prepared.find(condition) if _prepared is not None else None
        space, fitted_on = self._space(real, control, place)
        if self.metric.on == "cells":
            if space is None or min(len(real), len(generated)) < 2:
                return float("nan"), fitted_on
            x, y = (torch.from_numpy(space.project(cells))[None] for cells in (real, generated))
            sizes = torch.tensor([len(real)]), torch.tensor([len(generated)])
            return float(self.metric.compute(x, y, *sizes)[0]), fitted_on
        if self.metric.compares_conditions:
            return self._discrimination(place), fitted_on
        inputs = self._profiles(real, generated, control, place, space)
        return float(self.metric.compute(inputs)[0]) if inputs is not None else float("nan"), fitted_on

    def _space(self, real, control, place) -> tuple[PcaSpace | None, str]:
        if self.metric.space == "genes":
            return None, "none needed"
        if self.metric.space == "degs":
            return None, "this condition"
        if place is not None and _prepared is not None:
            return _prepared.spaces.get(place[0]), f"all real cells of {place[0]}"
        blocks = [real] if control is None else [real, control]
        if sum(map(len, blocks)) < 3:
            return None, "too few cells"
        return fit_pca(blocks, self.n_components), "this condition" + ("" if control is None else " and the controls")

    def _profiles(self, real, generated, control, place, space) -> Profiles | None:
        means = [cells.mean(axis=0, dtype=np.float64)[None] for cells in (real, generated)]
        if place is not None and _prepared is not None:
            line = _prepared.profiles[place[0]]
            centre = np.nanmean(np.asarray(line.real, dtype=np.float64), axis=0)
            degs = line.degs[place[1]][None]
            return Profiles(means[0], means[1], line.control, line.own_control, centre, degs, space)
        if "centred" in self.metric.name or "own" in self.metric.name:
            return None
        if control is None:
            if self.metric.space == "degs" or "delta" in self.metric.name:
                return None
            nothing = np.zeros(real.shape[1])
            return Profiles(means[0], means[1], nothing, nothing, nothing, np.zeros((1, len(nothing)), bool), space)
        moments = moments_of(np.asarray(control))
        degs = differential_genes(moments_of(real), moments, p_below=self.deg_pval, log2fc_from=self.deg_lfc).mask[None]
        return Profiles(means[0], means[1], moments.mean, moments.mean, moments.mean, degs, space)

    def _discrimination(self, place: tuple[str, int] | None) -> float:
        if place is None or _prepared is None:
            return float("nan")
        line, row = place
        if line not in _prepared.discrimination:
            profiles = _prepared.profiles[line]
            _prepared.discrimination[line] = effects.discrimination(
                np.asarray(profiles.real, dtype=np.float64), np.asarray(profiles.predicted, dtype=np.float64)
            )
        return float(_prepared.discrimination[line][row])


def _subclass(metric: Metric) -> type[RagMetric]:
    name = "Rag" + "".join(part.capitalize() for part in metric.name.split("_"))
    return type(name, (RagMetric,), {"metric": metric, "__doc__": f"{metric.label}, as `rag_{metric.name}` in GGE."})


METRIC_CLASSES: dict[str, type[RagMetric]] = {PREFIX + metric.name: _subclass(metric) for metric in METRICS}
for _class in METRIC_CLASSES.values():
    MetricRegistry.register(_class)


class _Fitted:
    """A PCA space with the one method that GGE's space transformer calls."""

    def __init__(self, space: PcaSpace):
        self.space = space
        self.n_components_ = space.components.shape[1]

    def transform(self, cells: np.ndarray) -> np.ndarray:
        return self.space.project(cells)


def from_gge(
    name: str,
    space: str = "raw",
    *,
    components: int = COMPONENTS,
    deg_p: float = P_BELOW,
    deg_log2fc: float = LOG2FC_FROM,
) -> Metric:
    """Return a metric of GGE's as one of ours, named `gge_<name>`.

    Parameters
    ----------
    name
        Name in GGE's registry, such as `pearson` or `multivariate_wasserstein`.
    space
        `raw`, `deg` (fitted on every condition anew) or `pca` (the cell line's).
    components
        Dimensions, for `space="pca"`.
    deg_p, deg_log2fc
        Thresholds, for `space="deg"`.

    Raises
    ------
    StateRagError
        If GGE knows no such metric.
    """
    found = MetricRegistry.get(name)
    if found is None or name in METRIC_CLASSES:
        known = [each for each in MetricRegistry.list_all() if each not in METRIC_CLASSES]
        close = suggest([name], known)
        raise StateRagError(f"--gge-metrics: GGE has no metric '{name}'{close}; choose from {', '.join(known)}")
    options = {"n_components": components, "deg_lfc": deg_log2fc, "deg_pval": deg_p}

    def compute(cells: RawCells) -> float:
        metric = found(space=space, **options)
        if space == "pca":
            if cells.space is None:
                return float("nan")
            transformer = metric._get_transformer(gene_names=cells.features)
            transformer._pca_model, transformer._is_fitted = _Fitted(cells.space), True
        result = metric.compute(cells.real, cells.predicted, gene_names=cells.features, control_data=cells.control)
        return float(result.aggregate_value)

    label = f"GGE {found(space=space, **options).name}"
    shown = {"raw": "genes", "deg": "degs", "pca": "pca"}[space]
    suffix = "" if space == "raw" else f"_{space}"
    return Metric(f"gge_{name}{suffix}", label, found().higher_is_better, "raw", shown, compute)  # type: ignore[arg-type]
