"""Predicted effects as a table with a row a condition: what a run says without any cells."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from state_rag import __version__
from state_rag.effects.mean_effects import PREDICTED
from state_rag.engine.called import LAYER
from state_rag.engine.explaining.explain import check_contexts, measured_contexts
from state_rag.engine.folder import EvidenceRun
from state_rag.engine.further import knowing_all
from state_rag.engine.trust_table import trust_table
from state_rag.errors import StateRagError
from state_rag.names import listing
from state_rag.progress import track

if TYPE_CHECKING:
    import anndata


def predicted_effects(
    run: EvidenceRun,
    contexts: Sequence[str] | None = None,
    perturbations: Sequence[str] | None = None,
    *,
    new_context: bool = False,
    progress: bool = False,
) -> "anndata.AnnData":
    """Return the predicted effects of perturbations in contexts.

    Parameters
    ----------
    run
        An evidence run, or a network's that is anchored on evidence.
    contexts
        By default all that the run was fitted on.
    perturbations
        By default, in each context, those that something is known of and that were not measured there. One that was
        measured is predicted without its own response.
    new_context
        Take contexts that the run does not know for new ones, of which nothing was measured.
    progress
        Whether to show a progress bar.

    Returns
    -------
    anndata.AnnData
        A row a condition: `X` the effect (the mean that the engine predicts, minus that of the context's controls), in
        the unit of the measured ones, float64 [conditions, genes]; `layers["std"]` the standard deviation of each
        gene's error, and where the run knows which genes change `layers["probability_changed"]`; `obs` with
        `perturbation`, `context`, `measured`, `use` (kind of question), `expected_pearson` with `expected_pearson_low`
        and `_high`, `trust_grade`, `trust_reason`, and `neighbours` (perturbations drawn on, heaviest first).

    Raises
    ------
    StateRagError
        If the run does not know a context, nothing is known of a perturbation by any response or embedding, or none is
        named but the control.
    """
    import anndata

    bank = run.engine.bank
    contexts = list(measured_contexts(run) if contexts is None else dict.fromkeys(map(str, contexts)))
    check_contexts(run, contexts, new_context=new_context)
    control = run.data.get("control_pert")
    if perturbations is not None:
        perturbations = [name for name in dict.fromkeys(map(str, perturbations)) if name != control]
        run = knowing_all(run, perturbations)
        bank = run.engine.bank
    rows, means, stds, chances = [], [], [], []
    for number in track(range(len(contexts)), "predicting", disable=not progress):
        context = contexts[number]
        asked = perturbations
        if asked is None:
            combined = run.engine.combined
            named = [*bank.offered, *(combined.perturbation_names if combined is not None else ())]
            asked = [name for name in named if name != control and not run.engine.measured(context, name)]
        if not asked:
            continue
        found = run.engine.predict(context, asked)
        table = trust_table(found)
        if table is None:
            table = pd.DataFrame({"context": context, "perturbation": asked, "use": list(found.uses)})
        table["measured"] = [run.engine.measured(context, name) for name in asked]
        table["neighbours"] = ["|".join(name for name, _ in some) for some in found.neighbours]
        rows.append(table)
        means.append(found.mean)
        known = np.sqrt(found.variance)[:, None] if found.trust is None else found.trust.std
        stds.append(np.broadcast_to(known, found.mean.shape))
        if found.calls is not None:
            chances.append(found.calls.probability)
    if not rows:
        if not contexts or perturbations is not None:
            lacking = "perturbation but the control" if contexts else "context"
            raise StateRagError(f"nothing to predict: no {lacking} was named.")
        raise StateRagError(
            f"nothing to predict: all that the run knows was measured in {listing(contexts)}. Name perturbations; "
            "those are predicted without their own response."
        )
    obs = pd.concat(rows, ignore_index=True).drop(columns="std", errors="ignore")
    obs.index = [f"{row.perturbation} in {row.context}" for row in obs.itertuples()]
    for column in ("perturbation", "context", "use", "trust_grade", "trust_reason"):
        if column in obs:
            obs[column] = pd.Categorical(obs[column])
    return anndata.AnnData(
        np.concatenate(means),
        obs=obs,
        var=pd.DataFrame(index=pd.Index(run.engine.responses.genes, dtype=str)),
        layers={"std": np.concatenate(stds), **({LAYER: np.concatenate(chances)} if chances else {})},
        uns={
            "state_rag": {"kind": PREDICTED, "version": __version__, **({"treated": True} if bank.treatments else {})}
        },
    )
