"""Which embeddings an evaluation uses for similarities and the ridge baseline, and how to give them."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from state_rag.embeddings.find import ENVIRONMENT, find_embeddings
from state_rag.errors import StateRagError
from state_rag.evaluation.runs import Run
from state_rag.run_folders import usual_checkpoint
from state_rag.torch_files import read_torch

logger = logging.getLogger(__name__)
IN_CHECKPOINT = "in the run's checkpoint"
HOW = f"give a file of embeddings with --embeddings or {ENVIRONMENT}, or name a run trained with one beside it"


def embeddings_file(run: Run, given: str | Path | None, otherwise: Path | None = None) -> Path | None:
    """Return the file of embeddings for a run; None where it cannot be known.

    In order: the one given; the run's `training.genept_path`; `otherwise`; the usual places of `find_embeddings`.

    Raises
    ------
    StateRagError
        If the file given does not exist.
    """
    if given:
        return find_embeddings(str(given))
    for place in (_configured(run), otherwise, None):
        try:
            return find_embeddings(place)
        except StateRagError:
            continue
    return None


def of_other_runs(runs: Sequence[Run], own: Run) -> Path | None:
    """Return the embeddings that the first of the other runs was trained with, if the file is there."""
    for run in runs:
        place = _configured(run)
        if run is not own and place is not None and Path(place).expanduser().exists():
            return find_embeddings(place)
    return None


def read_vectors(
    run: Run, given: str | Path | Mapping[str, np.ndarray] | None, source: Path | None
) -> tuple[Mapping[str, np.ndarray] | None, str]:
    """Return the perturbation embeddings by name, or None and why there are none.

    Parameters
    ----------
    run
        Whose.
    given
        What the user gave; a file that was given must be readable.
    source
        From `embeddings_file`.
    """
    if isinstance(given, Mapping):
        return given, ""
    if source is None:
        return None, why_none(run)
    from state_rag.embeddings.readers import read_embeddings

    try:
        table = read_embeddings(source, progress=False)
    except StateRagError as error:
        if given is not None:
            raise
        return None, str(error).splitlines()[0]
    return dict(zip(table.names, table.vectors, strict=True)), ""


def in_checkpoint(run: Run) -> dict[str, np.ndarray] | None:
    """Return the embeddings that travel in the checkpoint that a run was predicted with; None where there are none."""
    from state_rag.checkpoint import CHECKPOINT_KEY, read_knowledge

    named = run.folder / "checkpoints" / run.predictions.name.removeprefix("eval_").removeprefix("train_")
    path = named if named.is_file() else usual_checkpoint(run.folder)
    if not path.is_file():
        return None
    try:
        saved = read_torch(path, "")
        if "knowledge" not in saved.get(CHECKPOINT_KEY, {}):
            return None
        knowledge = read_knowledge(saved)
    except StateRagError as error:
        logger.warning("The embeddings in the checkpoint cannot be read: %s", error)
        return None
    return dict(zip(knowledge.names, knowledge.block().numpy(), strict=True))


def why_none(run: Run) -> str:
    """Return in one line why a run has no embeddings, and how to give them."""
    named = _configured(run)
    found = f"{named} (training.genept_path) is not there" if named else f"the run {run.name} names none"
    return f"{found}; {HOW}"


def _configured(run: Run) -> str | None:
    named = (run.config.get("training") or {}).get("genept_path")
    return str(named) if named else None
