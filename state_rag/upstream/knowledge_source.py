"""Get the embeddings that a run needs and say which perturbations have none."""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from state_rag.embeddings.find import find_embeddings, find_sources
from state_rag.embeddings.none_known import none_known
from state_rag.embeddings.readers import read_embeddings
from state_rag.embeddings.sources import EMBEDDINGS, SourceTable, read_source
from state_rag.embeddings.table import Embeddings, unit_rows
from state_rag.embeddings.treated import Coordinates, labelled, treated, with_names
from state_rag.errors import StateRagError
from state_rag.files import atomic_path
from state_rag.names import listing, suggest
from state_rag.names.combinations import with_members
from state_rag.retrieval.knowledge import Knowledge
from state_rag.settings import RagSettings

logger = logging.getLogger(__name__)

MISSING_FILE = "perturbations_without_embedding.txt"


def load_sources(settings: RagSettings, names: Collection[str]) -> dict[str, SourceTable]:
    """Read what the sources of a run know of `names`; of a combination `A+B` that one lacks, the mean of its members'.

    Labels that tell modes, doses or times (`names.treatments`) are known as they are written, or by the names in them.

    Raises
    ------
    StateRagError
        If there is no file, one is unusable, or one knows none of the names.
    """
    found = {}
    for source, path in find_sources(settings.sources).items():
        if not settings.rag_sources:
            whole = read_embeddings(path, names=with_names(names), text_width=settings.genept_text_width)
            table = _some_of(path, labelled(whole, names), names, settings.genept_text_width)
            told = table.provenance.get("embedding", f"{table.width} wide")
            read = SourceTable(EMBEDDINGS, table, len(names), told, tuple(treated(whole, names)))
        else:
            read = read_source(path, with_names(names), settings.genept_text_width)
            whole = read.table
            by_name = tuple(treated(whole, names))
            read = replace(read, table=labelled(whole, names), asked=len(names), by_name=by_name)
            logger.info("Source %s: %s, %s; knows %s perturbations.", source, read.kind, read.facts, read.known)
        found[source] = read
    return found


def about_sources(tables: Mapping[str, SourceTable]) -> dict[str, dict[str, Any]]:
    """Return what each source is, in plain types, as `engine.knowledge.Knowledge.about` has it."""
    return {
        source: {
            "kind": read.kind,
            "known": len(read.table),
            "asked": read.asked,
            "taken": read.facts,
            "renamed": "",
            "file": str(Path(read.table.source).resolve()),
        }
        for source, read in tables.items()
    }


def load_embeddings(path: str | None, names: Collection[str], text_width: int) -> Embeddings:
    """Read embeddings of those of `names` that the file at `path` (or a usual place) knows.

    Raises
    ------
    StateRagError
        If there is no file, it is unusable, or it knows none of the names.
    """
    found = find_embeddings(path)
    embeddings = read_embeddings(found, names=with_members(names), text_width=text_width).limited_to(names)
    return _some_of(found, embeddings, names, text_width)


def _some_of(path: Path, embeddings: Embeddings, names: Collection[str], text_width: int) -> Embeddings:
    if not embeddings.names:
        raise StateRagError(none_known(path, names, text_width))
    logger.info("Embeddings: %s, %d of %d perturbations.", path, len(embeddings.names), len(names))
    return embeddings


def coordinates_of(tables: Mapping[str, SourceTable], trained: Collection[str]) -> Coordinates | None:
    """Return the coordinates of labels that tell modes, doses or times; None where no label is known by its name.

    Parameters
    ----------
    tables
        Of a run, from `load_sources`.
    trained
        Perturbations with training cells, which the scales are those of.
    """
    if not any(read.by_name for read in tables.values()):
        return None
    known = {name for read in tables.values() for name in read.table.names}
    found = Coordinates.of(sorted(known & set(trained)))
    logger.info("Labels tell treatments; beside the embedding of their name they have: %s.", found.words)
    return found


def knowledge_of(tables: Mapping[str, Embeddings], coordinates: Coordinates | None = None) -> Knowledge:
    """Return the knowledge base of a run: all its perturbations that a source knows, in alphabetical order.

    A single source is taken as it is. Rows of several have length 1 each, so that none counts more for its unit.
    `coordinates` stand beside them; then labels with a mode that training has not are not known.
    """
    names = sorted({name for table in tables.values() for name in table.names})
    names = [name for name in names if coordinates is None or coordinates.allows(name)]
    blocks = {}
    for source, table in tables.items():
        block = np.zeros((len(names), table.width), dtype=np.float32)
        known = [row for row, name in enumerate(names) if name in table]
        vectors = table.subset([names[row] for row in known]).vectors
        block[known] = vectors if len(tables) == 1 else unit_rows(vectors)
        blocks[source] = torch.from_numpy(block)
    if coordinates is None:
        return Knowledge(names, blocks)
    beside = torch.from_numpy(coordinates(names))
    return Knowledge(names, blocks, coordinates=beside, scaling=coordinates.to_state())


def refuse_or_report(missing: Sequence[str], settings: RagSettings, total: int) -> None:
    """Say which perturbations have no embedding, or refuse to go on where `genept_missing` is ``error``."""
    if not missing:
        return
    if settings.genept_missing == "error":
        raise StateRagError(
            f"{len(missing)} of {total} perturbations have no embedding: {listing(missing, 10)}. Provide embeddings "
            "for them, or set training.genept_missing=drop to leave their cells out."
        )
    logger.warning(
        "%d of %d perturbations have no embedding; their cells are left out (training.genept_missing=drop): %s.",
        len(missing),
        total,
        listing(missing, 10),
    )


def save_missing(folder: Path, missing: Sequence[str]) -> None:
    """Write the names of left-out perturbations, one a line, where there are any."""
    if missing:
        with atomic_path(folder / MISSING_FILE) as temporary:
            temporary.write_text("".join(f"{name}\n" for name in missing))
        logger.info("Their names: %s", folder / MISSING_FILE)


def refuse_unknown(unknown: Sequence[str], known: Collection[str], what: str, tables: str = "") -> None:
    """Raise an error that lists `unknown` names with close spellings, and says where the run's `tables` were."""
    if not unknown:
        return
    raise StateRagError(
        f"{len(unknown)} perturbations of {what} are unknown to the run and have no embedding: "
        f"{listing(unknown, 10)}{suggest(unknown, sorted(known), 10)}. Correct the names, or give "
        "embeddings for them with --genept-path (of a run with several sources: --source NAME=FILE). A checkpoint has "
        f"those of its own perturbations alone. {tables}".rstrip()
    )
