"""The report's chosen conditions, the same for every run: real against predicted effects, and maps of cells."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from state_rag.effects.conditions import open_pair
from state_rag.errors import StateRagError
from state_rag.evaluation.results import load_profiles
from state_rag.evaluation.runs import Run, predicted_matrix
from state_rag.metrics.registry import BY_NAME
from state_rag.names import listing, suggest
from state_rag.plot import figures
from state_rag.plot.cell_maps import cell_maps
from state_rag.report.page import Report
from state_rag.run_folders import PREDICTED, REAL

logger = logging.getLogger(__name__)
CHOSEN_AT = (0.9, 0.5, 0.1)
Condition = tuple[str, str]
"""A cell line and a perturbation."""


def choose_conditions(table: pd.DataFrame, wanted: Sequence[str] | None) -> list[Condition]:
    """Return the conditions to draw: those wanted, in every cell line that has them, or a good, a middling, a poor one.

    Parameters
    ----------
    table
        The reference's values, of conditions that every run has.
    wanted
        Perturbations; by default those at the 90th, 50th and 10th percentile of Pearson delta are taken.

    Raises
    ------
    StateRagError
        If a wanted perturbation is not there.
    """
    if wanted:
        refuse_unknown(wanted, table["perturbation"])
        rows = pd.concat([table[table["perturbation"] == name] for name in dict.fromkeys(wanted)])
    elif "pearson_delta" not in table:
        return []
    else:
        ranked = table.dropna(subset=["pearson_delta"]).sort_values("pearson_delta", kind="stable")
        places = [round(share * (len(ranked) - 1)) for share in CHOSEN_AT] if len(ranked) else []
        rows = ranked.iloc[list(dict.fromkeys(places))]
    return list(rows[["cell_line", "perturbation"]].itertuples(index=False, name=None))


def refuse_unknown(wanted: Sequence[str], predicted: Iterable[str]) -> None:
    """Refuse a wanted perturbation that is not among those predicted.

    Raises
    ------
    StateRagError
        With close spellings.
    """
    known = sorted(set(predicted))
    if missing := [name for name in wanted if name not in known]:
        raise StateRagError(
            f"--perturbations: '{missing[0]}' was not predicted by every run"
            f"{suggest(missing[:1], known)}; predicted are {listing(known)}"
        )


def why_none(table: pd.DataFrame) -> str:
    """Return why no condition was chosen of a table."""
    why = (
        "it has no value in any of them"
        if "pearson_delta" in table
        else "it is not among the metrics shown (add pearson_delta to --metrics)"
    )
    return f"None are drawn: they are chosen by {BY_NAME['pearson_delta'].label}, and {why}; or name --perturbations."


def draw_conditions(
    report: Report, runs: Mapping[str, tuple[Run, Path]], chosen: Sequence[Condition], how: str
) -> None:
    """Draw effects and cells of the same conditions for every run.

    Parameters
    ----------
    report
        The page.
    runs
        Name to run and results folder.
    chosen
        From `choose_conditions`.
    how
        In words, how they were chosen.
    """
    for name, (run, results) in runs.items():
        if chosen:
            report.heading(f"{name}: chosen conditions")
            _effects(report, name, results, chosen, how)
            _cells(report, name, run, chosen)


def _effects(report: Report, name: str, results: Path, chosen: Sequence[Condition], how: str) -> None:
    profiles, _ = load_profiles(results)
    panels, undefined = [], []
    for of_line, perturbation in chosen:
        line = profiles[of_line]
        place = line.perturbations.index(perturbation)
        real, predicted = line.real[place] - line.control, line.predicted[place] - line.control
        if np.isfinite(real).all() and np.isfinite(predicted).all():
            panels.append((f"{perturbation} in {of_line}", real, predicted, line.degs[place]))
        else:
            undefined.append(f"{perturbation} in {of_line}")
    if panels:
        report.picture(
            report.file_name("effects", name),
            figures.effect_scatters(panels),
            f"Mean effect of each gene against the real control, conditions {how}. Dashed: perfect prediction.",
        )
    if undefined:
        report.note(f"Not drawn, since cells hold NaN or infinity: {', '.join(undefined)}.")


def _cells(report: Report, name: str, run: Run, chosen: Sequence[Condition]) -> None:
    pair = open_pair(run.predictions / PREDICTED, run.predictions / REAL, run.columns, matrix=predicted_matrix(run))
    lines = list(dict.fromkeys(line for line, _ in chosen))
    for line in lines:
        perturbations = [perturbation for of_line, perturbation in chosen if of_line == line]
        for drawn in cell_maps(pair, line, perturbations):
            file = report.file_name(drawn.name, name, *([line] if len(lines) > 1 else []))
            report.picture(file, drawn.figure, drawn.caption)
