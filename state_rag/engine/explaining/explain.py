"""Ask an evidence run where a prediction comes from; what it does not know is said with close spellings."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from state_rag.contract.feature_names import names_in_file
from state_rag.effects.aligned_rows import AlignedRows
from state_rag.engine.folder import EvidenceRun
from state_rag.engine.further import knowing
from state_rag.errors import StateRagError
from state_rag.evidence.explanation import Explanation
from state_rag.h5ad import label_of_each, open_h5ad, read_column
from state_rag.names import listing, suggest
from state_rag.run_folders import REAL

logger = logging.getLogger(__name__)


def explain(run: EvidenceRun, perturbation: str, context: str, *, new_context: bool = False) -> Explanation:
    """Return where a predicted effect comes from.

    Parameters
    ----------
    run
        An evidence run, fitted on cells or on a table of effects.
    perturbation, context
        What was predicted; a condition that was measured is explained without its own response.
    new_context
        Take a context that the run does not know for a new one, of which nothing was measured.

    Raises
    ------
    StateRagError
        If the run does not know the context, or knows nothing of the perturbation, so that its prediction is the
        context's mean effect.
    """
    check_contexts(run, [context], new_context=new_context)
    perturbation = run.own_name(perturbation)
    control = run.data.get("control_pert")
    if control is not None and perturbation == control:
        raise StateRagError(f"{perturbation} is the control: it is predicted to have no effect.")
    run = knowing(run, [perturbation])
    bank = run.engine.bank
    if not run.engine.knows(perturbation):
        raise StateRagError(
            f"nothing is known of {perturbation}: it was measured in no context that the run was fitted on, and the "
            f"run's embeddings do not know it. Its prediction is the mean effect of {context}, with no evidence to "
            f"show{suggest([perturbation], bank.offered)}"
        )
    return run.engine.explain(context, perturbation)


def check_contexts(run: EvidenceRun, contexts: Sequence[str], *, new_context: bool) -> None:
    """Refuse contexts that a run does not know, unless they are said to be new.

    Raises
    ------
    StateRagError
        With the first of them.
    """
    known = contexts_of(run)
    if strange := [name for name in contexts if not isinstance(name, str)]:
        raise StateRagError(f"a context is a name, such as {known[0]!r}, not {strange[0]!r}.")
    unknown = [name for name in contexts if name not in known]
    if unknown and not new_context:
        raise StateRagError(
            f"context {unknown[0]!r} is neither among those that the run was fitted on nor among those that it tests "
            f"({listing(known)}){suggest(unknown, known)}. If nothing was measured in it, say so with --new-context "
            "(new_context=True)."
        )


def measured_contexts(run: EvidenceRun) -> tuple[str, ...]:
    """Return the contexts in which something was measured, those with combinations alone last."""
    combined = run.engine.combined
    alone = () if combined is None else combined.context_names
    return tuple(dict.fromkeys((*run.engine.responses.context_names, *alone)))


def contexts_of(run: EvidenceRun) -> list[str]:
    """Return the contexts that a run was fitted on and, after them, others that its split names."""
    found = list(measured_contexts(run))
    if run.identity is not None and run.identity.split is not None:
        named = [key for part in ("zeroshot", "fewshot") for key in run.identity.split.get(part, {})]
        found += [line for line in (key.partition(".")[2] for key in named) if line]
    return list(dict.fromkeys(found))


def measured_effect(run: EvidenceRun, folder: Path, perturbation: str, context: str) -> np.ndarray | None:
    """Return the measured effect [G] of a condition, where it is known; nothing is predicted from it.

    It is the mean of its cells minus that of the context's controls: from the responses that the run was fitted on,
    else from the real cells beside its predictions.

    Parameters
    ----------
    run, folder
        The run and its folder, which may hold predictions.
    perturbation, context
        The condition.
    """
    perturbation = run.engine.bank.own_label(perturbation)
    for responses in (run.engine.responses, run.engine.combined):
        for row, condition in enumerate(() if responses is None else responses.conditions):
            if condition == (context, perturbation):
                return responses.effects[row].astype(np.float64)  # type: ignore[union-attr]
    if run.identity is None:
        return None
    names = run.identity.spaces[run.key].names
    for path in sorted(folder.glob(f"eval_*/{REAL}")):
        try:
            effect = _effect_in(path, run, names, perturbation, context)
        except StateRagError as error:  # the explanation is whole without it
            logger.warning("The measured effect is not shown: %s", error)
            continue
        if effect is not None:
            return effect
    return None


def _effect_in(
    path: Path, run: EvidenceRun, names: Sequence[str] | None, perturbation: str, context: str
) -> np.ndarray | None:
    with open_h5ad(path) as file:
        labels = [_labels(file, run.data[key]) for key in ("pert_col", "cell_type_key")]
        here = labels[1] == context
        wanted = (perturbation, str(run.data["control_pert"]))
        tested, controls = (np.flatnonzero(here & (labels[0] == name)) for name in wanted)
        if not (len(tested) and len(controls)):
            return None
        # what STATE writes names no genes: its columns are numbered, in the order of the run's own
        width = len(run.engine.responses.genes)
        numbered = names_in_file(file, "X") == [str(gene) for gene in range(width)]
        rows = AlignedRows(None if numbered else names).open(file, "X")
        if rows.shape[1] != width:
            raise StateRagError(f"{path}: 'X' has {rows.shape[1]} columns, the run predicts {width}")
        effect: np.ndarray = np.subtract(
            *(rows.read(some).mean(axis=0, dtype=np.float64) for some in (tested, controls))
        )
        return effect if np.isfinite(effect).all() else None


def _labels(file: object, column: str) -> np.ndarray:
    return label_of_each(*read_column(file, column, "data.kwargs"))  # type: ignore[arg-type]
