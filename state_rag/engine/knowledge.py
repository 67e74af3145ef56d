"""What is known of perturbations beside responses: embeddings and other sources, and how much each counts."""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from state_rag.embeddings.find import find_embeddings
from state_rag.embeddings.none_known import none_known
from state_rag.embeddings.readers import read_embeddings
from state_rag.embeddings.sources import EMBEDDINGS, read_source
from state_rag.errors import StateRagError
from state_rag.evidence.estimator import Evidence
from state_rag.evidence.explanation import SAME
from state_rag.evidence.similarity import RESPONSES
from state_rag.evidence.source_weights import source_weights
from state_rag.files import atomic_path

logger = logging.getLogger(__name__)

TEXT = "text"
"""Name of the source that `--embeddings` gives."""
SOURCES = "sources.csv"
"""In an evidence run: what each source is, and how much it counts."""


@dataclass
class Knowledge:
    """Tables for an engine, and where each comes from.

    Attributes
    ----------
    tables
        Source -> (names, vectors).
    about
        Source -> `kind`, `file`, `known` and `asked` perturbations, `taken` in words.
    embeddings
        The file of embeddings; None where there is none.
    """

    tables: dict[str, tuple[Sequence[str], Any]] = field(default_factory=dict)
    about: dict[str, dict[str, Any]] = field(default_factory=dict)
    embeddings: str | None = None

    @property
    def files(self) -> dict[str, str]:
        """Return the file of each source but the embeddings."""
        return {name: about["file"] for name, about in self.about.items() if name != TEXT or self.embeddings is None}


def knowledge_of(
    embeddings: str | os.PathLike[str] | None,
    sources: Mapping[str, str | os.PathLike[str]] | None,
    names: Sequence[str],
) -> Knowledge:
    """Read embeddings and further sources for some perturbations; nothing where there are none.

    Parameters
    ----------
    embeddings
        A file; by default one at a usual place, where there is one.
    sources
        Name -> file.
    names
        Perturbations.

    Raises
    ------
    StateRagError
        If a file cannot be read or knows none of the names, or a source's name is taken.
    """
    found = Knowledge()
    for name in sources or {}:
        if name in (RESPONSES, SAME):
            raise StateRagError(f"--source {name}: the name is taken by measured responses; choose another.")
    try:
        path = find_embeddings(embeddings)
    except StateRagError:
        if embeddings is not None:
            raise
        path = None
        if not sources:
            logger.warning(
                "No embeddings: the engine goes by measured responses alone, and knows nothing of perturbations that "
                "were measured nowhere. Give some with --embeddings, or other knowledge with --source."
            )
    if path is not None:
        if TEXT in (sources or {}):
            raise StateRagError(f"--source {TEXT}: the name is that of the embeddings ({path}); choose another.")
        table = read_embeddings(path, names=names)
        if not table.names:
            raise StateRagError(none_known(Path(path), names))
        found.embeddings = str(Path(path).resolve())
        facts = table.provenance.get("embedding", f"{table.width} wide")
        found.tables[TEXT] = table.names, table.vectors
        found.about[TEXT] = _about(EMBEDDINGS, found.embeddings, len(table), len(names), facts)
        logger.info("Embeddings: %s, %d of %d perturbations.", path, len(table), len(names))
    for name, file in (sources or {}).items():
        read = read_source(file, names)
        found.tables[name] = read.table.names, read.table.vectors
        found.about[name] = _about(read.kind, str(Path(file).resolve()), len(read.table), read.asked, read.facts)
        logger.info("Source %s: %s, %s; %s perturbations.", name, read.kind, read.facts, read.known)
    return found


def sources_table(engine: Evidence, about: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Return a row for each source and kind of question.

    Parameters
    ----------
    engine
        A fitted one.
    about
        As of `Knowledge`; sources that it lacks, as responses, have no file.

    Returns
    -------
    pandas.DataFrame
        `source`, `use` (one of `evidence.episodes.USES`), `weight` (share of the variance that likeness explains;
        0 for a source that was dropped since nothing was answered worse without it), `kind`, `known`, `asked`,
        `taken`, `file`.
    """
    rows = []
    for use, learned in engine.trained.items():
        for name, weight in source_weights(learned.weights, engine.similarity).items():
            told = about.get(name, {})
            rows.append({"source": name, "use": use, "weight": weight, **{key: told.get(key, "") for key in _KEYS}})
    return pd.DataFrame(rows, columns=["source", "use", "weight", *_KEYS])


def write_sources(engine: Evidence, about: Mapping[str, Mapping[str, Any]], folder: Path) -> None:
    """Write `sources.csv` into a run folder."""
    with atomic_path(folder / SOURCES) as temporary:
        sources_table(engine, about).to_csv(temporary, index=False, float_format="%.6g")


def weights_words(engine: Evidence, use: str) -> str:
    """Return how much each source counts for a kind of question, heaviest first.

    Examples
    --------
    >>> from state_rag.evidence.responses import Responses
    >>> from state_rag.evidence.training import Settings
    >>> import numpy as np
    >>> quick = Settings(steps=0, episodes=0, calibrating=0)
    >>> told = Responses(np.eye(4), ["a", "a", "b", "b"], ["P1", "P2", "P1", "P2"])
    >>> weights_words(Evidence(quick).fit(told, {"go": (["P1", "P2"], np.eye(2))}), "unseen")
    'go 50 %, responses 50 %'
    """
    shares = source_weights(engine.learned_for(use).weights, engine.similarity)
    ordered = sorted(shares.items(), key=lambda one: -one[1])
    return ", ".join(f"{name} {100 * share:.0f} %" if share else f"{name} none (dropped)" for name, share in ordered)


def weights_lines(engine: Evidence) -> list[str]:
    """Return a sentence for each kind of question that an engine was trained for; none where it has no table."""
    trained = engine.trained if engine.similarity.sources else ()
    return [f"What likeness goes by, in {use} questions: {weights_words(engine, use)}." for use in trained]


_KEYS = ("kind", "known", "asked", "taken", "file")


def _about(kind: str, file: str, known: int, asked: int, taken: str) -> dict[str, Any]:
    return dict(zip(_KEYS, (kind, known, asked, taken, file), strict=True))
