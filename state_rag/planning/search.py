"""Which perturbations bring cells to a wanted state, asked of a run: names are checked, the control is left out."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from state_rag.engine.explaining.explain import check_contexts
from state_rag.engine.folder import EvidenceRun
from state_rag.engine.further import knowing
from state_rag.engine.trust_table import trust_table
from state_rag.evidence.choices.search import SIGNIFICANT, Search, search
from state_rag.planning.offered import offered, tell_left_out
from state_rag.planning.signatures import target_of, tell_one_sided

NAMED = 5
"""Perturbations behind a prediction that the table names."""


def search_run(
    run: EvidenceRun,
    context: str,
    signature: Mapping[str, float],
    *,
    candidates: Sequence[str] | None = None,
    pairs: bool = False,
    top: int = 20,
    reverse: bool = False,
    unlisted: str | None = None,
    new_context: bool = False,
    seed: int = 0,
) -> Search:
    """Return the perturbations that most likely bring cells of a context to a wanted state.

    Parameters
    ----------
    run
        An evidence run.
    context
        Cell line.
    signature
        Gene -> wanted effect, or weight, or sign. Genes that the run lacks are left out, and named in the log.
    candidates, top, seed
        As for `state_rag.evidence.choices.search.search`; the control is no candidate.
    pairs
        Choose from all pairs of the candidates.
    reverse
        Look for the opposite, as for the signature of a disease.
    unlisted
        What genes that the signature does not name do, as for `signatures.target_of`.
    new_context
        Take a context that the run does not know for a new one, of which nothing was measured.

    Raises
    ------
    StateRagError
        If the run does not know the context or any of the genes, or no candidate is left.
    """
    check_contexts(run, [context], new_context=new_context)
    target = target_of(run.engine.responses.genes, signature, reverse=reverse, unlisted=unlisted)
    tell_one_sided(target)
    run = knowing(run, candidates or ())
    found = search(
        run.engine,
        context,
        target,
        candidates=offered(run, candidates, pairs=pairs),
        top=top,
        seed=seed,
    )
    tell_left_out(run, found.unknown)
    return found


def search_table(found: Search) -> pd.DataFrame:
    """Return a row for each of the best candidates, best first.

    Returns
    -------
    pandas.DataFrame
        `rank`, `perturbation`, `context`; `known_by`: `measured` there, or `predicted`; `score`: cosine with the
        target, both decorrelated; `p`: of so high a best score by luck; `q`: share of lucky finds up to this rank;
        `pearson` of its effect with the target (of a list of genes `mean_effect` on them, weighted); what is expected
        of a prediction, `expected_pearson` with its interval, `trust_grade` and `trust_reason`; `evidence`: the
        perturbations that a prediction comes from most, each with its weight relative to the heaviest.
    """
    count = len(found.effects)
    measured = found.measured[:count]
    table = pd.DataFrame(
        {
            "rank": range(1, count + 1),
            "perturbation": list(found.perturbations[:count]),
            "context": found.context,
            "known_by": np.where(measured, "measured", "predicted"),
            "score": found.score[:count],
            "p": found.p[:count],
            "q": found.q[:count],
            "mean_effect" if found.few else "pearson": found.agreement,
        }
    )
    trust = trust_table(found.top)
    if trust is not None:
        for name in ("expected_pearson", "expected_pearson_low", "expected_pearson_high"):
            table[name] = trust[name].where(~measured)
        table["trust_grade"] = trust["trust_grade"].where(~measured, "measured")
        table["trust_reason"] = trust["trust_reason"].where(~measured, "measured here")
    behind = ["|".join(f"{name}({weight:.2f})" for name, weight in one[:NAMED]) for one in found.top.neighbours]
    table["evidence"] = np.where(measured, "its own response", behind)
    return table


def candidates_table(found: Search) -> pd.DataFrame:
    """Return a row for every candidate: `rank`, `perturbation`, `known_by`, `refined`, `score`, `p`, `q`."""
    return pd.DataFrame(
        {
            "rank": range(1, len(found.perturbations) + 1),
            "perturbation": list(found.perturbations),
            "known_by": np.where(found.measured, "measured", "predicted"),
            "refined": found.refined,
            "score": found.score,
            "p": found.p,
            "q": found.q,
        }
    )


def verdict(found: Search) -> str:
    """Return in words whether anything fits."""
    count, p = len(found.perturbations), found.p[0]
    if not found.fits:
        return (
            f"NOTHING FITS: {found.perturbations[0]}, the best of {count} candidates, agrees no better than luck would "
            f"have it (a random target finds one as good in {p:.0%} of draws)."
        )
    fitting = int((found.p <= SIGNIFICANT).sum())
    return (
        f"{fitting} of {count} candidates fit better than luck would have it: a random target finds one as good in "
        f"{SIGNIFICANT:.0%} of draws at most (of the best: {p:.1%})."
    )
