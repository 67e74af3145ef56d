"""Ask an evidence run which genes perturbations change; what it cannot tell is said with the reason."""

from collections.abc import Sequence

import pandas as pd

from state_rag.engine.called import calls_table
from state_rag.engine.explaining.explain import check_contexts
from state_rag.engine.folder import EvidenceRun
from state_rag.engine.further import knowing_all
from state_rag.errors import StateRagError
from state_rag.evidence.trust.expected import FEWEST
from state_rag.evidence.trust.gene_caller import FEWEST_CHANGES
from state_rag.evidence.trust.gene_calls import FDR


def called_genes(
    run: EvidenceRun, perturbations: Sequence[str], context: str, *, fdr: float = FDR, new_context: bool = False
) -> pd.DataFrame:
    """Return the genes that perturbations change in a context, as `calls_table` does.

    Parameters
    ----------
    run
        An evidence run.
    perturbations, context
        What is predicted.
    fdr
        False discovery rate of the list.
    new_context
        Take a context that the run does not know for a new one, of which nothing was measured.

    Raises
    ------
    StateRagError
        If the run does not know which genes change, does not know the context, or knows nothing of a perturbation.
    """
    check_contexts(run, [context], new_context=new_context)
    if run.engine.responses.changes is None:
        raise StateRagError(
            "which genes change is not known: the run was fitted without the deviations of cells, or before they were "
            "kept. Fit it on cells, or on a table that `sr.effects.write` wrote from cells."
        )
    if not run.engine.callers:
        raise StateRagError(
            f"which genes change could not be learned: it takes {FEWEST} measured conditions that can be asked about, "
            f"and {2 * FEWEST_CHANGES} changed genes in them."
        )
    return calls_table(knowing_all(run, perturbations).engine.predict(context, perturbations), fdr)
