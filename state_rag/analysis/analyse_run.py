"""Analyse the retrieval of run folders: gather what the analysis needs from each, and write its tables."""

import json
import logging
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from state_rag.analysis.overlap import EffectOf, RetrievalAnalysis, analyse
from state_rag.analysis.records import Retrieved, read_retrieval
from state_rag.datasets.splitting.split_toml import read_split
from state_rag.effects.conditions import Columns, open_pair
from state_rag.effects.mean_effects import MeanEffects
from state_rag.effects.training_effects import training_effects
from state_rag.errors import StateRagError
from state_rag.evaluation.embeddings_source import embeddings_file, of_other_runs, read_vectors
from state_rag.evaluation.runs import Run, predicted_matrix
from state_rag.files import atomic_path, read_text
from state_rag.names import listing
from state_rag.progress import track
from state_rag.run_folders import PREDICTED, REAL
from state_rag.settings import RagSettings

logger = logging.getLogger(__name__)
INFO = "retrieval_info.csv"
TrainedOn = dict[tuple[Path, Columns, str, int], MeanEffects]
WAY_OF_RETRIEVING = {field.name for field in fields(RagSettings)} - {
    "check_gradients",
    "gradient_check_interval",
    "genept_missing",
    "genept_path",
    "rag_watch",
}
"""Settings of `training.` that make another method, or another K."""


def analyse_runs(
    runs: list[Run],
    *,
    embeddings: str | Path | None = None,
    toml: str | Path | None = None,
    truth: str | Path | None = None,
    progress: bool = True,
    records: list[Retrieved] | None = None,
    trained_on: TrainedOn | None = None,
) -> RetrievalAnalysis:
    """Analyse the retrieval of one run, or of several that differ in the cell line they hold out.

    Parameters
    ----------
    runs
        From `runs.find_run`.
    embeddings, toml
        As in `run_evaluation.evaluate_run`.
    truth
        `truth.json` of a simulated screen.
    progress
        Whether to show progress bars.
    records
        From `records_of`, if they were read before.
    trained_on
        Training effects by what they were read with. Those that are read are put there, for further analyses.

    Returns
    -------
    RetrievalAnalysis
        Tables; columns whose source is missing are left out, with a warning that says why.

    Raises
    ------
    StateRagError
        If a run has no retrieval file, or two runs predict the same condition.
    """
    known = read_truth(truth)
    records = records_of(runs, progress) if records is None else records
    source = embeddings_file(runs[0], embeddings, of_other_runs(runs, runs[0]))
    vectors, why = read_vectors(runs[0], embeddings, source)
    if why:
        logger.warning("Similarities are left out: %s", why)
    effect_of, remarks = _true_effects(runs, toml, progress, {} if trained_on is None else trained_on)
    analysis = analyse(records, vectors=vectors, effect_of=effect_of, truth=known)
    if remarks:
        analysis.summary["remarks"] = remarks
    return analysis


def records_of(runs: list[Run], progress: bool = True) -> list[Retrieved]:
    """Return what was retrieved for every condition of some runs, controls left out.

    Raises
    ------
    StateRagError
        If a run has no retrieval file, or two runs predict the same condition.
    """
    records = [
        record
        for run in runs
        for record in read_retrieval(run.predictions / INFO, progress=progress)
        if record.perturbation != run.columns.control
    ]
    seen: set[tuple[str, str]] = set()
    for record in records:
        key = (record.cell_line, record.perturbation)
        if key in seen:
            raise StateRagError(
                f"{record.perturbation} in {record.cell_line} is predicted by more than one of the runs; give runs "
                "that hold out different cell lines, or analyse them one by one"
            )
        seen.add(key)
    return records


def same_retrieval(one: Run, other: Run) -> bool:
    """Return whether two runs retrieve in the same way, going by their configurations."""
    first, second = (
        {key: value for key, value in (run.config.get("training") or {}).items() if key in WAY_OF_RETRIEVING}
        for run in (one, other)
    )
    return first == second


def save_analysis(analysis: RetrievalAnalysis, folder: Path) -> None:
    """Write `neighbours.csv`, `jaccard.csv`, `jaccard_weighted.csv` and `retrieval.json`."""
    with atomic_path(folder / "neighbours.csv") as path:
        analysis.neighbours.to_csv(path, index=False, float_format="%.5g")
    for name, table in (("jaccard", analysis.overlap.sets), ("jaccard_weighted", analysis.overlap.weighted)):
        with atomic_path(folder / f"{name}.csv") as path:
            table.to_csv(path, float_format="%.5g")
    with atomic_path(folder / "retrieval.json") as path:
        path.write_text(json.dumps(analysis.summary, indent=2) + "\n")


def read_truth(path: str | Path | None) -> dict[str, Any] | None:
    """Read the `truth.json` of a simulated screen; None stays None.

    Raises
    ------
    StateRagError
        If it cannot be read or is another file.
    """
    if path is None:
        return None
    text = read_text(path, "the truth.json of a simulated screen", (".json",), "--truth")
    try:
        truth = json.loads(text)
    except ValueError as error:
        raise StateRagError(f"--truth {path} is no JSON ({error}); expected the truth.json of a screen") from error
    if not isinstance(truth, dict) or not {"mates", "misleading"} <= set(truth):
        raise StateRagError(
            f"--truth: {path} has no 'mates' and 'misleading'; expected the truth.json of `state-rag data simulate`"
        )
    return truth


def _true_effects(
    runs: list[Run], toml: str | Path | None, progress: bool, trained_on: TrainedOn
) -> tuple[EffectOf, list[str]]:
    """Return a look-up of real effects, and remarks on those that are not known.

    In order: the run's own real test cells; the training cells of the line; the mean over the training lines.
    """
    remarks: list[str] = []
    measured: dict[tuple[str, str], np.ndarray] = {}
    training: MeanEffects | None = None
    for run in runs:
        pair = open_pair(run.predictions / PREDICTED, run.predictions / REAL, run.columns, matrix=predicted_matrix(run))
        for line, conditions in pair.lines.items():
            control = pair.read_real(pair.controls[line][0]).mean(axis=0, dtype=np.float64)
            if bad := int((~np.isfinite(control)).sum()):
                remarks.append(
                    f"{run.name}: NaN or infinity in the real control cells of {line} ({bad} of {len(control)} genes), "
                    "so the true effects of its test cells are not known; those of the training data stand in where "
                    "there are some"
                )
                continue
            unknown = []
            for condition in track(conditions, f"{line}: real effects", disable=not progress):
                effect = pair.read_real(condition.real).mean(axis=0, dtype=np.float64) - control
                if np.isfinite(effect).all():
                    measured[condition.perturbation, line] = effect
                else:
                    unknown.append(condition.perturbation)
            if unknown:
                remarks.append(f"{run.name}: real cells of {line} hold NaN or infinity in {listing(unknown)}")
        path = run.split_path(toml)
        try:
            if path is not None and training is None:
                read_with = (path.resolve(), run.columns, run.source_matrix, len(pair.features))
                if read_with not in trained_on:
                    trained_on[read_with] = training_effects(read_split(path), *read_with[1:], progress=progress)
                training = trained_on[read_with]
                remarks += [f"{run.name}: {remark}" for remark in _left_out(training, run.columns)]
        except StateRagError as error:
            remarks.append(f"{run.name}: the training data cannot be read, so no true effects come from it ({error})")
    elsewhere = training.mean_over_lines() if training is not None else {}

    def effect_of(perturbation: str, line: str) -> np.ndarray | None:
        found = measured.get((perturbation, line))
        if found is None and training is not None:
            found = training.effects.get(line, {}).get(perturbation)
        return elsewhere.get(perturbation) if found is None else found

    return effect_of, remarks


def _left_out(training: MeanEffects, columns: Columns) -> list[str]:
    """Return remarks on training cells from which no true effect comes."""
    remarks = [
        f"no true effects come from the training cells of {line}: {why}"
        for line, why in training.lines_left_out.items()
    ]
    if training.labels:
        remarks[-1:] = [
            f"{remarks[-1]} (nothing in column '{columns.perturbation}' equals '{columns.control}'; found "
            f"{', '.join(training.labels)}, ...)"
        ]
    if training.not_finite:
        remarks.append(
            f"{len(training.not_finite)} training conditions give no true effects, since NaN or infinity is among "
            f"their cells: {listing(training.not_finite)}"
        )
    return remarks
