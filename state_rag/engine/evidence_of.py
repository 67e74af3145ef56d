"""The engine that stands behind a run: of an evidence run, or in the checkpoint of a network that is anchored on it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from state_rag.contract.identity import Identity
from state_rag.engine.folder import KEY, EvidenceRun, is_evidence_run, read_config, read_run
from state_rag.errors import StateRagError
from state_rag.evidence.estimator import Evidence
from state_rag.files import damage_told
from state_rag.run_folders import usual_checkpoint
from state_rag.settings import RagSettings
from state_rag.torch_files import read_torch


def has_evidence(config: Mapping[str, Any]) -> bool:
    """Tell whether the mean of what a run predicts comes from measured responses, by its configuration."""
    # The flag alone: a report takes runs whose other flags are of a version that this one would refuse.
    training = config.get("training") or {}
    return is_evidence_run(config) or training.get("rag_evidence", RagSettings.rag_evidence) not in (None, "none")


def evidence_of(folder: Path, config: Mapping[str, Any] | None = None) -> EvidenceRun:
    """Return the engine of a run, with what it was fitted on.

    Parameters
    ----------
    folder
        A run of `state-rag evidence fit`, or of `state tx train rag=evidence`.
    config
        Its configuration, where it was read already.

    Raises
    ------
    StateRagError
        If there is no engine in the run, or it is damaged.
    """
    config = read_config(folder) if config is None else config
    if is_evidence_run(config):
        return read_run(folder)
    if not has_evidence(config):
        raise StateRagError(
            f"{folder} predicts without evidence, and this takes a run of `state-rag evidence fit`, or of "
            "`state tx train rag=evidence`. What a network retrieved: `state-rag retrieval`."
        )
    path = usual_checkpoint(folder)
    if not path.is_file():
        raise StateRagError(f"{path} is missing. Copy the whole run folder, or train again.")
    saved = read_torch(path, "Train again.")
    with damage_told(path, "Train again."):
        state = saved[KEY]
        identity = Identity.from_dict(state["data"]) if state.get("data") else None
        return anchored_run(Evidence.from_state(state["evidence"]["engine"]), config, identity, state.get("sources"))


def anchored_run(
    engine: Evidence, config: Mapping[str, Any], identity: Identity | None, sources: Mapping[str, Any] | None
) -> EvidenceRun:
    """Return the engine that a network is anchored on as a run of its own.

    Parameters
    ----------
    engine, config, identity
        Of the network's run.
    sources
        What its checkpoint says of the files of its sources; None where it names none.
    """
    return EvidenceRun(engine, {**config, **({"sources": dict(sources)} if sources else {})}, identity)
