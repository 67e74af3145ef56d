"""Evaluate the predictions of a run folder, with naive baselines from the data it was trained on."""

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from state_rag.datasets.h5ad import open_h5ad
from state_rag.datasets.split_toml import read_split
from state_rag.errors import StateRagError
from state_rag.evaluation.baselines import Baseline, naive_baselines
from state_rag.evaluation.conditions import Columns, open_pair
from state_rag.evaluation.evaluate import MODEL, Evaluation, Settings, evaluate_pair
from state_rag.evaluation.metrics.registry import METRICS, Metric
from state_rag.evaluation.results import check_per_gene, save_evaluation
from state_rag.evaluation.runs import PREDICTED, REAL, Run, feature_names, predicted_matrix
from state_rag.evaluation.training_effects import training_effects

logger = logging.getLogger(__name__)


def evaluate_run(
    run: Run,
    *,
    columns: Columns | None = None,
    settings: Settings | None = None,
    metrics: tuple[Metric, ...] = METRICS,
    toml: str | Path | None = None,
    embeddings: str | Path | Mapping[str, np.ndarray] | None = None,
    with_baselines: bool = True,
    keep: set[str] | None = None,
    per_gene: tuple[str, ...] = ("mse",),
    output: Path | None = None,
    force: bool = True,
    progress: bool = True,
) -> Path:
    """Evaluate a run and write the results beside its predictions.

    Parameters
    ----------
    run
        From `runs.find_run`.
    columns
        Names in `obs`; by default those of the run's configuration.
    settings, metrics, per_gene, progress
        As in `evaluate_pair` and `save_evaluation`.
    toml
        Split file, where the one in the configuration has moved.
    embeddings
        Perturbation embeddings for the ridge baseline: a file, or name to vector. By default the file that the
        run's configuration, the environment or the published path names, if there is one.
    with_baselines
        Whether to read the training data for the baselines that need it.
    keep
        Perturbations to evaluate; None for all, or for those of the finished evaluation where `force` is off.
    output
        Where to write; by default `RUN/eval_<checkpoint>/gge`.
    force
        Whether to evaluate again where a finished evaluation of the same predictions and settings exists.

    Returns
    -------
    pathlib.Path
        The folder written.
    """
    check_per_gene(per_gene)
    settings = settings or Settings()
    columns = columns or run.columns
    folder = output or run.results
    matrix = predicted_matrix(run)
    wanted: dict[str, Any] = {
        "files": _fingerprints(run),
        "columns": [columns.perturbation, columns.cell_line, columns.control],
        "matrix": matrix,
        "metric_names": [metric.name for metric in metrics],
        "with_baselines": with_baselines,
        "run": run.name,
    }
    # What is not asked for may be as it was: `predict` names perturbations and embeddings, a later look does not.
    if keep is not None:
        wanted["kept_perturbations"] = sorted(keep)
    if embeddings is not None:
        wanted["embeddings"] = str(embeddings) if isinstance(embeddings, str | Path) else sorted(embeddings)
    if not force and _is_current(folder, wanted, settings):
        logger.info("%s is up to date (evaluate again with --force)", folder)
        return folder
    width = _width(run, matrix)
    pair = open_pair(
        run.predictions / PREDICTED,
        run.predictions / REAL,
        columns,
        matrix=matrix,
        features=feature_names(run, width, toml),
        keep=keep,
    )
    baselines, remarks = _baselines(run, pair.features, columns, toml, embeddings, with_baselines, progress)
    evaluation = evaluate_pair(pair, baselines=baselines, metrics=metrics, settings=settings, progress=progress)
    evaluation.notes.update(remarks)
    _plot(evaluation, run.name, folder / "plots")
    save_evaluation(evaluation, folder, columns, metadata=wanted, per_gene=per_gene)
    return folder


def _plot(evaluation: Evaluation, name: str, folder: Path) -> None:
    """Draw the distributions of the main metrics over conditions."""
    from state_rag.evaluation import plots

    shown = [metric for metric in evaluation.metrics if metric.name in plots.SHOWN_METRICS]
    if shown:
        tables = {str(key): table for key, table in evaluation.table.groupby("predictor", sort=False)}
        tables = {**{key: table for key, table in tables.items() if key != MODEL}, name: tables[MODEL]}
        plots.save_figure(plots.distributions(tables, shown), folder, "distributions")


def _width(run: Run, matrix: str) -> int:
    with open_h5ad(run.predictions / PREDICTED) as file:
        node = file.get(matrix)
        shape = getattr(node, "shape", None) or (node.attrs["shape"] if node is not None else (0, 0))
        return int(shape[1])


def _baselines(
    run: Run, features: list[str], columns: Columns, toml, embeddings, with_baselines: bool, progress: bool
) -> tuple[dict[str, Baseline], dict[str, Any]]:
    """Return the baselines and remarks on those that had to be left out."""
    path = run.split_path(toml)
    if not with_baselines or path is None:
        why = "not asked for" if not with_baselines else "the run's configuration names no split file"
        return naive_baselines(None, len(features)), {"baselines_left_out": f"all that need training data: {why}"}
    try:
        training = training_effects(read_split(path), columns, run.source_matrix, len(features), progress=progress)
    except StateRagError as error:
        if toml is not None:
            raise
        logger.warning("Only the no-effect baseline is shown, since the training data cannot be read: %s", error)
        return naive_baselines(None, len(features)), {"baselines_left_out": f"all that need training data: {error}"}
    remarks: dict[str, Any] = {"training_conditions": training.n_conditions}
    names = {name for effects in training.effects.values() for name in effects}
    vectors: Mapping[str, np.ndarray] | None = None
    if isinstance(embeddings, Mapping):
        vectors = embeddings
    else:
        try:
            vectors = read_vectors(run, embeddings, names)
        except StateRagError as error:
            if embeddings is not None:
                raise
            logger.warning("The ridge baseline is left out: %s", error)
            remarks["baselines_left_out"] = f"embedding ridge: {error}"
    return naive_baselines(training, len(features), vectors), remarks


def read_vectors(run: Run, given: str | Path | None, names: set[str] | None = None) -> dict[str, np.ndarray]:
    """Return the run's perturbation embeddings, by name.

    Raises
    ------
    StateRagError
        If no embeddings are found; the message lists the ways of giving them.
    """
    from state_rag.embeddings.find import find_embeddings
    from state_rag.embeddings.readers import read_embeddings

    configured = (run.config.get("training") or {}).get("genept_path")
    table = read_embeddings(find_embeddings(str(given or configured) if given or configured else None), progress=False)
    return dict(zip(table.names, table.vectors, strict=True))


def _fingerprints(run: Run) -> dict[str, list[int]]:
    """Return size and time of the predictions' files, to tell whether an evaluation is of these."""
    found = {}
    for name in (PREDICTED, REAL):
        path = run.predictions / name
        if not path.is_file():
            raise StateRagError(f"{path}: no such file; predict again without --skip-adatas")
        status = os.stat(path)
        found[name] = [status.st_size, status.st_mtime_ns]
    return found


def _is_current(folder: Path, wanted: dict[str, Any], settings: Settings) -> bool:
    from dataclasses import asdict

    try:
        metadata = json.loads((folder / "summary.json").read_text())["metadata"]
    except (OSError, ValueError, KeyError):
        return False
    return metadata.get("settings") == asdict(settings) and all(metadata.get(k) == v for k, v in wanted.items())
