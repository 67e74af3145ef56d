"""`state tx infer`: check every perturbation first, then let STATE simulate with our model."""

import logging
from argparse import Namespace
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from state_rag.errors import StateRagError
from state_rag.files import existing_file
from state_rag.h5ad import open_h5ad, read_column
from state_rag.upstream.knowledge_source import refuse_unknown, with_queries
from state_rag.upstream.predict import load_embeddings_or_none
from state_rag.upstream.run_folder import Run, find_run, read_checkpoint, read_torch
from state_rag.upstream.swap import any_head_count, replaced, whole_h5ad_files, whole_npy_files
from state_rag.upstream.train import is_disk_full

logger = logging.getLogger(__name__)


def run(original: Callable[[Namespace], Any], args: Namespace, *, trace_sink: Callable[..., None] | None = None) -> Any:
    """Simulate; a run without embeddings is left to STATE alone.

    `trace_sink` is handed what was retrieved for each set, as `RagStateTransition.bound_to` says.
    """
    found = find_run(args.model_dir, "--model-dir")
    args.model_dir = str(found.folder)
    if found.settings.mode == "none":
        with any_head_count():
            return original(args)
    checkpoint = Path(args.checkpoint) if args.checkpoint else found.folder / "checkpoints" / "final.ckpt"
    controls = {found.control, args.control_pert or found.control}
    names = requested_names(found, args) - controls

    from state_rag.checkpoint import read_knowledge
    from state_rag.model import RagStateTransition

    knowledge = read_knowledge(read_checkpoint(checkpoint))
    unknown = names - set(knowledge.names)
    if unknown and args.genept_path:
        embeddings = load_embeddings_or_none(args.genept_path, unknown, found.settings.genept_text_width)
        if embeddings is not None:
            knowledge = with_queries(knowledge, embeddings)
            logger.info("STATE's lines on a 'control fallback one-hot' do not concern them: one-hots are not used.")
    refuse_unknown(sorted(names - set(knowledge.names)), knowledge.names, "this request")

    import state.tx.models.state_transition as state_transition

    model = RagStateTransition.bound_to(knowledge, controls=tuple(controls), trace_sink=trace_sink)
    with ExitStack() as stack:
        stack.enter_context(any_head_count())
        stack.enter_context(whole_h5ad_files())
        stack.enter_context(whole_npy_files())
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


def requested_names(found: Run, args: Namespace) -> set[str]:
    """Return every perturbation that the h5ad, ``--tsv`` and ``--all-perts`` ask for."""
    names = _names_in(args.adata, args.pert_col, args.embed_key)
    control = args.control_pert or found.control
    if control not in names:
        raise StateRagError(
            f"{args.adata} has no cells of the control {control!r} in obs column {args.pert_col!r} (it has "
            f"{', '.join(sorted(names)[:10])}). Cells are simulated from controls: add some, or name theirs with "
            "--control-pert."
        )
    if args.tsv:
        names |= _tsv_names(Path(args.tsv))
    if args.all_perts:
        path = found.folder / "pert_onehot_map.pt"
        if not path.is_file():
            raise StateRagError(f"--all-perts reads {path}, which is missing. Copy the whole run folder.")
        names |= {str(name) for name in read_torch(path, "Copy the whole run folder again.")}
    return names


def _names_in(adata: str, column: str, embed_key: str | None) -> set[str]:
    with open_h5ad(adata) as file:
        spaces = sorted(file["obsm"]) if "obsm" in file else []
        if embed_key is not None and embed_key not in spaces:
            raise StateRagError(
                f"{adata} has no obsm[{embed_key!r}], which --embed-key names; it has {', '.join(spaces) or 'none'}. "
                "Name the one that the run was trained on, or make it with `state-rag data prepare`."
            )
        categories, codes = read_column(file, column, "--pert-col")
    return {str(categories[code]) for code in np.unique(codes[codes >= 0])}


def _tsv_names(path: Path) -> set[str]:
    existing_file(path, "a table of perturbations and numbers of cells", (".tsv", ".txt"), "--tsv")
    try:
        table = pd.read_csv(path, sep="\t")
    except ValueError as error:
        raise StateRagError(f"--tsv {path} is no table separated by tabs: {error}.") from error
    if "perturbation" not in table or "num_cells" not in table:
        raise StateRagError(
            f"--tsv {path} needs the columns `perturbation` and `num_cells`; it has "
            f"{', '.join(map(str, table.columns))}."
        )
    return set(table["perturbation"].astype(str))
