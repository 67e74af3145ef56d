"""What single neighbours do to a prediction: effects with all of them, without each, and without any."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from state_rag.analysis.overlap import spearman_within_conditions
from state_rag.metrics.profile import pearson
from state_rag.metrics.significance import paired_wilcoxon

ALL = "(all neighbours)"
OTHER_CONTROLS = (
    "Predictions start from control cells drawn anew, so Pearson delta is near but not equal to that of `evaluate` for "
    "the same condition."
)
LEGEND = (
    "change: how far the predicted effect moves without the neighbour, in percent of its length; without: Pearson "
    f"delta without it; help: Pearson delta with it less without it. {OTHER_CONTROLS}"
)


@dataclass(frozen=True)
class Ablated:
    """Mean predicted cells of one condition with its neighbours switched off in turn; G genes, K neighbours.

    Attributes
    ----------
    cell_line, perturbation
        The condition.
    neighbours
        Names of the candidates, most similar first.
    similarity
        Cosine of each with the query, `[K]`.
    inclusion
        Mean weight of each over the cells, with all neighbours there, `[K]`.
    cells
        Number of cells predicted; every variant starts from the same ones.
    whole, without_any
        Mean of the predicted cells with all neighbours and with none, `[G]`.
    without_one
        The same without each neighbour, `[K, G]`.
    real, control
        Mean of the condition's real cells and of the cell line's real controls, `[G]`.
    """

    cell_line: str
    perturbation: str
    neighbours: tuple[str, ...]
    similarity: np.ndarray
    inclusion: np.ndarray
    cells: int
    whole: np.ndarray
    without_one: np.ndarray
    without_any: np.ndarray
    real: np.ndarray
    control: np.ndarray


def ablation_table(conditions: Sequence[Ablated]) -> pd.DataFrame:
    """Return what changes when a neighbour is switched off.

    All effects are against the mean of the real controls, as in the metric Pearson delta.

    Returns
    -------
    pandas.DataFrame
        One row per condition and neighbour, and one per condition, named `(all neighbours)`, without any:
        `cell_line`, `perturbation`, `neighbour`, `rank` (1 is most similar), `similarity`, `inclusion`, `cells`;
        `change`, the Euclidean length of the change of the predicted mean effect; `relative_change`, that divided by
        the length of the whole predicted effect; `correlation`, Pearson's between the predicted effects with and
        without; `pearson_delta` and `pearson_delta_without`, the agreement with the real effect; and `help`, the
        first less the second: above 0 where the neighbour brings the prediction nearer to the real effect.
    """
    tables = []
    for one in conditions:
        without = np.vstack([one.without_one, one.without_any]) - one.control
        whole, real = one.whole - one.control, one.real - one.control
        change = np.linalg.norm(without - whole, axis=1)
        length = float(np.linalg.norm(whole))
        agreement = float(pearson(real[None], whole[None])[0])
        left = pearson(np.broadcast_to(real, without.shape), without)
        k = len(one.neighbours)
        tables.append(
            pd.DataFrame(
                {
                    "cell_line": one.cell_line,
                    "perturbation": one.perturbation,
                    "neighbour": [*one.neighbours, ALL],
                    "rank": pd.array([*range(1, k + 1), None], dtype="Int64"),
                    "similarity": [*one.similarity, np.nan],
                    "inclusion": [*one.inclusion, np.nan],
                    "cells": one.cells,
                    "change": change,
                    "relative_change": change / length if length else np.nan,
                    "correlation": pearson(np.broadcast_to(whole, without.shape), without),
                    "pearson_delta": agreement,
                    "pearson_delta_without": left,
                    "help": agreement - left,
                }
            )
        )
    return pd.concat(tables, ignore_index=True)


def summarise(table: pd.DataFrame) -> dict[str, Any]:
    """Return headline numbers of an `ablation_table`, as JSON can hold them."""
    single, none = table[table["neighbour"] != ALL], table[table["neighbour"] == ALL]
    summary: dict[str, Any] = {
        "conditions": len(none),
        "neighbours": len(single),
        "pearson_delta_with_all": _number(none["pearson_delta"].mean()),
        "pearson_delta_with_none": _number(none["pearson_delta_without"].mean()),
        "p_wilcoxon_all_against_none": _number(_wilcoxon(none)),
        "relative_change_without_one": _number(single["relative_change"].mean()),
        "relative_change_without_any": _number(none["relative_change"].mean()),
        "share_that_helps": _number((single["help"].dropna() > 0).mean()),
        "mean_help_of_one": _number(single["help"].mean()),
    }
    for column in ("inclusion", "similarity", "agreement"):
        if column in single:
            summary[f"spearman_of_change_and_{column}"] = _within(single, "change", column)
            summary[f"spearman_of_help_and_{column}"] = _within(single, "help", column)
    if "relation" in single:
        summary["mean_help_by_relation"] = {
            str(name): _number(value) for name, value in single.groupby("relation")["help"].mean().items()
        }
    return summary


def describe(summary: dict[str, Any]) -> list[str]:
    """Return the headline numbers as lines of text."""
    tested = ""
    if summary["conditions"] > 1:
        tested = f" (paired Wilcoxon p = {_text(summary['p_wilcoxon_all_against_none'], '.2g')})"
    lines = [
        f"Neighbours switched off: {summary['neighbours']}, one by one, in {summary['conditions']} "
        f"condition{'s' if summary['conditions'] > 1 else ''}.",
        f"Without one neighbour the predicted effect moves by {_percent(summary['relative_change_without_one'])} of "
        f"its length on average, without any by {_percent(summary['relative_change_without_any'])}.",
        f"Pearson delta: {_text(summary['pearson_delta_with_all'])} with all neighbours, "
        f"{_text(summary['pearson_delta_with_none'])} with none{tested}; {_percent(summary['share_that_helps'])} of "
        "single neighbours bring the prediction nearer to the real effect.",
    ]
    for column, what in (("inclusion", "inclusion"), ("agreement", "agreement of its true effect with the query's")):
        change, helps = (summary.get(f"spearman_of_{name}_and_{column}") for name in ("change", "help"))
        if change is not None or helps is not None:
            lines.append(
                f"Spearman correlation within conditions of a neighbour's {what}: with the change it makes "
                f"{_text(change)}, with its help {_text(helps)}."
            )
    for name, value in summary.get("mean_help_by_relation", {}).items():
        lines.append(f"mean help, {name}: {_text(value, '+.4f')}")
    return lines


def shown_rows(table: pd.DataFrame, *, whole: bool, at_most: int = 15) -> list[tuple[str, pd.DataFrame]]:
    """Return what to print: each condition whole, or the neighbours that change their prediction most; with titles."""
    if not whole:
        single = table[table["neighbour"] != ALL]
        rows = single.sort_values("relative_change", ascending=False, kind="stable").head(at_most)
        lines = sorted(set(rows["cell_line"]))
        where = f" in {lines[0]}" if len(lines) == 1 else ""
        return [(f"The {len(rows)} of {len(single)} neighbours that change their prediction most{where}", rows)]
    parts = []
    for (line, name), rows in table.groupby(["cell_line", "perturbation"]):
        agreement = _text(_number(rows["pearson_delta"].iloc[0]))
        parts.append((f"{name} in {line}: Pearson delta {agreement} with all neighbours", rows))
    return parts


def _within(table: pd.DataFrame, first: str, second: str) -> float | None:
    values = spearman_within_conditions(table, first, second)
    return _number(np.mean(values)) if values else None


def _wilcoxon(none: pd.DataFrame) -> float:
    both = none.dropna(subset=["pearson_delta", "pearson_delta_without"])
    if both.empty:
        return float("nan")
    return float(paired_wilcoxon(both["pearson_delta"].to_numpy(), both["pearson_delta_without"].to_numpy()))


def _number(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None


def _text(value: float | None, form: str = ".3f") -> str:
    return "unknown" if value is None else format(value, form)


def _percent(value: float | None) -> str:
    return "unknown" if value is None else f"{100 * value:.1f} %"
