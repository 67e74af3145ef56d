"""What a reader of a sweep's tables should know: what was compared, what is missing, what tests cannot show."""

from collections.abc import Mapping

from state_rag.evaluation.baselines.naive import EVIDENCE
from state_rag.experiments.finished import Shared, Sweep
from state_rag.experiments.jobs import kind_of
from state_rag.experiments.methods import Method
from state_rag.report.tables import exceptions, legend, limits, mean_over

SHOWN_MISSING = 8
"""Missing runs that the notes name for one method and reason; the CSV names all."""
OWN_CONDITIONS = (
    "Methods were predicted for different conditions: PCA metrics, distances, centred effects and discrimination "
    "depend on the others of a cell line, and stand among each method's own (`state-rag compare` evaluates anew)."
)
ENGINE = f"{EVIDENCE}: the evidence engine alone, fitted on the training cells of each split."


def notes_of(sweep: Sweep, names: Mapping[Method, str], shared: Shared | None, tested: str | None) -> str:
    """Return what a reader of a table should know, one remark a line."""
    notes = []
    if shared is None:
        notes.append("No run has been evaluated yet.")
    else:
        if tested is None:
            notes.append(f"{mean_over(shared.comparison)} Best value in bold.")
            notes += exceptions(shared.comparison)
        elif tested in shared.comparison.predictors:
            notes.append(legend(shared.comparison))
        else:
            notes.append(
                f"No tests: {tested}, which the others are tested against, has no results to compare yet. "
                f"{mean_over(shared.comparison)} Best value of a row in bold."
            )
            notes += exceptions(shared.comparison)
        notes.append(compared(shared))
        if EVIDENCE in shared.baselines:
            notes.append(ENGINE)
        if shared.comparison.left_out:
            notes.append(OWN_CONDITIONS)
        if shared.unused:
            notes.append(
                f"Finished but not used, since others lack these {kind_of(sweep.lines)}s or seeds: "
                + ", ".join(f"{name} ({count})" for name, count in shared.unused.items())
                + ". Fewer methods (--methods) may share more."
            )
    if tested is not None and (retrieving := [method for method in names if method.retrieves]):
        notes.append("K: " + ", ".join(f"{method.name} {method.topk}" for method in retrieving) + ".")
    notes += _missing(sweep, names)
    return "\n".join(notes)


def _missing(sweep: Sweep, names: Mapping[Method, str]) -> list[str]:
    """Return how many runs are missing, and which, by method and reason."""
    groups: dict[str, list[str]] = {}
    for method in names:
        for (line, seed), why in sweep.missing(method).items():
            groups.setdefault(f"{names[method]}, {why}", []).append(f"{line} seed {seed}")
    if not groups:
        return []
    count, whole = sum(map(len, groups.values())), len(names) * len(sweep.lines) * len(sweep.seeds)
    notes = [f"Missing: {count} of {whole} runs."]
    for group, places in groups.items():
        more = f" and {len(places) - SHOWN_MISSING} more" if len(places) > SHOWN_MISSING else ""
        notes.append(f"{group}: {', '.join(places[:SHOWN_MISSING])}{more}.")
    return notes


def compared(shared: Shared) -> str:
    """Return what was compared, and what the spread is."""
    seeds = ", ".join(map(str, shared.seeds))
    spread = (
        f"mean ± standard deviation over seeds {seeds}"
        if len(shared.seeds) > 1
        else f"seed {seeds} only, so no standard deviation over seeds"
    )
    return (
        f"Held-out {kind_of(shared.lines)}{'s' * (len(shared.lines) > 1)} {', '.join(shared.lines)}, every condition "
        f"of equal weight ({shared.comparison.n_conditions}); {spread}."
    )


def line_notes(line: str, shared: Shared | None) -> list[str]:
    """Return what the column of a line is over, and what its tests cannot show."""
    if shared is None:
        return [f"{line}: no run has been evaluated yet."]
    seeds = ", ".join(map(str, shared.seeds))
    over = f"{line}: {shared.comparison.n_conditions} conditions, seed{'s' * (len(shared.seeds) > 1)} {seeds}."
    return [over, *(f"{line}, {told}" for told in [*limits(shared.comparison), *exceptions(shared.comparison)])]
