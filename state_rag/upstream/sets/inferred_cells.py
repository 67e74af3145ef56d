"""What `state tx infer` writes, completed on its way into the file: names, sources, a record of where it comes from."""

import logging
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from state_rag import __version__
from state_rag.cells.answer import answer
from state_rag.cells.question import SOURCE, Names, Wanted
from state_rag.contract.identity import Identity, spaces_used
from state_rag.files import atomic_path
from state_rag.upstream.run_folder import Run
from state_rag.upstream.sets.inferred_sets import InferredSets, MeanRetrieval, retrieval_table
from state_rag.upstream.swap import replaced

if TYPE_CHECKING:
    import anndata

    from state_rag.upstream.sets.deferred_sets import DeferredSets

logger = logging.getLogger(__name__)


@dataclass
class Request:
    """Cells to predict from.

    Attributes
    ----------
    cells
        The user's own.
    names
        Columns and control.
    wanted
        What to predict.
    fill_missing
        Whether genes that the cells lack are filled.
    in_memory
        Whether the predicted cells are kept in `answer` instead of being written.
    sets
        What was drawn and retrieved, once predicted.
    retrieved
        What was retrieved for each (context, perturbation), once predicted.
    answer
        The predicted cells, if `in_memory`.
    deferred
        Holds what was predicted where STATE was given zeros; None where it was given the predictions.
    """

    cells: "anndata.AnnData"
    names: Names
    wanted: Wanted
    fill_missing: bool = False
    in_memory: bool = False
    sets: InferredSets = field(default_factory=InferredSets)
    retrieved: dict[tuple[str, str], MeanRetrieval] = field(default_factory=dict)
    answer: "anndata.AnnData | None" = None
    deferred: "DeferredSets | None" = None


@contextmanager
def completed(
    found: Run, args: Namespace, checkpoint: Path, identity: Identity | None, request: Request
) -> Iterator[None]:
    """Have the cells that STATE writes leave with names, sources and a record of where they come from."""
    import anndata

    write: Callable[..., None] = anndata.AnnData.write_h5ad
    save: Callable[..., None] = np.save

    def write_completed(self: Any, filename: Any, *rest: Any, **named: Any) -> None:
        done = _answer(self, found, args, checkpoint, identity, request)
        if request.in_memory:
            request.answer = done
        else:
            write(done, filename, *rest, **named)

    def save_with_names(file: Any, values: Any, *rest: Any, **named: Any) -> None:
        save(file, values, *rest, **named)
        names = _names_of(identity, found, np.shape(values)[1])
        if names is not None:
            beside = Path(file).with_suffix(".genes.txt")
            with atomic_path(beside) as temporary:
                temporary.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
            logger.info("Names of the columns: %s", beside)

    with replaced(anndata.AnnData, "write_h5ad", write_completed), replaced(np, "save", save_with_names):
        yield


def _answer(
    result: "anndata.AnnData",
    found: Run,
    args: Namespace,
    checkpoint: Path,
    identity: Identity | None,
    request: Request,
) -> "anndata.AnnData":
    key = _predicted(found, result)
    embed_key = found.data.get("embed_key")
    if request.deferred is not None:
        side = f"{embed_key}_pred" if f"{embed_key}_pred" in result.obsm else embed_key
        beside = f"obsm/{side}" if embed_key else None
        clipped = found.data.get("output_space", "gene") in ("gene", "all")
        request.deferred.fill(result, request.sets.rows(result, request.names), key, beside, clipped)
    values = np.asarray(result.X if key == "X" else result.obsm[key.removeprefix("obsm/")], dtype=np.float32)
    obs = result.obs.copy()
    obs[SOURCE] = obs[SOURCE].astype(str).to_numpy()[request.sets.sources(result, request.names)]
    others = {}
    if embed_key and key != f"obsm/{embed_key}" and embed_key in result.obsm:
        others[embed_key] = np.asarray(result.obsm[embed_key], dtype=np.float32)
    record: dict[str, Any] = {
        "version": __version__,
        "run": str(found.folder.resolve()),
        "checkpoint": checkpoint.name,
        "mode": found.settings.mode,
        "seed": args.seed,
        "control": request.names.control,
        "cells": str(Path(args.adata).resolve()) if args.adata else "",
    }
    if found.settings.retrieves:
        request.retrieved = request.sets.retrieved(result, request.names)
        record["retrieval"] = retrieval_table(request.retrieved)
    names = _names_of(identity, found, values.shape[1], key)
    return answer(values, obs, key=key, names=names, var=request.cells.var, spaces=others, record=record)


def _predicted(found: Run, result: "anndata.AnnData") -> str:
    """Return where STATE leaves what the run predicts: gene expression where it predicts that."""
    embed_key, space = found.data.get("embed_key"), found.data.get("output_space", "gene")
    if not embed_key:
        return "obsm/X_state_pred" if "X_state_pred" in result.obsm else "X"
    if space == "all":
        return "X"
    if space == "gene" and "X_hvg" in result.obsm:
        return "obsm/X_hvg"
    side = f"{embed_key}_pred"
    return f"obsm/{side if side in result.obsm else embed_key}"


def _names_of(identity: Identity | None, found: Run, width: int, key: str | None = None) -> Sequence[str] | None:
    """Return the names of the predicted columns; None where they are unknown."""
    key = key or spaces_used(found.data.get("embed_key"), found.data.get("output_space"))[-1]
    space = None if identity is None else identity.spaces.get(key)
    return space.names if space is not None and space.width == width else None
