"""Which experiments to do next, asked of a run: names are checked, and the control is never one."""

from collections.abc import Callable, Mapping, Sequence

import pandas as pd

from state_rag.engine.explaining.explain import check_contexts
from state_rag.engine.folder import EvidenceRun
from state_rag.engine.further import knowing
from state_rag.errors import StateRagError
from state_rag.evidence.choices.design import Design, default_targets, design
from state_rag.evidence.choices.design_replay import FEWEST, Replay, replay
from state_rag.evidence.choices.hits import Hits, hits
from state_rag.planning.offered import offered, own_names, tell_left_out, tell_measured
from state_rag.planning.signatures import target_of

AIMS = ("accuracy", "hits")


def design_run(
    run: EvidenceRun,
    contexts: Sequence[str],
    budget: int,
    *,
    candidates: Sequence[str] | None = None,
    pairs: bool = False,
    targets: Sequence[str] | None = None,
    exclude: Sequence[str] = (),
    costs: Mapping[str, float] | None = None,
    replicates: bool = False,
    new_context: bool = False,
    seed: int = 0,
) -> Design:
    """Return the conditions whose measurement makes the predictions of the targets most certain.

    Parameters
    ----------
    run
        An evidence run.
    contexts
        Cell lines to measure in, one or more.
    budget, candidates, targets, exclude, costs, replicates, seed
        As for `state_rag.evidence.choices.design.design`; the control is neither candidate nor target.
    pairs
        Choose from all pairs of the candidates.
    new_context
        Take contexts that the run does not know for new ones, of which nothing was measured.

    Raises
    ------
    StateRagError
        If the run does not know a context, a cost stands twice, or nothing is left to choose from or to predict.
    """
    check_contexts(run, contexts, new_context=new_context)
    run = knowing(run, [*(candidates or ()), *(targets or ())])
    exclude = own_names(run, exclude, "excluded")
    price = _priced(run, costs or {})
    chosen_from = offered(run, candidates, pairs=pairs)
    wanted = offered(run, default_targets(run.engine, chosen_from) if targets is None else targets)
    if candidates is not None and not pairs and not replicates:
        tell_measured(run, contexts, chosen_from, "candidates")
    if targets is not None:
        tell_measured(run, contexts, wanted, "targets")
    found = design(
        run.engine,
        contexts,
        budget,
        candidates=chosen_from,
        targets=wanted,
        exclude=exclude,
        costs=price,
        replicates=replicates,
        seed=seed,
    )
    tell_left_out(run, found.unknown)
    return found


def _priced(run: EvidenceRun, costs: Mapping[str, float]) -> dict[str, float]:
    """Return what perturbations cost by the run's own names; two names of one with a cost each are refused."""
    if not hasattr(costs, "items"):
        raise StateRagError(
            f"design: costs have to name perturbations: give a dict of name and cost, not {type(costs).__name__}."
        )
    called: dict[str, str] = {}
    for given, name in zip(costs, own_names(run, costs, "given a cost"), strict=True):
        if name in called:
            raise StateRagError(
                f"design: {called[name]} and {given} are one perturbation, whose cost stands twice; give it once."
            )
        called[name] = given
    return {name: costs[given] for name, given in called.items()}


def hits_run(
    run: EvidenceRun,
    contexts: Sequence[str],
    budget: int,
    *,
    candidates: Sequence[str] | None = None,
    pairs: bool = False,
    exclude: Sequence[str] = (),
    threshold: float | None = None,
    signature: Mapping[str, float] | None = None,
    new_context: bool = False,
) -> Hits:
    """Return the conditions that most likely exceed a wanted effect, as `state_rag.evidence.choices.hits.hits` does.

    Genes of the signature that the run lacks are left out, and named in the log. `pairs`: choose from all pairs of the
    candidates.

    Raises
    ------
    StateRagError
        As `design_run` does.
    """
    check_contexts(run, contexts, new_context=new_context)
    run = knowing(run, candidates or ())
    exclude = own_names(run, exclude, "excluded")
    if signature is not None:
        genes = run.engine.responses.genes
        wanted = target_of(genes, signature, unlisted="unchanged").tolist()
        signature = dict(zip(genes, wanted, strict=True))
    chosen_from = offered(run, candidates, pairs=pairs)
    if candidates is not None and not pairs:
        tell_measured(run, contexts, chosen_from, "candidates")
    found = hits(
        run.engine,
        contexts,
        budget,
        candidates=chosen_from,
        exclude=exclude,
        threshold=threshold,
        signature=signature,
    )
    tell_left_out(run, found.unknown)
    return found


def replay_run(
    run: EvidenceRun,
    contexts: Sequence[str],
    *,
    splits: int = 12,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Replay:
    """Return what a design would have been worth in a context that was measured.

    That is the first of the contexts with enough measured conditions, or else the context with the most. The run's
    numbers were trained with all of its conditions; this helps all ways to choose alike.

    Raises
    ------
    StateRagError
        If no context has enough measured conditions.
    """
    bank = run.engine.bank
    count = {name: len(bank.rows_of(number)) for number, name in enumerate(bank.contexts)}
    enough = [name for name in contexts if count.get(name, 0) >= 2 * FEWEST]
    most = max(count, key=lambda name: count[name])
    chosen = enough[0] if enough else most
    return replay(
        bank,
        run.engine.similarity,
        run.engine.learned_for("few-shot"),
        bank.number_of_context(chosen),
        splits=splits,
        limit=run.engine.settings.final_supports,
        seed=seed,
        progress=progress,
    )


def design_table(found: Design | Hits) -> pd.DataFrame:
    """Return a row a chosen condition, best first.

    Of a design: `rank`, `perturbation`, `context`, `gain` (by how much it reduces the sum of the targets' variances),
    `variance_explained` (share that it and those before it take away), `variance_explained_random` (that of as many
    random ones), `cost`, `replicate`, `helps` (targets, with the share of the gain of each). Of hits: `rank`,
    `perturbation`, `context`, `probability`, `expected_hits`, `effect`, `deviation`.
    """
    rows: dict[str, object] = {
        "rank": range(1, len(found.conditions) + 1),
        "perturbation": [name for _, name in found.conditions],
        "context": [context for context, _ in found.conditions],
    }
    if isinstance(found, Hits):
        rows |= {"probability": found.probability, "expected_hits": found.expected}
        return pd.DataFrame(rows | {"effect": found.effect, "deviation": found.deviation})
    told = {condition for best in found.helps for condition, _ in best}
    several = len({context for context, _ in [*found.conditions, *told]}) > 1
    helps = []
    for best, gain in zip(found.helps, found.gain.tolist(), strict=True):
        named = [
            (f"{context}:{name}" if several else name, value / max(gain, 1e-300)) for (context, name), value in best
        ]
        helps.append("|".join(f"{name}({share:.2f})" for name, share in named if share >= 0.005))
    rows |= {"gain": found.gain, "variance_explained": found.explained}
    rows |= {"variance_explained_random": found.explained_by_random, "cost": found.cost}
    return pd.DataFrame(rows | {"replicate": found.replicate, "helps": helps})


def replay_table(found: Replay) -> pd.DataFrame:
    """Return a row a way to choose and budget: `pearson` with its 95 % interval, and `p` of designed against it."""
    rows = []
    for method, values in found.scores.items():
        (low, high), p = found.interval(method), found.p_value(method)
        for column, budget in enumerate(found.budgets):
            mean = values[:, column].mean()
            rows.append((found.context, method, budget, mean, low[column], high[column], p[column]))
    return pd.DataFrame(rows, columns=["context", "chosen", "experiments", "pearson", "low", "high", "p"])
