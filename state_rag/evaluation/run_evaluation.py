"""Evaluate the predictions of a run folder, with naive baselines from the data it was trained on."""

import logging
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from state_rag.contract.feature_names import is_expression
from state_rag.datasets.splitting.split_toml import read_split
from state_rag.effects.conditions import Columns, Condition, open_pair
from state_rag.effects.mean_effects import MeanEffects
from state_rag.effects.training_effects import training_effects
from state_rag.effects.workers import Workers
from state_rag.engine.bank import responses_of
from state_rag.engine.folder import is_evidence_run
from state_rag.engine.held_out import conditions_of
from state_rag.errors import StateRagError
from state_rag.evaluation.baselines.by_name import by_name, known_by_name
from state_rag.evaluation.baselines.evidence_row import (
    FITTED,
    LEFT_OUT,
    OWN,
    EvidenceRow,
    evidence_row,
    why_too_large,
)
from state_rag.evaluation.baselines.evidence_row import NOT_ASKED as NO_EVIDENCE
from state_rag.evaluation.baselines.naive import EVIDENCE, MEAN_EFFECT, OTHER_LINES, Baseline, naive_baselines
from state_rag.evaluation.called_genes import write_called_genes
from state_rag.evaluation.embeddings_source import IN_CHECKPOINT, embeddings_file, in_checkpoint, read_vectors
from state_rag.evaluation.evaluate import MODEL, Evaluation, Settings, evaluate_pair
from state_rag.evaluation.real_side import MADE_UP
from state_rag.evaluation.remarks import NO_OTHER_LINE, NOT_APPLICABLE, mixed_questions, training_remarks
from state_rag.evaluation.results import SUMMARY
from state_rag.evaluation.runs import Run, feature_names, predicted_matrix
from state_rag.evaluation.save import check_per_gene, save_evaluation
from state_rag.evaluation.trust_calibration import write_calibration
from state_rag.evaluation.up_to_date import (
    BASELINES_LEFT_OUT,
    NOT_ASKED,
    RIDGE,
    TRAINED,
    TRIED_WITH,
    Wanted,
    embeddings_state,
    has_trained_baselines,
    metadata_in,
    training_state,
    why_not_found,
)
from state_rag.files import existing_file, sample_digest, writable_folder
from state_rag.h5ad import open_h5ad
from state_rag.metrics.registry import METRICS, Metric
from state_rag.run_folders import PREDICTED, REAL

logger = logging.getLogger(__name__)
PICTURE = "distributions"
READ_FROM = "read_from"
"""Entry of the summary's metadata: where split and embeddings lay."""


def evaluate_run(run: Run, **asked: Any) -> Path:
    """Evaluate a run, write the results beside its predictions, and return the folder written.

    Parameters
    ----------
    run
        From `runs.find_run`.
    asked
        Attributes of `Request`.
    """
    return Request(run, **asked).fulfil()


@dataclass(frozen=True)
class Request:
    """An evaluation of a run that is asked for.

    Attributes
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
    with_evidence
        Whether to fit the evidence engine on them for a row of its own; None: unless it needs much memory
        (`evidence_row.MOST_VALUES`). A run of the engine has none beside it.
    keep
        Perturbations to evaluate; None for all, or for those of the finished evaluation where `force` is off.
    conditions
        Pairs of cell line and perturbation to evaluate; None for all.
    output
        Where to write; by default `RUN/eval_<checkpoint>/gge`.
    force
        Whether to evaluate again where a finished evaluation of the same predictions and settings has all that is
        asked for.
    picture
        Whether to draw the distributions of the main metrics.
    workers
        Who reads the training data.
    """

    run: Run
    columns: Columns | None = None
    settings: Settings = field(default_factory=Settings)
    metrics: tuple[Metric, ...] = METRICS
    toml: str | Path | None = None
    embeddings: str | Path | Mapping[str, np.ndarray] | None = None
    otherwise: Path | None = None
    with_baselines: bool = True
    with_evidence: bool | None = None
    keep: set[str] | None = None
    conditions: Collection[tuple[str, str]] | None = None
    per_gene: tuple[str, ...] = ("mse",)
    output: Path | None = None
    force: bool = True
    progress: bool = True
    picture: bool = True
    workers: Workers = field(default_factory=Workers)

    def __post_init__(self) -> None:
        """Refuse per-gene tables that do not exist."""
        check_per_gene(self.per_gene)

    @property
    def folder(self) -> Path:
        """Return where the results lie, or will."""
        return self.output or self.run.results

    @cached_property
    def needed(self) -> bool:
        """Return whether there must be a new evaluation."""
        wanted = Wanted(
            self._made_from,
            [metric.name for metric in self.metrics],
            self.per_gene,
            self.with_baselines,
            self.run.split_path(self.toml),
            self.embeddings if isinstance(self.embeddings, Mapping) else self._source,
            self.with_evidence,
        )
        return self.force or not wanted.is_in(self.folder)

    def check(self) -> None:
        """Refuse, before any work, what would be refused after it.

        Raises
        ------
        StateRagError
            If a new evaluation is needed and nothing can be written to its folder, or the training data of the
            baselines that are there cannot be found any more.
        """
        if not self.needed:
            return
        try:
            writable_folder(self.folder, f"results of {self.run.name}:")
        except StateRagError as error:
            raise StateRagError(
                f"{str(error).removesuffix(' Choose another folder.')} Results lie beside the predictions: make "
                f"{self.run.predictions} writable, or copy {self.run.folder} to a place that is and name the copy"
            ) from error
        if self.with_baselines and (why := why_not_found(self.run.split_path(self.toml))):
            self._refuse_loss(why)

    def fulfil(self) -> Path:
        """Evaluate where that is needed, and return the folder."""
        self.check()
        if not self.needed:
            logger.info("%s is up to date (evaluate again with --force)", self.folder)
            return self.folder
        run, columns, matrix = self.run, self._columns, self._made_from["matrix"]
        pair = open_pair(
            run.predictions / PREDICTED,
            run.predictions / REAL,
            columns,
            matrix=matrix,
            features=feature_names(run, _width(run, matrix), self.toml),
            keep=self.keep,
            conditions=self.conditions,
        )
        baselines: dict[str, Baseline] = naive_baselines(None, len(pair.features))
        remarks: dict[str, Any] = {BASELINES_LEFT_OUT: NOT_ASKED}
        metadata = dict(self._made_from)
        if self.with_baselines:
            split = run.split_path(self.toml)
            metadata[TRIED_WITH] = {"training": training_state(split), "embeddings": embeddings_state(self._source)}
            metadata[READ_FROM] = {
                name: str(path.resolve())
                for name, path in (("split", split), ("embeddings", self._source))
                if path is not None
            }
            training, remarks = self._training(pair.features)
            vectors = None
            if training is not None and training.n_conditions:
                vectors, why = self._vectors()
                remarks |= {BASELINES_LEFT_OUT: f"{RIDGE}: {why}"} if why else {}
            elif training is None:
                self._refuse_loss(remarks[BASELINES_LEFT_OUT].removeprefix(f"{TRAINED}: "))
            asked = [*chain.from_iterable(pair.lines.values())]
            described, treated = vectors, bool(columns.treatment)
            if vectors and training is not None:
                labels = {one.perturbation for one in asked}.union(*training.effects.values())
                treated = treated or known_by_name(labels, vectors)
                described = by_name(labels, vectors) if treated else vectors
            baselines = naive_baselines(training, len(pair.features), described, asked)
            if MEAN_EFFECT in baselines and OTHER_LINES not in baselines:
                remarks |= {NOT_APPLICABLE: NO_OTHER_LINE}
            if training is not None:
                remarks |= mixed_questions(training, asked, columns.control)
            if split is not None and training is not None and training.n_conditions:
                row, told = self._evidence(training, split, pair.features, asked, vectors, treated=treated)
                baselines |= {} if row is None else {EVIDENCE: row}
                remarks |= told
        evaluation = evaluate_pair(
            pair, baselines=baselines, metrics=self.metrics, settings=self.settings, progress=self.progress
        )
        evaluation.notes.update(remarks)
        # A folder without a summary is not taken for finished, so the pictures of an earlier evaluation may go.
        (self.folder / SUMMARY).unlink(missing_ok=True)
        for stale in (self.folder / "plots").glob(f"{PICTURE}.*"):
            stale.unlink()
        model = evaluation.table[evaluation.table["predictor"] == MODEL]
        write_calibration(run.predictions, model, self.folder, picture=self.picture)
        write_called_genes(pair, evaluation.profiles, run.predictions, self.folder, progress=self.progress)
        save_evaluation(evaluation, self.folder, columns, metadata=metadata, per_gene=self.per_gene)
        if self.picture:
            _draw(evaluation, run.name, self.folder / "plots")
        return self.folder

    @property
    def _columns(self) -> Columns:
        return self.columns or self.run.columns

    @cached_property
    def _source(self) -> Path | None:
        """Return the file of embeddings."""
        given = self.embeddings
        return None if isinstance(given, Mapping) else embeddings_file(self.run, given, self.otherwise)

    @cached_property
    def _made_from(self) -> dict[str, Any]:
        columns = self._columns
        made_from: dict[str, Any] = {
            "files": _fingerprints(self.run),
            "columns": [columns.perturbation, columns.cell_line, columns.control],
            **({"treatment_columns": columns.treatment.to_data()} if columns.treatment else {}),
            "matrix": predicted_matrix(self.run),
            "settings": asdict(self.settings),
            "run": self.run.name,
        }
        # What is not asked for may be as it was: `predict` names perturbations and embeddings, a later look does not.
        if self.keep is not None:
            made_from["kept_perturbations"] = sorted(self.keep)
        if self.conditions is not None:
            made_from["kept_conditions"] = sorted(map(list, self.conditions))
        if self.toml is not None:
            made_from["split"] = sample_digest(_existing_split(self.toml))
        if self.embeddings is not None:
            named = sorted(self.embeddings) if isinstance(self.embeddings, Mapping) else None
            made_from["embeddings"] = sample_digest(self._source) if self._source else named
        return made_from

    def _refuse_loss(self, why: str) -> None:
        """Refuse to put an evaluation without baselines in place of one of the same predictions that has them."""
        stored = metadata_in(self.folder)
        if has_trained_baselines(stored) and stored.get("files") == self._made_from["files"]:
            raise StateRagError(
                f"{self.folder}: the evaluation there has baselines that a new one would lack ({why.rstrip('.')}). "
                "Name a split whose data can be read with --toml, or do without them (--no-baselines)"
            )

    def _evidence(
        self,
        training: MeanEffects,
        split: Path,
        features: list[str],
        asked: Sequence[Condition],
        vectors: Mapping[str, np.ndarray] | None,
        *,
        treated: bool,
    ) -> tuple[EvidenceRow | None, dict[str, Any]]:
        """Return the evidence engine's row, and a note on what it was fitted on or why there is none."""
        if why := self._no_evidence(training, len(features)):
            return None, {LEFT_OUT: why}
        try:
            row, told = evidence_row(
                responses_of(training, features, self._columns.control, treated=treated),
                conditions_of(read_split(split), self._columns),
                self._columns.control,
                asked,
                (vectors, self._embeddings_are),
                expression=is_expression(self.run.source_matrix),
                progress=self.progress,
            )
        except StateRagError as error:
            if self.with_evidence:
                raise
            logger.warning("There is no row of the evidence engine: %s", error)
            return None, {LEFT_OUT: str(error).splitlines()[0]}
        return row, {LEFT_OUT if row is None else FITTED: told}

    def _vectors(self) -> tuple[Mapping[str, np.ndarray] | None, str]:
        """Return the embeddings, those in the run's checkpoint where there is no file; or None and why."""
        vectors, why = read_vectors(self.run, self.embeddings, self._source)
        if vectors is None and self._source is None and (carried := in_checkpoint(self.run)):
            return carried, ""
        return vectors, why

    @property
    def _embeddings_are(self) -> str:
        if isinstance(self.embeddings, Mapping):
            return "those given"
        return IN_CHECKPOINT if self._source is None else str(self._source)

    def _no_evidence(self, training: MeanEffects, genes: int) -> str:
        """Return why no row of the evidence engine is made; empty where it is."""
        if is_evidence_run(self.run.config):
            return OWN
        if self.with_evidence is False:
            return NO_EVIDENCE
        return "" if self.with_evidence else why_too_large(training, genes)

    def _training(self, features: list[str]) -> tuple[MeanEffects | None, dict[str, Any]]:
        """Return the effects in the training data, and remarks; None where the data cannot be read."""
        path, columns = self.run.split_path(self.toml), self._columns
        if path is None:
            return None, {BASELINES_LEFT_OUT: f"{TRAINED}: {why_not_found(None)}; name it with --toml"}
        try:
            training = training_effects(
                read_split(path),
                columns,
                self.run.source_matrix,
                len(features),
                names=None if features[0].startswith(MADE_UP) else features,
                progress=self.progress,
                workers=self.workers,
            )
        except StateRagError as error:
            if self.toml is not None:
                raise
            why = f"{str(error).rstrip('.')}; name a split whose data can be read with --toml"
            logger.warning("Only the no-effect baseline is shown, since the training data cannot be read: %s", why)
            return None, {BASELINES_LEFT_OUT: f"{TRAINED}: {why}"}
        return training, training_remarks(training, path, columns)


def _draw(evaluation: Evaluation, name: str, folder: Path) -> None:
    """Draw the distributions of the main metrics over conditions."""
    from state_rag.plot import figures, style

    shown = [metric for metric in evaluation.metrics if metric.name in figures.SHOWN_METRICS]
    if shown:
        tables = {str(key): table for key, table in evaluation.table.groupby("predictor", sort=False)}
        tables = {**{key: table for key, table in tables.items() if key != MODEL}, name: tables[MODEL]}
        style.save_figure(figures.distributions(tables, shown), folder, PICTURE)


def _width(run: Run, matrix: str) -> int:
    with open_h5ad(run.predictions / PREDICTED) as file:
        node = file.get(matrix)
        shape = getattr(node, "shape", None) or (node.attrs["shape"] if node is not None else (0, 0))
        return int(shape[1])


def _existing_split(toml: str | Path) -> Path:
    """Return the split file that was given, which must be there."""
    return existing_file(toml, "a split file", (".toml",), "--toml")


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
