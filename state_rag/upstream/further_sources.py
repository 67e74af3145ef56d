"""Perturbations that a run was not trained with: known all the same, where a file of one of its sources knows them."""

import logging
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from state_rag.embeddings.factor import placed
from state_rag.embeddings.find import find_embeddings
from state_rag.embeddings.readers import read_embeddings
from state_rag.embeddings.sources import EMBEDDINGS, files_of_sources, kind_of, named_sources, read_source
from state_rag.embeddings.table import unit_rows
from state_rag.embeddings.treated import Coordinates, labelled, with_names
from state_rag.errors import StateRagError
from state_rag.names import listing
from state_rag.names.combinations import SEPARATOR, in_order, with_members
from state_rag.names.gene_ids import unversioned
from state_rag.names.treatments import canonical
from state_rag.retrieval.knowledge import Knowledge
from state_rag.settings import TEXT, USUAL, RagSettings
from state_rag.upstream.run_folder import Run

if TYPE_CHECKING:
    from state_rag.anchor import Anchor

logger = logging.getLogger(__name__)

Files = Mapping[str, Path]
"""Source -> file."""
NONE: Files = MappingProxyType({})

SAMPLE = 500
"""Perturbations by which a table of vectors is recognised."""
TOLERANCE = 1e-3
"""Difference of two cosines that rounding may make."""


def given_files(genept_path: str | None, sources: Iterable[str], settings: RagSettings) -> dict[str, Path]:
    """Return the files that `--genept-path` and `--source NAME=FILE` name, by source of the run.

    Raises
    ------
    StateRagError
        If there is no such file, or the run has no such source.
    """
    own = list(settings.sources)
    found: dict[str, Path] = {}
    if genept_path:
        tables = own if len(own) == 1 else [name for name in (TEXT, USUAL) if name in own]
        if not tables:
            raise StateRagError(
                f"--genept-path {genept_path}: the run goes by the sources {listing(own)}, none of which is called "
                f"{TEXT} or {USUAL}. Say which it is: --source NAME={genept_path}."
            )
        found[tables[0]] = find_embeddings(genept_path)
    return {**found, **files_of_sources(named_sources(sources), own, "--source")}


def engine_files(genept_path: str | None, sources: Iterable[str]) -> dict[str, str]:
    """Return the same for a run of the evidence engine, which says itself what it has."""
    return {**({TEXT: str(find_embeddings(genept_path))} if genept_path else {}), **named_sources(sources)}


def files_of(settings: RagSettings, saved: Mapping[str, Any] | None) -> dict[str, Path]:
    """Return the files of a run's sources, as far as they are still there.

    Parameters
    ----------
    settings
        The run's flags.
    saved
        What its checkpoint says of its sources (`SourceTable.about` by name); None where it says nothing.
    """
    found = {}
    for name, configured in settings.sources.items():
        try:
            place = (saved or {}).get(name, {}).get("file") or configured
            path = find_embeddings(configured) if place is None or not Path(place).is_file() else Path(place)
        except StateRagError:
            continue
        found[name] = path
    return found


def tables_of(settings: RagSettings, saved: Mapping[str, Any] | None) -> str:
    """Return where the run's tables were, and which is not there any more, as a sentence for errors.

    Parameters
    ----------
    settings, saved
        As for `files_of`.
    """
    there = files_of(settings, saved)
    told = []
    for name, configured in settings.sources.items():
        place = there.get(name) or (saved or {}).get(name, {}).get("file") or configured
        known = f"{name} = {place or 'the table at a usual place'}"
        told.append(known if name in there else f"{known}, not there (looked from {Path.cwd()})")
    return f"The run read them from {'; '.join(told)}." if told else ""


def with_further(
    knowledge: Knowledge,
    unknown: Collection[str],
    settings: RagSettings,
    saved: Mapping[str, Any] | None = None,
    given: Files = NONE,
) -> Knowledge:
    """Let further perturbations ask that a file of any source knows; they are never retrieved for others.

    A file has to say of the run's own perturbations what it said in training, so that new rows mean the same.

    Parameters
    ----------
    knowledge
        The run's.
    unknown
        Perturbations that it does not know.
    settings, saved
        As for `files_of`.
    given
        Source -> file that the user named in place of the run's own.

    Returns
    -------
    Knowledge
        With those of them that a source knows; zeros where another source does not. What the run knows with its members
        in another order (`B+A`), or its treatment otherwise spelled, is asked as what it is.

    Raises
    ------
    StateRagError
        If a file that was given cannot be used. One that was found is left alone then, which is said.
    """
    new: dict[str, dict[str, np.ndarray]] = {}
    knowledge = knowledge.also_called(_otherwise_written(knowledge, unknown))
    unknown = {name for name in unknown if name not in knowledge}
    files = {**files_of(settings, saved), **given}
    gone = [source for source in knowledge.block_names if source not in files]
    if unknown and gone:
        logger.info("No file of %s is there, so it says nothing of %s.", listing(gone), listing(sorted(unknown)))
    for source, path in files.items() if unknown else ():
        if source not in knowledge.block_names:
            continue
        try:
            kernel = bool(settings.rag_sources) and kind_of(path) != EMBEDDINGS
            new[source] = _new_rows(knowledge, source, path, sorted(unknown), settings.genept_text_width, kernel)
        except StateRagError as error:
            if source in given:
                raise
            logger.warning("%s says nothing of what the run was not trained with: %s", path, error)
    names = sorted({name for rows in new.values() for name in rows})
    told = None if knowledge.scaling is None else Coordinates.from_state(knowledge.scaling)
    if told is not None and (strange := [name for name in names if not told.allows(name)]):
        logger.warning("Training has no cells of the mode of %s, so they stay unknown.", listing(strange))
        names = [name for name in names if name not in strange]
    if not names:
        return knowledge
    blocks = {source: torch.zeros(len(names), knowledge.width(source)) for source in knowledge.block_names}
    for source, rows in new.items():
        for row, name in enumerate(names):
            if name in rows:
                blocks[source][row] = torch.from_numpy(rows[name])
    logger.info("%d perturbations are new to the run and use their own embedding: %s.", len(names), listing(names, 10))
    return knowledge.with_queries(names, blocks, None if told is None else torch.from_numpy(told(names)))


def informed(anchor: "Anchor", found: Run, saved: Mapping[str, Any], names: Iterable[str], given: Files = NONE) -> None:
    """Let the engine that a network is anchored on know further perturbations too, and say which it does not know.

    Parameters
    ----------
    anchor
        What the model's cells are anchored with; its engine is replaced.
    found, saved
        The run, and what its checkpoint holds of ours.
    names
        Perturbations that are asked about.
    given
        As for `with_further`.
    """
    from state_rag.engine.evidence_of import anchored_run
    from state_rag.engine.further import knowing, tell_unknown, with_files

    asked = list(names)
    run = anchored_run(anchor.engine, found.config, None, saved.get("sources"))
    own = {source.name for source in run.engine.similarity.sources}
    files = {**files_of(found.settings, saved.get("sources")), **given}
    run = knowing(with_files(run, {name: file for name, file in files.items() if name in own}), asked)
    tell_unknown(run, asked)
    anchor.engine = run.engine


def _otherwise_written(knowledge: Knowledge, names: Collection[str]) -> dict[str, str]:
    """Return those of some names that the run knows in another spelling of the same label, with its own."""
    wanted = {name: _spelled(knowledge, name) for name in names if name not in knowledge}
    if not wanted:
        return {}
    own = {_spelled(knowledge, name): name for name in knowledge.names}
    return {name: own[label] for name, label in wanted.items() if label in own}


def _spelled(knowledge: Knowledge, name: str) -> str:
    """Return a label as it is written here, or as it is where it is none."""
    try:
        label = in_order(name) if knowledge.scaling is None else canonical(name)
    except StateRagError:
        return name
    return SEPARATOR.join(map(unversioned, label.split(SEPARATOR)))


def _new_rows(
    knowledge: Knowledge, source: str, path: Path, unknown: list[str], width: int, kernel: bool
) -> dict[str, np.ndarray]:
    """Return the rows of those names that a file knows, as the model would know them."""
    block = knowledge.block(source).cpu().numpy()
    own = [name for name, yes in zip(knowledge.names, knowledge.known(source).tolist(), strict=True) if yes]
    asked = [*unknown, *(own if kernel else own[:SAMPLE])]
    treated = knowledge.scaling is not None
    wanted = with_names(asked) if treated else with_members(asked)
    table = read_source(path, wanted, width).table if kernel else read_embeddings(path, wanted, text_width=width)
    table = labelled(table, asked) if treated else table.limited_to(asked)
    found = [name for name in unknown if name in table]
    if not found:
        return {}
    several = len(knowledge.block_names) > 1
    vectors = unit_rows(table.vectors) if several else table.vectors
    rows = {name: vectors[number] for number, name in enumerate(table.names)}
    shared = [name for name in own if name in table]
    place = {name: row for row, name in enumerate(knowledge.names)}
    before = block[[place[name] for name in shared]]
    now = np.stack([rows[name] for name in shared]) if shared else np.zeros((0, table.width), np.float32)
    _refuse_another(path, source, block.shape[1], before, now, kernel)
    new = np.stack([rows[name] for name in found])
    if kernel:
        new = placed(new, now, before)
    return {name: row for name, row in zip(found, new, strict=True) if row.any()}


def _refuse_another(path: Path, source: str, width: int, before: np.ndarray, now: np.ndarray, kernel: bool) -> None:
    """Refuse a file that says something else of known perturbations than the run was trained with."""
    if not kernel and now.shape[1] != width:
        raise StateRagError(
            f"{path} holds embeddings {now.shape[1]} wide, but the run was trained with embeddings {width} wide. Give "
            "the file that it was trained with."
        )
    some = slice(0, SAMPLE)
    one, other = (unit_rows(rows[some]) for rows in (before, now))
    same = np.allclose(one @ one.T, other @ other.T, atol=TOLERANCE)
    if kernel and not len(now):
        raise StateRagError(f"{path} knows none of the perturbations that the run knows by its source {source!r}.")
    if not same or not (kernel or np.allclose(before, now, atol=TOLERANCE, rtol=TOLERANCE)):
        raise StateRagError(
            f"{path} says something else of the run's own perturbations than its source {source!r} did in training. "
            "Give the file that it was trained with."
        )
