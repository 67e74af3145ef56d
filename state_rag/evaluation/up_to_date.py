"""Whether a finished evaluation is what is asked for, or a new one could hold more."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from state_rag.datasets.data_files import find_data_files
from state_rag.datasets.splitting.split_toml import read_split
from state_rag.errors import StateRagError
from state_rag.evaluation.baselines import evidence_row, naive
from state_rag.evaluation.results import SUMMARY
from state_rag.files import data_size, data_time, sample_digest

BASELINES_LEFT_OUT = "baselines_left_out"
"""Note on why; it begins with one of the next three."""
NOT_ASKED, RIDGE, TRAINED = "not asked for", naive.RIDGE, "all that need training data"
TRIED_WITH = "baselines_tried_with"
"""Entry of the summary's metadata: states of the training data and of the embeddings file."""


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
    split
        The split file, where one is known: baselines that were left out are tried again once its data can be read, or
        have changed.
    embeddings
        File or vectors at hand: likewise.
    evidence
        Whether the row of the evidence engine must be there; None: as far as it is made without being asked for.
    """

    made_from: Mapping[str, Any]
    metrics: Sequence[str]
    per_gene: Sequence[str]
    baselines: bool
    split: Path | None
    embeddings: Path | Mapping | None
    evidence: bool | None = None

    def is_in(self, folder: Path) -> bool:
        """Return whether a folder holds a finished evaluation of this kind."""
        metadata = metadata_in(folder)
        return (
            all(metadata.get(key) == value for key, value in self.made_from.items())
            and set(self.metrics) <= set(metadata.get("metric_names", []))
            and all((folder / f"per_gene_{name}.csv").is_file() for name in self.per_gene)
            and not (self.baselines and self._more_can_be_told(metadata))
        )

    def _more_can_be_told(self, metadata: Mapping[str, Any]) -> bool:
        left_out = _left_out(metadata)
        if left_out == NOT_ASKED:
            return True
        tried = metadata.get(TRIED_WITH, {})
        if left_out.startswith(TRAINED):
            return training_state(self.split) not in (None, tried.get("training"))
        if left_out.startswith(RIDGE) and self.embeddings is not None:
            return embeddings_state(self.embeddings) != tried.get("embeddings") or self._evidence_can_be_told(metadata)
        return self._evidence_can_be_told(metadata)

    def _evidence_can_be_told(self, metadata: Mapping[str, Any]) -> bool:
        """Return whether the row of the evidence engine is missing and could be made."""
        if self.evidence is False or evidence_row.FITTED in metadata["notes"]:
            return False
        why = str(metadata["notes"].get(evidence_row.LEFT_OUT, evidence_row.NOT_ASKED))
        if why == evidence_row.NOT_ASKED:
            return training_state(self.split) is not None
        return bool(self.evidence) and why != evidence_row.OWN


def metadata_in(folder: Path) -> dict[str, Any]:
    """Return a finished evaluation's metadata; empty where there is none, or none that can be read."""
    try:
        metadata = json.loads((folder / SUMMARY).read_text())["metadata"]
        return metadata if isinstance(metadata["notes"], dict) else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def has_trained_baselines(metadata: Mapping[str, Any]) -> bool:
    """Return whether an evaluation has the baselines that need training data."""
    return bool(metadata) and not _left_out(metadata).startswith((NOT_ASKED, TRAINED))


def training_state(split: Path | None) -> str | None:
    """Return what tells the present training data from others; None where they cannot be found."""
    if split is None or why_not_found(split):
        return None
    stamps = [(str(file.resolve()), data_size(file), data_time(file)) for file in _training_files(split)]
    return json.dumps([sample_digest(split), *stamps])


def why_not_found(split: Path | None) -> str:
    """Return why training data cannot be found; empty where they are there."""
    if split is None:
        return "the run's configuration names no split file"
    try:
        _training_files(split)
    except StateRagError as error:
        return str(error).rstrip(".")
    return ""


def _training_files(split: Path) -> list[Path]:
    return [file for place in read_split(split).datasets.values() for file in find_data_files(place, str(split))]


def embeddings_state(embeddings: Path | Mapping | None) -> str | None:
    """Return what tells a file of embeddings from others; None for vectors that are no file."""
    if not isinstance(embeddings, Path):
        return None
    try:
        return sample_digest(embeddings)
    except OSError as error:
        return f"not readable: {error.strerror}"


def _left_out(metadata: Mapping[str, Any]) -> str:
    return str(metadata["notes"].get(BASELINES_LEFT_OUT, ""))
