"""All metrics for all conditions of one pair of predicted and real cells, in bounded memory.

Cells are read twice: once per cell line to fit its PCA, once per condition for everything else. Mean profiles and
masks of differential genes go to temporary files (9 bytes a gene and condition); what stays in memory of a condition
is its row of the results.
"""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field

import numpy as np
import pandas as pd
import torch

from state_rag.effects.cell_draws import choose_cells, condition_generator, content_keys
from state_rag.effects.conditions import Condition, Pair
from state_rag.effects.line_profiles import LineProfiles, finite_mean, profile_columns
from state_rag.effects.row_store import RowStore
from state_rag.errors import StateRagError
from state_rag.evaluation.baselines.naive import Baseline, MovedControl, cells_of
from state_rag.evaluation.devices import GPU_ERRORS, choose_device
from state_rag.evaluation.settings import Settings
from state_rag.metrics.clouds import one_thread, pad
from state_rag.metrics.degs import WelchMoments, differential_genes
from state_rag.metrics.inputs import RawCells
from state_rag.metrics.pca import COMPONENTS, PcaSpace, fit_pca
from state_rag.metrics.registry import METRICS, Metric
from state_rag.metrics.row_blocks import RowBlocks, row_blocks
from state_rag.progress import track

logger = logging.getLogger(__name__)
MODEL = "model"
READ_ROWS = 2048
PSEUDOBULK = "pseudobulk profiles, not cells: no DEGs and no distances between clouds of cells can be told (NaN)"


@dataclass
class Evaluation:
    """Result of `evaluate_pair`.

    Attributes
    ----------
    table
        One row per predictor and condition: `predictor`, `perturbation`, `cell_line`, `n_real`, `n_predicted`,
        `n_degs` and one column per metric.
    profiles
        Mean profiles per cell line.
    spaces
        PCA space per cell line.
    features
        Gene names.
    notes
        What a reader should know about: counts of conditions with NaN input or too few cells, of negative values, of
        baselines that fell back and of NaN per metric and predictor; genes left out, pseudobulks, and PCA spaces with
        other than 50 dimensions.
    settings
        The settings used.
    """

    table: pd.DataFrame
    profiles: dict[str, LineProfiles]
    spaces: dict[str, PcaSpace]
    features: list[str]
    notes: dict[str, object]
    settings: Settings
    metrics: tuple[Metric, ...] = field(default=METRICS)

    def model(self) -> pd.DataFrame:
        """Return the model's rows only."""
        return self.table[self.table["predictor"] == MODEL].reset_index(drop=True)


def evaluate_pair(
    pair: Pair,
    *,
    baselines: Mapping[str, Baseline] | None = None,
    metrics: tuple[Metric, ...] = METRICS,
    settings: Settings | None = None,
    progress: bool = True,
) -> Evaluation:
    """Compute every metric for every condition, for the prediction and for naive baselines.

    Parameters
    ----------
    pair
        From `conditions.open_pair`.
    baselines
        Name to baseline; "no effect" needs no training data and is always there.
    metrics
        Which metrics; all by default.
    settings
        Thresholds, device and the like.
    progress
        Whether to show a progress bar.

    Returns
    -------
    Evaluation
        Tables and profiles.

    Raises
    ------
    StateRagError
        If the controls of a cell line contain NaN or infinity.

    Examples
    --------
    >>> from state_rag.effects.conditions import Columns, open_pair
    >>> pair = open_pair("adata_pred.h5ad", "adata_real.h5ad", Columns())  # doctest: +SKIP
    >>> evaluate_pair(pair).model()["pearson_delta"].mean()  # doctest: +SKIP
    """
    settings = settings or Settings()
    run = _Run(pair, dict(baselines or {}), metrics, settings, progress)
    for line in pair.lines:
        run.line(line)
    return run.result()


@dataclass
class _Run:
    """State of one evaluation while it goes from cell line to cell line."""

    pair: Pair
    baselines: dict[str, Baseline]
    metrics: tuple[Metric, ...]
    settings: Settings
    progress: bool
    tables: list[pd.DataFrame] = field(default_factory=list)
    profiles: dict[str, LineProfiles] = field(default_factory=dict)
    spaces: dict[str, PcaSpace] = field(default_factory=dict)
    notes: dict[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.device = choose_device(self.settings.device)
        self.notes.update(_describe(self.pair))
        self.on_cells = [metric for metric in self.metrics if metric.on == "cells"]
        self.on_raw = [metric for metric in self.metrics if metric.on == "raw"]
        self.on_profiles = [metric for metric in self.metrics if metric.on == "profiles"]

    def count(self, what: str, number: int = 1) -> None:
        if number:
            self.notes[what] = int(self.notes.get(what, 0)) + number  # type: ignore[call-overload]

    def line(self, line: str) -> None:
        pair, conditions = self.pair, self.pair.lines[line]
        control, own = self._controls(line)
        space = self._fit_space(line) if any(metric.space == "pca" for metric in self.metrics) else None
        genes = len(pair.features)
        profiles = LineProfiles(
            [condition.perturbation for condition in conditions],
            real_means := RowStore(len(conditions), genes, np.float32),
            predicted_means := RowStore(len(conditions), genes, np.float32),
            degs := RowStore(len(conditions), genes, np.bool_),
            control.mean,
            own.mean,
        )
        control_cells = self._control_cells(line) if self.on_cells or self.on_raw else None
        width = len(self.on_cells) + len(self.on_raw)
        distances = {name: np.full((len(conditions), width), np.nan) for name in self._names()}
        waiting: list[tuple[int, dict[str, np.ndarray]]] = []
        for number, condition in enumerate(track(conditions, f"{line}: conditions", disable=not self.progress)):
            real, predicted = pair.read_real(condition.real), pair.read_predicted(condition.predicted)
            moments = WelchMoments(genes)
            moments.add(real)
            real_means[number] = moments.mean
            predicted_means[number] = predicted.mean(axis=0, dtype=np.float64)
            finite = self._finite(real, predicted)
            if finite[0]:
                degs[number] = differential_genes(
                    moments,
                    control,
                    p_below=self.settings.deg_p,
                    log2fc_from=self.settings.deg_log2fc,
                    fold_change=self.settings.fold_change,
                ).mask
            if not all(finite):
                continue
            self.count("conditions_with_one_cell", int(min(len(real), len(predicted)) < 2))
            if control_cells is None or min(len(real), len(predicted)) < 2:
                continue
            clouds = {"": self._thin(real), MODEL: self._thin(predicted)}
            clouds.update(self._baseline_cells(condition, control_cells, control.mean, len(clouds[MODEL])))
            for name in self._names():
                inputs = RawCells(clouds[""], clouds[name], control_cells, space, pair.features)
                distances[name][number, len(self.on_cells) :] = [metric.compute(inputs) for metric in self.on_raw]
            if self.on_cells and space is not None:
                waiting.append((number, {name: space.project(cells) for name, cells in clouds.items()}))
            if len(waiting) == self.settings.batch:
                self._measure(waiting, distances)
        self._measure(waiting, distances)
        self._finish_line(line, profiles, space, distances, conditions)

    def _names(self) -> list[str]:
        return [MODEL, *self.baselines]

    def _controls(self, line: str) -> tuple[WelchMoments, WelchMoments]:
        result = []
        for read, rows, side in zip(
            (self.pair.read_real, self.pair.read_predicted),
            self.pair.controls[line],
            (self.pair.real, self.pair.predicted),
            strict=True,
        ):
            moments = WelchMoments(len(self.pair.features))
            for block in _blocks(read, rows):
                moments.add(block)
            if not np.isfinite(moments.mean).all():
                raise StateRagError(
                    f"{side.name}: {int((~np.isfinite(moments.mean)).sum())} genes have NaN or infinity in the control "
                    f"cells of {line}; no effect can be measured against them. Repair the data and predict again"
                )
            result.append(moments)
        return result[0], result[1]

    def _fit_space(self, line: str) -> PcaSpace | None:
        rows = [self.pair.controls[line][0], *(condition.real for condition in self.pair.lines[line])]
        if sum(map(len, rows)) < 3:
            return None

        def blocks() -> Iterator[np.ndarray]:
            for group in track(rows, f"{line}: PCA", disable=not self.progress):
                for block in _blocks(self.pair.read_real, group):
                    yield block[np.isfinite(block).all(axis=1)]

        self.spaces[line] = fit_pca(blocks(), self.settings.components)
        return self.spaces[line]

    def _control_cells(self, line: str) -> np.ndarray:
        """Return the line's real control cells, at most `max_cells`, in an order that depends on their content only."""
        rows, seed = self.pair.controls[line][0], self.settings.seed
        keys = (content_keys(block, seed) for block in _blocks(self.pair.read_real, rows))
        return self.pair.read_real(rows[choose_cells(keys, self.settings.max_cells)])

    def _finite(self, real: np.ndarray, predicted: np.ndarray) -> tuple[bool, bool]:
        finite = bool(np.isfinite(real).all()), bool(np.isfinite(predicted).all())
        self.count("conditions_with_nan_in_real_cells", int(not finite[0]))
        self.count("conditions_with_nan_in_predicted_cells", int(not finite[1]))
        self.count("negative_values_in_real_cells", int((real < 0).sum()))
        self.count("negative_values_in_predicted_cells", int((predicted < 0).sum()))
        return finite

    def _thin(self, cells: np.ndarray) -> np.ndarray:
        if len(cells) <= self.settings.max_cells:
            return cells
        self.count("clouds_thinned")
        return cells[choose_cells([content_keys(cells, self.settings.seed)], self.settings.max_cells)]

    def _baseline_cells(
        self, condition: Condition, control_cells: np.ndarray, control: np.ndarray, count: int
    ) -> dict[str, np.ndarray]:
        """Return real control cells moved by each baseline's effect and clipped as upstream clips predictions.

        All baselines start from the same cells, so they differ in their effects only (and in whether they scale).
        """
        rng = condition_generator(self.settings.seed, condition.cell_line, condition.perturbation)
        chosen = control_cells[rng.choice(len(control_cells), count, replace=count > len(control_cells))]
        low = min(0.0, float(control_cells.min()))
        return {name: cells_of(one, condition, chosen, control, low) for name, one in self.baselines.items()}

    def _nan_counts(self, rows: pd.DataFrame) -> dict[str, int]:
        counts = {metric.name: int(rows[metric.name].isna().sum()) for metric in self.metrics}
        return {name: count for name, count in counts.items() if count}

    def _measure(self, waiting: list[tuple[int, dict[str, np.ndarray]]], distances: dict[str, np.ndarray]) -> None:
        if not waiting:
            return
        try:
            self._measure_on(self.device, waiting, distances)
        except GPU_ERRORS as error:
            if self.device.type == "cpu":
                raise
            reason = str(error).splitlines()[0]
            logger.warning("Distances are computed on the CPU from here on, since the GPU failed: %s", reason)
            self.device = torch.device("cpu")
            self._measure_on(self.device, waiting, distances)
        waiting.clear()

    def _measure_on(
        self, device: torch.device, waiting: list[tuple[int, dict[str, np.ndarray]]], distances: dict[str, np.ndarray]
    ) -> None:
        real, n = pad([clouds[""] for _, clouds in waiting], device)
        rows = [number for number, _ in waiting]
        with one_thread():
            for name, values in distances.items():
                predicted, m = pad([clouds[name] for _, clouds in waiting], device)
                for column, metric in enumerate(self.on_cells):
                    values[rows, column] = metric.compute(real, predicted, n, m).cpu().numpy()

    def _finish_line(self, line, profiles: LineProfiles, space, distances, conditions: list[Condition]) -> None:
        self.profiles[line] = profiles
        finite, centre = finite_mean(profiles.real)
        if centre is None:
            centre = profiles.control
        n_degs = np.concatenate([profiles.degs[rows].sum(axis=1) for rows in row_blocks(len(conditions))])
        for name in self._names():
            predicted: RowBlocks
            if name == MODEL:
                predicted, own = profiles.predicted, profiles.own_control
            else:
                predicted, own = MovedControl(self.baselines[name], conditions, profiles.control), profiles.control
                self.count(
                    f"fallbacks of {name}",
                    sum(not self.baselines[name].knows(c.perturbation, line) for c in conditions),
                )
            columns = profile_columns(self.on_profiles, profiles, predicted, own=own, centre=centre, space=space)
            for values in columns.values():
                values[~finite] = np.nan
            for number, metric in enumerate([*self.on_cells, *self.on_raw]):
                columns[metric.name] = distances[name][:, number]
            head = {
                "predictor": name,
                "perturbation": profiles.perturbations,
                "cell_line": line,
                "n_real": [len(condition.real) for condition in conditions],
                "n_predicted": [len(condition.predicted) for condition in conditions],
                "n_degs": n_degs,
            }
            ordered = {metric.name: columns[metric.name] for metric in self.metrics}
            self.tables.append(pd.DataFrame({**head, **ordered}))

    def result(self) -> Evaluation:
        table = pd.concat(self.tables, ignore_index=True)
        model = table[table["predictor"] == MODEL]
        self.notes["conditions"] = len(model)
        self.notes["conditions_without_degs"] = int((model["n_degs"] == 0).sum())
        nan = {str(name): self._nan_counts(rows) for name, rows in table.groupby("predictor", sort=False)}
        self.notes["nan_per_metric"] = nan.pop(MODEL)
        self.notes["nan_per_metric_of_baselines"] = {name: counts for name, counts in nan.items() if counts}
        used = {line: space.components.shape[1] for line, space in self.spaces.items()}
        self.notes["pca_dimensions"] = used
        if other := {line: number for line, number in used.items() if number != COMPONENTS}:
            self.notes["pca_of_other_size_than_the_labels_say"] = ", ".join(
                f"{number} in {line}" for line, number in other.items()
            )
        for name in ("real", "predicted"):
            if found := self.notes.get(f"negative_values_in_{name}_cells"):
                logger.warning("%s negative values among %s cells; log-normalised data have none.", found, name)
        logger.debug("evaluated with %s", asdict(self.settings))
        order = {name: rank for rank, name in enumerate(self._names())}
        table = table.sort_values(
            by=["predictor", "cell_line", "perturbation"],
            key=lambda column: column.map(order) if column.name == "predictor" else column,
            kind="stable",
        ).reset_index(drop=True)
        return Evaluation(
            table, self.profiles, self.spaces, self.pair.features, self.notes, self.settings, self.metrics
        )


def _describe(pair: Pair) -> dict[str, object]:
    """Return notes on the files, with a line of warning where the predictions are pseudobulks."""
    notes: dict[str, object] = {}
    if pair.genes_left_out:
        notes["predicted_genes_left_out"] = len(pair.genes_left_out)
    if pair.pseudobulk:
        profiles = {
            line: sum(len(c.real) for c in some) + len(pair.controls[line][0]) for line, some in pair.lines.items()
        }
        numbers = ", ".join(f"{number} in {line}" for line, number in profiles.items())
        notes["pseudobulk"] = f"{PSEUDOBULK}; PCA is fitted on these profiles ({numbers})"
        logger.warning("%s: %s.", pair.predicted.name, notes["pseudobulk"])
    return notes


def _blocks(read, rows: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the rows in blocks that fit in memory."""
    for start in range(0, len(rows), READ_ROWS):
        yield read(rows[start : start + READ_ROWS])
