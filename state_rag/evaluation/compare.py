"""Several predictors on the same conditions: means, tests against a reference, corrected over metrics."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from state_rag.errors import StateRagError
from state_rag.metrics.registry import BY_NAME, Metric
from state_rag.metrics.significance import benjamini_hochberg, mann_whitney, paired_wilcoxon
from state_rag.names import suggest

logger = logging.getLogger(__name__)
KEY = ["cell_line", "perturbation"]


@dataclass
class Comparison:
    """Result of `compare`.

    Attributes
    ----------
    rows
        One row per predictor and metric: `predictor`, `metric`, `mean`, `sd`, `n` (conditions that went into them,
        see `in_common`), `n_missing` (shared conditions where the predictor has no value), `difference` (mean of
        predictor minus reference), `p_mann_whitney`, `q_mann_whitney`, `p_wilcoxon`, `q_wilcoxon`. Tests are empty
        for the reference.
    reference
        Name of the reference predictor.
    predictors, metrics
        In table order.
    n_conditions
        Conditions that all predictors share.
    left_out
        Conditions of each predictor that not all share.
    values
        Predictor to the table that its means are of: the shared conditions, NaN where not all have a value.
    """

    rows: pd.DataFrame
    reference: str
    predictors: list[str]
    metrics: tuple[Metric, ...]
    n_conditions: int
    left_out: dict[str, int] = field(default_factory=dict)
    values: dict[str, pd.DataFrame] = field(default_factory=dict)

    def cell(self, predictor: str, metric: str) -> pd.Series:
        """Return one row."""
        chosen = self.rows[(self.rows["predictor"] == predictor) & (self.rows["metric"] == metric)]
        return chosen.iloc[0]


def compare(
    tables: Mapping[str, pd.DataFrame],
    reference: str,
    metrics: Sequence[str] | None = None,
    known: Mapping[str, Metric] | None = None,
) -> Comparison:
    """Compare predictors on the conditions that all of them have.

    Parameters
    ----------
    tables
        Predictor to table with `cell_line`, `perturbation` and metric columns.
    reference
        Whom the others are tested against.
    metrics
        Metric names; by default every known metric that all tables have.
    known
        Definitions by name; by default the registry's.

    Returns
    -------
    Comparison
        Means and tests, for each metric over the same conditions for all predictors. The correction runs over the
        metrics of one predictor.

    Raises
    ------
    StateRagError
        If the reference is unknown or no condition is shared.
    """
    if reference not in tables:
        raise StateRagError(f"--reference: '{reference}' is none of {', '.join(tables)}{suggest([reference], tables)}")
    indexed = {name: table.set_index(KEY).sort_index() for name, table in tables.items()}
    for name, table in indexed.items():
        if table.index.has_duplicates:
            first = table.index[table.index.duplicated()][0]
            raise StateRagError(f"{name}: condition {first[1]} in {first[0]} appears twice in its results")
    shared = sorted(set.intersection(*(set(table.index) for table in indexed.values())))
    if not shared:
        raise StateRagError(
            "the runs have no condition (perturbation in cell line) in common; they were predicted on different tests"
        )
    left_out = {name: len(table) - len(shared) for name, table in indexed.items() if len(table) > len(shared)}
    for name, count in left_out.items():
        logger.warning("%s: %d of its conditions are not in every run and are left out", name, count)
    known = known or BY_NAME
    chosen = tuple(known[name] for name in (metrics or known) if all(name in t.columns for t in indexed.values()))
    limited = {name: table.loc[shared] for name, table in indexed.items()}
    values, lacking = in_common(limited, [metric.name for metric in chosen])
    rows = []
    for name, table in values.items():
        block = [
            _row(name, metric.name, table, values[reference], int(lacking[name][metric.name].sum()), name == reference)
            for metric in chosen
        ]
        for test in ("mann_whitney", "wilcoxon"):
            corrected = benjamini_hochberg(np.array([row[f"p_{test}"] for row in block]))
            for row, q in zip(block, corrected, strict=True):
                row[f"q_{test}"] = float(q)
        rows += block
    return Comparison(
        pd.DataFrame(rows),
        reference,
        list(tables),
        chosen,
        len(shared),
        left_out,
        {name: table.reset_index() for name, table in values.items()},
    )


def in_common(
    tables: Mapping[str, pd.DataFrame], metrics: Sequence[str]
) -> tuple[dict[str, pd.DataFrame], dict[str, pd.DataFrame]]:
    """Make every mean of a metric one over the same conditions, whoever lacks values.

    A predictor without a value for its worst conditions would else look better than one that has them all.

    Parameters
    ----------
    tables
        Predictor to table; all have the same index.
    metrics
        Columns.

    Returns
    -------
    tuple
        The metrics' tables, with NaN wherever a predictor has none; and for each predictor where it had none
        (booleans). A predictor that has no value for a metric anywhere takes nothing from the others.

    Examples
    --------
    >>> a, b = (pd.DataFrame({"mse": values}) for values in ([1.0, 2.0, 3.0], [1.0, np.nan, 5.0]))
    >>> in_common({"a": a, "b": b}, ["mse"])[0]["a"]["mse"].tolist()
    [1.0, nan, 3.0]
    """
    known = {name: np.isfinite(table[list(metrics)].astype(np.float64)) for name, table in tables.items()}
    in_all: pd.DataFrame | None = None
    for has in known.values():
        usable = has | ~has.any()
        in_all = usable if in_all is None else in_all & usable
    values = {name: table[list(metrics)].where(known[name] & in_all) for name, table in tables.items()}
    return values, {name: ~has for name, has in known.items()}


def _row(
    name: str, metric: str, mine: pd.DataFrame, base: pd.DataFrame, missing: int, is_reference: bool
) -> dict[str, object]:
    values, others = (table[metric].to_numpy(dtype=np.float64) for table in (mine, base))
    known = values[np.isfinite(values)]
    pairs = np.isfinite(values) & np.isfinite(others)
    return {
        "predictor": name,
        "metric": metric,
        "mean": float(known.mean()) if len(known) else float("nan"),
        "sd": float(known.std(ddof=1)) if len(known) > 1 else float("nan"),
        "n": len(known),
        "n_missing": missing,
        "difference": float((values - others)[pairs].mean()) if pairs.any() else float("nan"),
        "p_mann_whitney": float("nan") if is_reference else mann_whitney(values, others),
        "p_wilcoxon": float("nan") if is_reference else paired_wilcoxon(values, others),
    }
