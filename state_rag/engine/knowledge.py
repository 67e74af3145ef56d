"""What is known of perturbations beside responses: embeddings and other sources, and how much each counts."""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from state_rag.datasets.splitting.split_questions import MEANING, QUESTIONS
from state_rag.embeddings.find import find_embeddings
from state_rag.embeddings.none_known import none_known
from state_rag.embeddings.readers import read_embeddings
from state_rag.embeddings.sources import EMBEDDINGS, read_source
from state_rag.embeddings.table import Embeddings
from state_rag.errors import StateRagError
from state_rag.evidence.episodes import USES
from state_rag.evidence.estimator import Evidence
from state_rag.evidence.explanation import SAME
from state_rag.evidence.questions import ask
from state_rag.evidence.similarity import RESPONSES
from state_rag.evidence.source_weights import source_weights
from state_rag.files import atomic_path
from state_rag.names import listing
from state_rag.names.combinations import to_be_known
from state_rag.names.matching import OtherName, OtherNames
from state_rag.names.symbols import Symbols

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
        Source -> `kind`, `file`, `known` and `asked` perturbations (of combinations, which are made of
        their members, those that the source has a vector of), `taken` in words, and `renamed`: which of them it knows
        by another name.
    embeddings
        The file of embeddings; None where there is none.
    names
        Other names of the perturbations, where each was used, and those that are ambiguous.
    """

    tables: dict[str, tuple[Sequence[str], Any]] = field(default_factory=dict)
    about: dict[str, dict[str, Any]] = field(default_factory=dict)
    embeddings: str | None = None
    names: tuple[OtherName, ...] = ()


def knowledge_of(
    embeddings: str | os.PathLike[str] | None,
    sources: Mapping[str, str | os.PathLike[str]] | None,
    names: Sequence[str],
    symbols: Symbols | None = None,
    *,
    find: bool = True,
    tell: bool = True,
) -> Knowledge:
    """Read embeddings and further sources for some perturbations; nothing where there are none.

    What a source does not know as it is written is looked for under other names of the same gene. A name that may be
    several genes is reported, and taken as it is written.

    Parameters
    ----------
    embeddings
        A file; by default one at a usual place, where there is one.
    sources
        Name -> file.
    names
        Perturbations.
    symbols
        What is known of genes' names; None for names as they are written.
    find
        Look for embeddings at the usual places where no file is given.
    tell
        Say what each source knows.

    Raises
    ------
    StateRagError
        If a file cannot be read or knows none of the names, or a source's name is taken.
    """
    found = Knowledge()
    for name in sources or {}:
        if name in (RESPONSES, SAME):
            raise StateRagError(f"--source {name}: the name is taken by measured responses; choose another.")
    others = OtherNames(names, symbols)
    try:
        path = find_embeddings(embeddings) if find or embeddings is not None else None
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
        table = read_embeddings(path, names=others.wanted(), zeros=None if symbols is None else "drop")
        if not table.names:
            raise StateRagError(none_known(Path(path), names))
        found.embeddings = str(Path(path).resolve())
        facts = table.provenance.get("embedding", f"{table.width} wide")
        _take(found, others, TEXT, table, EMBEDDINGS, facts, path, tell)
    for name, file in (sources or {}).items():
        read = read_source(file, names, other_names=others.wanted() if symbols is not None else ())
        _take(found, others, name, read.table, read.kind, read.facts, file, tell)
    known = {name: set(own) for name, (own, _) in found.tables.items()}
    if unclear := others.unclear(known) if known else {}:
        said = listing([f"{name} ({' or '.join(genes)})" for name, genes in unclear.items()])
        logger.warning("Names that may be several genes are taken as they are written: %s.", said)
    found.names = others.rows(known)
    return found


def _take(
    found: Knowledge,
    others: OtherNames,
    source: str,
    table: Embeddings,
    kind: str,
    taken: str,
    file: str | os.PathLike[str],
    tell: bool,
) -> None:
    """Add a table to what was found, by the perturbations' own names."""
    called = others.matched(table.names, source)
    row = {name: number for number, name in enumerate(table.names)}
    found.tables[source] = tuple(called), table.vectors[[row[other] for other in called.values()]]
    asked = len(to_be_known(others.perturbations, called))
    renamed = others.told(source)
    found.about[source] = dict(
        zip(_KEYS, (kind, len(called), asked, taken, renamed, str(Path(file).resolve())), strict=True)
    )
    logger.log(
        logging.INFO if tell else logging.DEBUG,
        "Source %s: %s, %s; knows %d of %d perturbations%s.",
        *(source, kind, taken, len(called), asked, f", {renamed}" if renamed else ""),
    )


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
        0 for a source that was dropped since nothing was answered worse without it), and what `about` says.
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


def similarity_words(engine: Evidence) -> str:
    """Return a sentence on what tells similar perturbations, by kind of question; empty where there is no table."""
    if not engine.similarity.sources or not engine.trained:
        return ""
    said = "; ".join(f"{weights_words(engine, use)} ({KINDS_OF[use]})" for use in engine.trained)
    return f"Similar perturbations are told by: {said}."


def similarity_words_of(engine: Evidence, context: str, perturbation: str) -> str:
    """Return a sentence on what tells perturbations similar to one that was asked about; empty without a table."""
    if not engine.similarity.sources or not engine.trained:
        return ""
    use = USES[0]  # of combinations
    if not engine.combining.asked(context, perturbation):
        (question,) = ask(engine.bank, engine.similarity, engine.bank.number_of_context(context), [perturbation])
        use = question.use
    kind = f"a {KINDS_OF[use]}".replace("a un", "an un")
    how = f"learned for {kind}" if use in engine.trained else f"borrowed, since the run was not fitted for {kind}"
    return f"Similar perturbations are told by: {weights_words(engine, use)} ({how}, where {MEANING[KINDS_OF[use]]})."


KINDS_OF = dict(zip(USES, QUESTIONS, strict=True))
"""Use of an engine -> what the question is called."""

_KEYS = ("kind", "known", "asked", "taken", "renamed", "file")
