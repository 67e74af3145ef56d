"""Perturbations that a run was not fitted for: known all the same, where the files of its sources know them."""

import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from state_rag.embeddings.find import find_embeddings
from state_rag.embeddings.sources import files_of_sources
from state_rag.engine.folder import EvidenceRun, is_evidence_run
from state_rag.engine.knowledge import TEXT, knowledge_of
from state_rag.errors import StateRagError
from state_rag.evidence.adding import with_knowledge
from state_rag.names import listing, suggest
from state_rag.names.combinations import parts_of
from state_rag.names.matching import OtherName
from state_rag.names.symbols import Symbols
from state_rag.names.tables import AUTO, read_symbols
from state_rag.names.treatments import name_in

logger = logging.getLogger(__name__)


def with_files(run: EvidenceRun, given: Mapping[str, str | os.PathLike[str]]) -> EvidenceRun:
    """Return a run whose sources lie in other files than it was fitted with.

    Parameters
    ----------
    run
        A fitted run; it stays as it is.
    given
        Source -> file.

    Raises
    ------
    StateRagError
        If the run has no such source, or there is no such file.
    """
    own = [source.name for source in run.engine.similarity.sources]
    about = {name: dict(told) for name, told in (run.config.get("sources") or {}).items()}
    for source, path in files_of_sources(given, own).items():
        about[source] = {**about.get(source, {}), "file": str(path)}
    return replace(run, config={**run.config, "sources": about}) if given else run


def knowing(run: EvidenceRun, names: Iterable[str]) -> EvidenceRun:
    """Return a run that also knows further perturbations, by the files of embeddings and sources it was fitted with.

    A run holds what these files say of the perturbations of its screen. Where others are asked about, the files are
    read again, from where they were; what is found changes no prediction of those that were known. What no file knows,
    and what files that are gone would know, stays unknown, which is said; of members of combinations here.

    Parameters
    ----------
    run
        A fitted run; it stays as it is.
    names
        Perturbations, known or not.
    """
    asked = list(map(str, names))
    found = _knowing(run, asked)
    _tell_unknown_members(found, asked)
    return found


def knowing_all(run: EvidenceRun, names: Iterable[str]) -> EvidenceRun:
    """Do what `knowing` does, for perturbations that are asked about by name, and refuse those that stay unknown.

    Raises
    ------
    StateRagError
        If nothing is known of one by any response, embedding or other source.
    """
    asked = list(map(str, names))
    run = knowing(run, asked)
    unknown = [name for name in asked if not run.engine.knows(run.own_name(name))]
    if unknown:
        raise StateRagError(
            f"nothing is known of {listing(unknown)}: neither a response nor an embedding. Fit with embeddings "
            f"that know them, or leave them out{suggest(unknown, run.engine.bank.offered)}"
        )
    return run


def _tell_unknown_members(run: EvidenceRun, names: Iterable[str]) -> None:
    """Warn of combinations that are predicted though nothing is known of a member, which may be misspelt."""
    control, knows = run.data.get("control_pert"), run.engine.knows
    combined = {name: parts for name in names if len(parts := parts_of(name)) > 1}
    members = dict.fromkeys(part for parts in combined.values() for part in parts)
    unknown = {part for part in members if part != control and not knows(part)}
    for name, parts in combined.items():
        lacking = sorted(unknown.intersection(parts))
        if lacking and len(lacking) < len(parts):
            logger.warning(
                "%s: nothing is known of %s, so it goes by what is left%s.",
                *(name, listing(lacking), suggest(lacking, run.engine.bank.offered)),
            )


def _knowing(run: EvidenceRun, names: Iterable[str]) -> EvidenceRun:
    """Do what `knowing` does, without a word of members."""
    bank, control = run.engine.bank, run.data.get("control_pert")
    parts = dict.fromkeys(part for name in map(str, names) for part in parts_of(name))
    unknown = [part for part in parts if bank.number_of(part) < 0 and part != control]
    if bank.treatments is not None:  # sources know names, whatever their mode, dose or time
        unknown = list(dict.fromkeys(name_in(part) for part in unknown if not bank.alike(part)))
    files = _files(run)
    if not unknown or not files:
        return run
    gone = {source: file for source, file in files.items() if not Path(file).is_file()}
    for source, file in gone.items():
        logger.warning(
            "%s, which source %s was read from, is not there any more, so it says nothing of what the run was not "
            "fitted for: %s.",
            *(file, source, listing(unknown)),
        )
    engine, rows, taken = run.engine, list[OtherName](), list[str]()
    symbols = _symbols(run)
    own = {source.name: source for source in run.engine.similarity.sources}
    for source, file in files.items():
        if source in gone or source not in own:
            continue
        known = [name for name, yes in zip(own[source].names, own[source].known.tolist(), strict=True) if yes]
        if bank.treatments is not None:
            known = list(dict.fromkeys(map(name_in, known)))
        try:
            if source == TEXT:
                found = knowledge_of(file, None, [*known, *unknown], symbols, tell=False)
            else:
                found = knowledge_of(None, {source: file}, [*known, *unknown], symbols, find=False, tell=False)
            if not set(found.tables[source][0]) & set(unknown):
                continue
            engine = with_knowledge(engine, {source: found.tables[source]})
        except StateRagError as error:
            logger.warning("%s says nothing of what the run was not fitted for: %s", file, error)
            continue
        rows += found.names
        taken.append(source)
    if not taken:
        return run
    told = [name for name in unknown if name in engine.bank.names]
    logger.info("Known by %s beside the run's own perturbations: %s.", " and ".join(taken), listing(told))
    new = set(told)
    return replace(run, engine=engine, names=(*run.names, *(row for row in rows if row.perturbation in new)))


def tell_unknown(run: EvidenceRun, names: Iterable[str]) -> None:
    """Warn of perturbations that nothing is known of, whose prediction is the mean effect of the cell line."""
    control = run.data.get("control_pert")
    unknown = [name for name in dict.fromkeys(map(str, names)) if name != control and not run.engine.knows(name)]
    if unknown:
        logger.warning(
            "Nothing is known of %s: neither a response nor an embedding or other source. The mean effect of the cell "
            "line is predicted for %s.",
            listing(unknown, 10),
            "them" if len(unknown) > 1 else "it",
        )


def _symbols(run: EvidenceRun) -> Symbols | None:
    """Return what told other names when the run was fitted, as far as it is still there."""
    if not run.names and is_evidence_run(run.config):
        return None  # a network's run keeps no names, and goes by the package
    try:
        return read_symbols(run.config.get("names", AUTO))
    except StateRagError as error:
        logger.warning("Further perturbations are looked for as they are written: %s", error)
        return None


def _files(run: EvidenceRun) -> dict[str, str]:
    """Return the file of each source."""
    files = {name: str(about["file"]) for name, about in (run.config.get("sources") or {}).items() if "file" in about}
    configured = (run.config.get("training") or {}).get("genept_path")
    try:
        place = None if TEXT in files or TEXT not in run.engine.similarity.names else find_embeddings(configured)
    except StateRagError:
        place = configured
    return {**({TEXT: str(place)} if place else {}), **files}
