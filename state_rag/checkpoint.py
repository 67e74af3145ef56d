"""What our checkpoints carry beside STATE's own: a run's names, embeddings and flags."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from state_rag.errors import StateRagError
from state_rag.retrieval.knowledge import Knowledge
from state_rag.settings import RagSettings

CHECKPOINT_KEY = "state_rag"
FORMAT = 1


def pack(
    knowledge: Knowledge,
    settings: RagSettings,
    data: Mapping[str, Any] | None = None,
    evidence: Mapping[str, Any] | None = None,
    sources: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return what belongs under ``checkpoint["state_rag"]``: plain types and tensors on the CPU.

    `data` is what the run was trained on, as `contract.identity.Identity.to_dict` gives it; `evidence` what its cells
    are anchored with, as `anchor.Anchor.to_state` gives it; `sources` what is known of the files that the knowledge
    comes from, where a run has named several.
    """
    packed = {"format": FORMAT, "settings": settings.to_dict(), "knowledge": knowledge.to_state()}
    further = {"data": data, "evidence": evidence, "sources": sources}
    return {**packed, **{name: dict(value) for name, value in further.items() if value is not None}}


def without_numpy(value: Any) -> Any:
    """Return a hyperparameter with NumPy's numbers and strings, at any depth, as Python's own.

    A NumPy number, which cell-load gives as `gene_dim`, would make the checkpoint a pickle.
    """
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        return {without_numpy(key): without_numpy(inside) for key, inside in value.items()}
    if type(value) in (list, tuple):
        return type(value)(without_numpy(inside) for inside in value)
    return value


def read_knowledge(checkpoint: Mapping[str, Any]) -> Knowledge:
    """Return the knowledge that a checkpoint carries.

    Raises
    ------
    StateRagError
        If it carries none, or was written in a format of a later version.
    """
    saved = checkpoint.get(CHECKPOINT_KEY)
    if saved is None:
        raise StateRagError(
            "The checkpoint carries no embeddings: it was not written by state-rag. A checkpoint that the authors "
            "of PT-RAG released is brought over with `state-rag import-checkpoint`."
        )
    if saved["format"] != FORMAT:
        raise StateRagError(
            f"The checkpoint was written in format {saved['format']}, this version of state-rag reads {FORMAT}. "
            "Update state-rag."
        )
    return Knowledge.from_state(saved["knowledge"])


def extends(knowledge: Knowledge, saved: Knowledge) -> bool:
    """Whether `knowledge` starts with the rows of `saved` (it may know more names that only ask)."""
    count = len(saved.names)
    return (
        knowledge.names[:count] == saved.names
        and knowledge.n_candidates == saved.n_candidates
        and knowledge.block_names == saved.block_names
        and knowledge.scaling == saved.scaling
        and all(torch.equal(knowledge.block(name)[:count].cpu(), saved.block(name).cpu()) for name in saved.block_names)
    )
