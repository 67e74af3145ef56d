"""Fits that several evaluations share: what an engine learned is kept, by a digest of all that it was learned from.

Only learned numbers are kept, some ten kilobytes a fit; responses and embeddings are read anew by whoever asks. The
folder may be removed at any time.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import AcquireReturnProxy, FileLock, Timeout

import state_rag.evidence
import state_rag.names
from state_rag import __version__
from state_rag.cache import ENVIRONMENT, cache_folder, program_digest
from state_rag.engine.fitting import FitBar
from state_rag.errors import StateRagError
from state_rag.evidence.estimator import Evidence
from state_rag.evidence.responses import Responses
from state_rag.evidence.state import trained_in
from state_rag.evidence.tables import Embeddings
from state_rag.evidence.training import Settings
from state_rag.evidence.treatments import axes_of
from state_rag.files import atomic_path, reason
from state_rag.torch_files import read_torch

logger = logging.getLogger(__name__)

LEARNED = "trained"
"""Part of an engine's state that is kept, and how its tensors' names begin."""


def kept_fit(
    responses: Responses,
    embeddings: Embeddings,
    uses: Sequence[str] | None,
    settings: Settings,
    *,
    progress: bool = True,
) -> Evidence:
    """Return the engine, fitted on responses, or as an earlier fit on the same left it.

    A second process that asks for the same fit waits for the first one's. Where nothing can be kept, it is fitted.

    Parameters
    ----------
    responses, embeddings, uses
        As for `Evidence.fit`.
    settings
        How it is trained.
    progress
        Whether to show a progress bar.

    Raises
    ------
    StateRagError
        As `Evidence.fit`.
    """

    def fit() -> Evidence:
        with FitBar(progress) as bar:
            return Evidence(settings).fit(responses, embeddings, uses=uses, progress=bar.tell)

    digest = fingerprint(responses, embeddings, uses, settings)
    folder = cache_folder() / "evidence"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = _taken(FileLock(folder / f"{digest}.lock"))
    except (OSError, NotImplementedError) as error:  # the latter where a file system knows no locks
        why = reason(error) if isinstance(error, OSError) else error
        logger.warning("The fit of the evidence engine is not kept (%s): %s", ENVIRONMENT, why)
        return fit()
    with lock:
        return _recalled_or_fitted(folder / f"{digest}.pt", responses, embeddings, settings, fit)


def _taken(lock: FileLock) -> AcquireReturnProxy:
    """Take a lock, and say so where somebody else has it."""
    try:
        return lock.acquire(blocking=False)
    except Timeout:
        logger.info("Another process fits the evidence engine on the same data; waiting for it.")
        return lock.acquire()


def fingerprint(responses: Responses, embeddings: Embeddings, uses: Sequence[str] | None, settings: Settings) -> str:
    """Return a digest of all that a fit depends on, the program among it."""
    program = program_digest(*(Path(str(room.__file__)).parent for room in (state_rag.evidence, state_rag.names)))
    digest = hashlib.sha256(f"{__version__} {program}".encode())
    about: list[Any] = [asdict(settings), None if uses is None else sorted(uses)]
    about += [responses.contexts, responses.perturbations, *(["treated"] if responses.treated else [])]
    digest.update(json.dumps(about).encode())
    arrays = [responses.effects, responses.cells, responses.variance]
    for name, mean in sorted(responses.controls.items()):
        digest.update(name.encode())
        arrays.append(mean)
    for source, (names, matrix) in sorted(embeddings.items()):
        digest.update(json.dumps([source, list(names)]).encode())
        arrays.append(np.asarray(matrix))
    for values in arrays:
        if values is not None:
            digest.update(f"{values.dtype}{values.shape}".encode())
            digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()[:32]


def _recalled_or_fitted(
    path: Path, responses: Responses, embeddings: Embeddings, settings: Settings, fit: Callable[[], Evidence]
) -> Evidence:
    if path.is_file():
        try:
            return _with_learned(responses, embeddings, settings, read_torch(path, "It is made again."))
        except (StateRagError, LookupError, TypeError, RuntimeError) as error:
            logger.info("The kept fit is of no use: %s", error)
    engine = fit()
    try:
        with atomic_path(path) as temporary:
            torch.save(_learned_of(engine), temporary)
    except (StateRagError, OSError) as error:
        logger.warning("The fit of the evidence engine is not kept (%s): %s", ENVIRONMENT, error)
    return engine


def _learned_of(engine: Evidence) -> dict[str, Any]:
    state = engine.to_state()
    tensors = {name: value for name, value in state["tensors"].items() if name.startswith(f"{LEARNED}.")}
    return {LEARNED: state["settings"][LEARNED], "sources": state["settings"]["sources"], "tensors": tensors}


def _with_learned(
    responses: Responses, embeddings: Embeddings, settings: Settings, learned: dict[str, Any]
) -> Evidence:
    if learned["sources"] != list(embeddings):
        raise StateRagError(f"it was made with other sources ({', '.join(learned['sources']) or 'none'})")
    trained = trained_in(learned[LEARNED], learned["tensors"], settings, len(embeddings), axes_of(responses))
    return Evidence.with_trained(settings, responses, embeddings, trained)
