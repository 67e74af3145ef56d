"""`state tx infer`: cells in the run's own genes, every perturbation known, then STATE simulates with our model."""

import logging
from argparse import Namespace
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas

from state_rag.cells.question import InputSpace, Names, Wanted, question
from state_rag.contract.identity import Identity, spaces_used
from state_rag.csv_tables import read_csv_table
from state_rag.engine.folder import is_evidence_run
from state_rag.errors import StateRagError
from state_rag.files import existing_file, listed_names
from state_rag.h5ad import obs_columns, open_h5ad, read_column
from state_rag.names import suggest
from state_rag.torch_files import read_torch
from state_rag.upstream import network_flags
from state_rag.upstream.further_sources import engine_files, given_files, informed, tables_of, with_further
from state_rag.upstream.knowledge_source import refuse_unknown
from state_rag.upstream.run_contract import of_run
from state_rag.upstream.run_folder import Run, find_run, read_checkpoint
from state_rag.upstream.sets.inferred_cells import Request, completed
from state_rag.upstream.swap import any_head_count, replaced, whole_h5ad_files, whole_npy_files
from state_rag.upstream.training.train import is_disk_full

if TYPE_CHECKING:
    import anndata

logger = logging.getLogger(__name__)

CELL_TYPE_COLUMNS = ("cell_type", "celltype", "cellType", "ctype", "celltype_col")
"""Where STATE looks for cell types, after the run's own column."""

NAME = "perturbation"
"""Column of `--tsv`."""

_DEFAULT_COLUMN = "drugname_drugconc"  # of STATE's --pert-col


def run(original: Callable[[Namespace], Any], args: Namespace) -> Any:
    """Simulate; a run without embeddings is left to STATE alone, but for `--perturbations`."""
    found = find_run(args.model_dir, "--model-dir")
    args.model_dir = str(found.folder)
    wanted = None if args.perturbations is None else listed_names(args.perturbations, "--perturbations")
    evidence = is_evidence_run(found.config)
    if found.settings.mode == "none" and wanted is None and not evidence:
        _warn_of_cells(found, args)
        with any_head_count():
            return original(args)
    if evidence:
        network_flags.refuse(args, network_flags.INFER, found.folder)
        if _is_array(args.output):
            raise StateRagError(
                f"--output {args.output}: the evidence engine's cells carry their trust, which an array cannot. Give a "
                "name that ends in .h5ad."
            )
    existing_file(args.adata, "an h5ad file", (".h5ad", ".h5"), "--adata")
    _use_the_runs_space(found, args)
    use_the_runs_column(found, args)
    names = requested_names(found, args) if wanted is None else set(wanted)
    import anndata

    cells = anndata.read_h5ad(args.adata)
    contexts = [name.strip() for name in args.celltypes.split(",")] if args.celltypes else None
    args.celltypes = None
    if found.settings.anchors and args.max_cells:
        raise StateRagError("--max-cells leaves cells out after their lines are known, which rag=evidence goes by.")
    request = Request(
        cells,
        Names(args.pert_col, args.celltype_col or _context_column(found, cells), args.control_pert or found.control),
        Wanted(
            wanted,
            contexts,
            args.virtual_cells_per_pert if wanted else None,
            controls_everywhere=False,
            asked_with=("--celltypes", "--control-pert"),
        ),
        fill_missing=args.fill_missing,
    )
    args.output = args.output or args.adata.replace(".h5ad", "_simulated.h5ad")
    if evidence:
        return _infer_evidence(found, args, request)
    return predict_cells(original, found, args, request, names)


def predict_cells(
    original: Callable[[Namespace], Any],
    found: Run,
    args: Namespace,
    request: Request,
    further: Collection[str] = (),
) -> Any:
    """Have STATE predict for cells in memory; what it would write is completed on its way into the file.

    Parameters
    ----------
    original
        STATE's own function.
    found
        The run.
    args
        The command's arguments; `adata` is only a name.
    request
        The cells, and what to predict of them.
    further
        Perturbations that are asked for beside those of the request.
    """
    checkpoint = Path(args.checkpoint) if args.checkpoint else found.folder / "checkpoints" / "final.ckpt"
    saved = read_checkpoint(checkpoint)
    identity = of_run(found, saved)
    asked = question(request.cells, request.names, request.wanted, _input_space(found, args, identity, request))
    _warn_of_lacking_controls(asked, request.names)
    controls = {found.control, request.names.control}
    model = None
    if found.settings.mode != "none":
        names = {*asked.obs[request.names.perturbation].astype(str).unique(), *further}
        model = _model(found, args, saved, names - controls, controls, request, asked)

    import scanpy
    import state.tx.models.state_transition as state_transition

    with ExitStack() as stack:
        stack.enter_context(any_head_count())
        stack.enter_context(whole_h5ad_files())
        stack.enter_context(whole_npy_files())
        stack.enter_context(replaced(scanpy, "read_h5ad", lambda *_, **__: asked))
        stack.enter_context(names_as_written())
        stack.enter_context(completed(found, args, checkpoint, identity, request))
        stack.enter_context(request.sets.watched())
        if model is not None:
            if request.deferred is not None:
                model = stack.enter_context(request.deferred).deferring(model)
            stack.enter_context(replaced(state_transition, "StateTransitionPerturbationModel", model))
        try:
            return original(args)
        except Exception as error:
            if isinstance(error, StateRagError) or not is_disk_full(error):
                raise
            raise StateRagError(
                f"The disk is full, or a limit on file sizes was reached, while writing {args.output or 'the output'}. "
                "No incomplete file was left. Make room and run the command again."
            ) from error


def _infer_evidence(found: Run, args: Namespace, request: Request) -> None:
    """Predict with the evidence engine alone, and write what a network's run would."""
    from state_rag.engine.ask import ask
    from state_rag.engine.folder import read_run
    from state_rag.engine.further import with_files
    from state_rag.h5ad_writing import write_h5ad

    record = {"run": str(found.folder.resolve()), "cells": str(Path(args.adata).resolve())}
    predicted = ask(
        with_files(read_run(found.folder), engine_files(args.genept_path, args.sources)),
        request.cells,
        request.names,
        request.wanted,
        given_key=f"obsm/{args.embed_key}" if args.embed_key else "X",
        fill_missing=request.fill_missing,
        seed=args.seed,
        progress=not args.quiet,
        record=record,
    )
    write_h5ad(predicted, args.output)
    print(f"Saved:               {args.output}")


def _model(
    found: Run,
    args: Namespace,
    saved: dict[str, Any],
    names: set[str],
    controls: set[str],
    request: Request,
    asked: "anndata.AnnData",
):
    """Return our model's class, with the embeddings of the checkpoint and those of perturbations that it lacks."""
    from state_rag.checkpoint import CHECKPOINT_KEY, read_knowledge
    from state_rag.model import RagStateTransition

    knowledge = read_knowledge(saved)
    given = given_files(args.genept_path, args.sources, found.settings)
    own = saved[CHECKPOINT_KEY]
    wider = with_further(knowledge, names - set(knowledge.names), found.settings, own.get("sources"), given)
    if wider is not knowledge:
        knowledge = wider
        logger.info("STATE's lines on a 'control fallback one-hot' do not concern them: one-hots are not used.")
    tables = tables_of(found.settings, own.get("sources"))
    refuse_unknown(sorted(name for name in names if name not in knowledge), knowledge.names, "this request", tables)

    def context() -> str:
        return request.sets.context(asked, request.names)

    sink = request.sets.take
    if not _is_array(args.output):  # an array is saved as STATE has it, so STATE needs the predictions at once
        from state_rag.upstream.sets.deferred_sets import DeferredSets
        from state_rag.upstream.sets.grouped_sets import keep_trace, keeps_decoded

        def about() -> dict[str, Any]:
            known = {"draw": request.sets.drawn_last}
            return {**known, "cell_type": context()} if found.settings.anchors else known

        decoded = keeps_decoded(args.embed_key, found.data.get("output_space", "gene"))
        request.deferred = DeferredSets(decoded, about, sink if found.settings.retrieves else None)
        sink = keep_trace
    return RagStateTransition.bound_to(
        knowledge,
        controls=tuple(controls),
        trace_sink=sink,
        context_of=context,
        anchor_sink=lambda anchor: informed(anchor, found, own, sorted(names), given),
    )


def _input_space(found: Run, args: Namespace, identity: Identity | None, request: Request) -> InputSpace:
    key = spaces_used(found.data.get("embed_key"), found.data.get("output_space"))[0]
    spaces = {} if identity is None else identity.spaces
    if key not in spaces:
        logger.warning(
            "This run was trained before the genes of its input were recorded, so the columns of the cells are taken "
            "by position. Make sure that they are those that it was trained on, in the same order."
        )
    given = f"obsm/{args.embed_key}" if args.embed_key else "X"
    return InputSpace(key, spaces, given, request.fill_missing)


def _use_the_runs_space(found: Run, args: Namespace) -> None:
    """Where no space is named, take the one that the run was trained on; STATE would take X."""
    key = found.data.get("embed_key")
    if args.embed_key is None and key:
        args.embed_key = str(key)
        logger.info("The run was trained on obsm[%r], so that is what is read (--embed-key).", key)


def use_the_runs_column(found: Run, args: Namespace) -> None:
    """Where the cells lack the column of perturbations that STATE reads by default, and have the run's, take that.

    Parameters
    ----------
    found
        The run.
    args
        The command's arguments; `pert_col` is set.
    """
    column = found.data.get("pert_col")
    if args.pert_col != _DEFAULT_COLUMN or not column:
        return
    with open_h5ad(args.adata) as file:
        there = obs_columns(file)
    if args.pert_col not in there and column in there:
        args.pert_col = str(column)
        logger.info("Perturbations are read from obs[%r], as the run's were (--pert-col).", column)


def names_as_written() -> AbstractContextManager[None]:
    """Have STATE read `--tsv` as we do: it would take the names NA and 1e5 for nan and 100000.0."""
    return replaced(pandas, "read_csv", partial(pandas.read_csv, dtype={NAME: str}, keep_default_na=False))


def _is_array(output: str | None) -> bool:
    return output is not None and not output.endswith(".h5ad")


def _context_column(found: Run, cells: "anndata.AnnData") -> str | None:
    names = (found.data.get("cell_type_key"), *CELL_TYPE_COLUMNS)
    return next((str(name) for name in names if name and name in cells.obs), None)


def _warn_of_lacking_controls(asked: "anndata.AnnData", names: Names) -> None:
    if names.context is None:
        return
    lines = asked.obs[names.context].astype(str)
    control = asked.obs[names.perturbation].astype(str) == names.control
    lacking = sorted(set(lines) - set(lines[control]))
    if lacking:
        logger.warning(
            "%s: no controls (%s) of its own, so its cells are predicted from the controls of all others.",
            ", ".join(lacking),
            names.control,
        )


def _warn_of_cells(found: Run, args: Namespace) -> None:
    """Warn where plain STATE will take columns by position that are not those it was trained on."""
    import anndata

    checkpoint = Path(args.checkpoint) if args.checkpoint else found.folder / "checkpoints" / "final.ckpt"
    try:
        identity = of_run(found, read_checkpoint(checkpoint))
        key = f"obsm/{args.embed_key}" if args.embed_key else "X"
        if identity is None or key not in identity.spaces:
            return
        from state_rag.contract.fitting import differences

        for text in differences(anndata.read_h5ad(args.adata), identity.spaces[key]):
            logger.warning("%s STATE takes columns by position, and predicts all the same.", text)
    except Exception as error:  # noqa: BLE001  # a check may not stop what STATE would do
        logger.warning("The cells could not be checked: %s", error)


def requested_names(found: Run, args: Namespace) -> set[str]:
    """Return every perturbation that the h5ad, ``--tsv`` and ``--all-perts`` ask for."""
    names = _names_in(args)
    control = args.control_pert or found.control
    if control not in names:
        raise StateRagError(
            f"{args.adata} has no cells of the control {control!r} in obs column {args.pert_col!r} (it has "
            f"{', '.join(sorted(names)[:10])}{suggest([control], sorted(names))}). Cells are simulated from "
            "controls: add some, or name theirs with --control-pert."
        )
    if args.tsv:
        names |= _tsv_names(Path(args.tsv))
    if args.all_perts:
        path = found.folder / "pert_onehot_map.pt"
        if not path.is_file():
            raise StateRagError(f"--all-perts reads {path}, which is missing. Copy the whole run folder.")
        names |= {str(name) for name in read_torch(path, "Copy the whole run folder again.")}
    return names


def _names_in(args: Namespace) -> set[str]:
    with open_h5ad(args.adata) as file:
        spaces = sorted(file["obsm"]) if "obsm" in file else []
        # X_hvg may be missing: its genes are looked for in X.
        if args.embed_key is not None and args.embed_key not in (*spaces, "X_hvg"):
            raise StateRagError(
                f"{args.adata} has no obsm[{args.embed_key!r}], which --embed-key names; it has "
                f"{', '.join(spaces) or 'none'}{suggest([args.embed_key], spaces)}. Name the one that the run was "
                "trained on, or make it with `state-rag data prepare`."
            )
        categories, codes = read_column(file, args.pert_col, "--pert-col")
    return {str(categories[code]) for code in np.unique(codes[codes >= 0])}


def _tsv_names(path: Path) -> set[str]:
    existing_file(path, "a table of perturbations and numbers of cells", (".tsv", ".txt"), "--tsv")
    table = read_csv_table(path, [NAME], remedy="Write it again, separated by tabs.", separator="\t")
    if NAME not in table or "num_cells" not in table:
        raise StateRagError(
            f"--tsv {path} needs the columns `perturbation` and `num_cells`; it has "
            f"{', '.join(map(str, table.columns))}."
        )
    return set(table[NAME].astype(str))
