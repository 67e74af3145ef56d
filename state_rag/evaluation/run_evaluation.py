"""Evaluate the predictions of a run folder, with naive baselines from the data it was trained on."""

import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from state_rag.datasets.h5ad import open_h5ad
from state_rag.datasets.split_toml import read_split
from state_rag.errors import StateRagError
from state_rag.evaluation.baselines import naive_baselines
from state_rag.evaluation.conditions import Columns, open_pair
from state_rag.evaluation.embeddings_source import embeddings_file, read_vectors
from state_rag.evaluation.evaluate import MODEL, Evaluation, Settings, evaluate_pair
from state_rag.evaluation.metrics.registry import METRICS, Metric
from state_rag.evaluation.results import SUMMARY, check_per_gene, save_evaluation
from state_rag.evaluation.runs import PREDICTED, REAL, Run, feature_names, predicted_matrix
from state_rag.evaluation.training_effects import TrainingEffects, training_effects
from state_rag.files import sample_digest

logger = logging.getLogger(__name__)
BASELINES_LEFT_OUT = "baselines_left_out"
DRAWN = "by content"
"""How control cells and thinned clouds are chosen; evaluations of a time when rows decided are made again."""
NOT_ASKED, RIDGE, TRAINED = "not asked for", "embedding ridge", "all that need training data"


def evaluate_run(
    run: Run,
    *,
    columns: Columns | None = None,
    settings: Settings | None = None,
    metrics: tuple[Metric, ...] = METRICS,
    toml: str | Path | None = None,
    embeddings: str | Path | Mapping[str, np.ndarray] | None = None,
    otherwise: Path | None = None,
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
        run's configuration, `otherwise`, the environment or the published path names, if there is one.
    otherwise
        See there: the embeddings of a run that stands beside this one.
    with_baselines
        Whether to read the training data for the baselines that need it.
    keep
        Perturbations to evaluate; None for all, or for those of the finished evaluation where `force` is off.
    output
        Where to write; by default `RUN/eval_<checkpoint>/gge`.
    force
        Whether to evaluate again where a finished evaluation of the same predictions and settings has all that is
        asked for.

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
    source = None if isinstance(embeddings, Mapping) else embeddings_file(run, embeddings, otherwise)
    made_from: dict[str, Any] = {
        "files": _fingerprints(run),
        "columns": [columns.perturbation, columns.cell_line, columns.control],
        "matrix": matrix,
        "settings": asdict(settings),
        "run": run.name,
        "cells_drawn": DRAWN,
    }
    # What is not asked for may be as it was: `predict` names perturbations and embeddings, a later look does not.
    if keep is not None:
        made_from["kept_perturbations"] = sorted(keep)
    if toml is not None:
        made_from["split"] = sample_digest(_existing_split(toml))
    if embeddings is not None:
        named = sorted(embeddings) if isinstance(embeddings, Mapping) else None
        made_from["embeddings"] = sample_digest(source) if source else named
    names = [metric.name for metric in metrics]
    wanted = Wanted(made_from, names, per_gene, with_baselines, isinstance(embeddings, Mapping) or source is not None)
    if not force and wanted.is_in(folder):
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
    baselines, remarks = naive_baselines(None, len(pair.features)), {BASELINES_LEFT_OUT: NOT_ASKED}
    if with_baselines:
        training, remarks = _training(run, pair.features, columns, toml, progress)
        vectors = None
        if training is not None and training.n_conditions:
            vectors, why = read_vectors(run, embeddings, source)
            remarks |= {BASELINES_LEFT_OUT: f"{RIDGE}: {why}"} if why else {}
        baselines = naive_baselines(training, len(pair.features), vectors)
    evaluation = evaluate_pair(pair, baselines=baselines, metrics=metrics, settings=settings, progress=progress)
    evaluation.notes.update(remarks)
    _plot(evaluation, run.name, folder / "plots")
    save_evaluation(evaluation, folder, columns, metadata=made_from, per_gene=per_gene)
    return folder


@dataclass(frozen=True)
class Wanted:
    """What an evaluation must have been made from, and must hold, to be taken as it is.

    Attributes
    ----------
    made_from
        Entries of the summary's metadata.
    metrics, per_gene
        Names of metrics and per-gene tables; more of them do no harm.
    baselines
        Whether the baselines that need training data must have been tried.
    embeddings
        Whether embeddings are at hand, so that the ridge baseline may not be missing for want of them.
    """

    made_from: Mapping[str, Any]
    metrics: Sequence[str]
    per_gene: Sequence[str]
    baselines: bool
    embeddings: bool

    def is_in(self, folder: Path) -> bool:
        """Return whether a folder holds a finished evaluation of this kind."""
        try:
            metadata = json.loads((folder / SUMMARY).read_text())["metadata"]
            left_out = str(metadata["notes"].get(BASELINES_LEFT_OUT, ""))
        except (OSError, ValueError, KeyError, AttributeError):
            return False
        return (
            all(metadata.get(key) == value for key, value in self.made_from.items())
            and set(self.metrics) <= set(metadata.get("metric_names", []))
            and all((folder / f"per_gene_{name}.csv").is_file() for name in self.per_gene)
            and not (self.baselines and left_out == NOT_ASKED)
            and not (self.baselines and self.embeddings and left_out.startswith(RIDGE))
        )


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


def _training(
    run: Run, features: list[str], columns: Columns, toml: str | Path | None, progress: bool
) -> tuple[TrainingEffects | None, dict[str, Any]]:
    """Return the effects in the training data, and remarks; None where the data cannot be read."""
    path = run.split_path(toml)
    if path is None:
        return None, {BASELINES_LEFT_OUT: f"{TRAINED}: the run's configuration names no split file"}
    try:
        training = training_effects(read_split(path), columns, run.source_matrix, len(features), progress=progress)
    except StateRagError as error:
        if toml is not None:
            raise
        logger.warning("Only the no-effect baseline is shown, since the training data cannot be read: %s", error)
        return None, {BASELINES_LEFT_OUT: f"{TRAINED}: {error}"}
    remarks: dict[str, Any] = {"training_conditions": training.n_conditions}
    if training.not_finite:
        remarks["training_conditions_with_nan"] = len(training.not_finite)
        remarks["training_conditions_with_nan_are"] = _some(training.not_finite)
        logger.warning(
            "%s: baselines leave out %d training conditions, since NaN or infinity is among their cells: %s",
            path,
            len(training.not_finite),
            _some(training.not_finite),
        )
    why = "; ".join(f"{line}: {reason}" for line, reason in training.lines_left_out.items())
    if training.labels:
        found = ", ".join(training.labels)
        why += f" (nothing in column '{columns.perturbation}' equals '{columns.control}'; found {found}, ...)"
    if not training.n_conditions:
        why = f"no training condition can be used; {why or f'{path} names none'}"
        remarks[BASELINES_LEFT_OUT] = f"{TRAINED}: {why}"
        logger.warning("Only the no-effect baseline is shown: %s", why)
    elif why:
        remarks["training_lines_left_out"] = why
        logger.warning("%s: baselines leave out training cells of %s", path, why)
    return training, remarks


def _some(names: Sequence[str], shown: int = 20) -> str:
    """Return the first names."""
    return ", ".join(names[:shown]) + (", ..." if len(names) > shown else "")


def _existing_split(toml: str | Path) -> Path:
    """Return the split file that was given, which must be there."""
    if not Path(toml).is_file():
        raise StateRagError(f"{toml}: no such split file; correct --toml")
    return Path(toml)


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
