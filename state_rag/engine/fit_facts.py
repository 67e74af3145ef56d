"""What a fit of the engine found, as numbers by name and as tables, for whoever tracks runs."""

from collections.abc import Mapping, Sequence
from typing import Any

from state_rag.engine.knowledge import sources_table
from state_rag.evidence.estimator import Evidence

Table = tuple[Sequence[str], Sequence[Sequence[Any]]]
"""Columns and rows."""


def fit_numbers(engine: Evidence) -> dict[str, float]:
    """Return the numbers of a fitted engine, each by the kind of question (use) and its name.

    `USE/correlation/METHOD` is the mean correlation over genes in episodes that judge; `USE/weight/SOURCE` the share of
    the variance that likeness by a source explains; `USE/trust/conditions` how many measured conditions calibrate, and
    `USE/trust/error` the mean size of an error of the expected correlation, where it is calibrated.
    """
    found: dict[str, float] = {}
    for use, learned in engine.trained.items():
        found |= {f"{use}/correlation/{method}": float(value) for method, value in learned.scores.items()}
    for row in sources_table(engine, {}).itertuples():
        found[f"{row.use}/weight/{row.source}"] = float(row.weight)
    for use, calibrated in engine.calibrated.items():
        found[f"{use}/trust/conditions"] = float(calibrated.conditions)
        if calibrated.model is not None:
            found[f"{use}/trust/error"] = float(calibrated.model.widths.mean())
    return found


def fit_tables(engine: Evidence, about: Mapping[str, Mapping[str, Any]]) -> dict[str, Table]:
    """Return the same as tables: `scores`, `sources` and `trust`, those that have rows.

    Parameters
    ----------
    engine
        A fitted one.
    about
        Its sources, as of `knowledge.Knowledge`.
    """
    scores = [
        [use, method, float(value), method == ("fusion" if learned.fusion is not None else learned.estimate)]
        for use, learned in engine.trained.items()
        for method, value in learned.scores.items()
    ]
    sources = sources_table(engine, about)
    trust = [
        [
            use,
            found.conditions,
            None if found.model is None else int(found.model.counts[1]),
            None if found.model is None else float(found.model.widths.mean()),
        ]
        for use, found in engine.calibrated.items()
    ]
    tables: dict[str, Table] = {
        "scores": (["use", "method", "correlation", "used"], scores),
        "sources": (
            list(sources.columns),
            # a column of W&B's has one type, and responses know no number of perturbations
            [[one if isinstance(one, float) else str(one) for one in row] for row in sources.itertuples(index=False)],
        ),
        "trust": (["use", "conditions", "contexts", "error"], trust),
    }
    return {name: table for name, table in tables.items() if len(table[1])}
