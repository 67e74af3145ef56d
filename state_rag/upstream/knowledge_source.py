"""Get the embeddings that a run needs and say which perturbations have none."""

import logging
from collections.abc import Collection, Sequence
from pathlib import Path

import torch

from state_rag.embeddings.find import find_embeddings
from state_rag.embeddings.none_known import none_known
from state_rag.embeddings.readers import read_embeddings
from state_rag.embeddings.table import Embeddings
from state_rag.errors import StateRagError
from state_rag.files import atomic_path
from state_rag.names import listing, suggest
from state_rag.names.combinations import with_members
from state_rag.retrieval.knowledge import Knowledge
from state_rag.settings import RagSettings

logger = logging.getLogger(__name__)

MISSING_FILE = "perturbations_without_embedding.txt"


def load_embeddings(path: str | None, names: Collection[str], text_width: int) -> Embeddings:
    """Read embeddings of those of `names` that the file at `path` (or a usual place) knows.

    Raises
    ------
    StateRagError
        If there is no file, it is unusable, or it knows none of the names.
    """
    found = find_embeddings(path)
    embeddings = _of_names(found, names, text_width)
    if not embeddings.names:
        raise StateRagError(none_known(found, names, text_width))
    logger.info("Embeddings: %s, %d of %d perturbations.", found, len(embeddings.names), len(names))
    return embeddings


def load_embeddings_or_none(path: str | None, names: Collection[str], text_width: int) -> Embeddings | None:
    """Read embeddings of `names`; None where the file knows none of them."""
    embeddings = _of_names(find_embeddings(path), names, text_width)
    return embeddings if embeddings.names else None


def _of_names(path: Path, names: Collection[str], text_width: int) -> Embeddings:
    """Read embeddings of names; of a combination `A+B` that the file does not have, the mean of its members'."""
    table = read_embeddings(path, names=with_members(names), text_width=text_width).with_combinations(names)
    made = set(names)
    return table.subset([name for name in table.names if name in made])


def knowledge_of(embeddings: Embeddings) -> Knowledge:
    """Return the knowledge base of a run: all its perturbations with an embedding, in alphabetical order."""
    ordered = embeddings.subset(sorted(embeddings.names))
    return Knowledge(ordered.names, {"text": torch.from_numpy(ordered.vectors)})


def with_queries(knowledge: Knowledge, embeddings: Embeddings) -> Knowledge:
    """Let further perturbations ask, without ever being retrieved for others."""
    new = [name for name in sorted(embeddings.names) if name not in set(knowledge.names)]
    if not new:
        return knowledge
    rows = embeddings.subset(new)
    if rows.width != knowledge.width():
        raise StateRagError(
            f"{embeddings.source} holds embeddings {rows.width} wide, but the run was trained with embeddings "
            f"{knowledge.width()} wide. Give the file that it was trained with."
        )
    logger.info("%d perturbations are new to the run and use their own embedding: %s.", len(new), listing(new, 10))
    return knowledge.with_queries(rows.names, {"text": torch.from_numpy(rows.vectors)})


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


def refuse_unknown(unknown: Sequence[str], known: Collection[str], what: str) -> None:
    """Raise an error that lists `unknown` names with close spellings."""
    if not unknown:
        return
    raise StateRagError(
        f"{len(unknown)} perturbations of {what} are unknown to the run and have no embedding: "
        f"{listing(unknown, 10)}{suggest(unknown, sorted(known), 10)}. Correct the names, or give "
        "embeddings for them with --genept-path."
    )
