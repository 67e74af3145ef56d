"""`retrieval_info.csv` of an evidence run: which perturbations each prediction draws on, in the form of other runs."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from state_rag.engine.held_out import HeldOutCells
from state_rag.files import atomic_path
from state_rag.metrics.degs import LISTED, WelchMoments, differential_names

COLUMNS = (
    "cell_type",
    "pert_name",
    "retrieved_perturbations",
    "selected_perturbations",
    "n_selected",
    "n_retrieved",
    "degs",
    "n_degs",
)
SOURCES = "retrieved_sources"
"""A further column of networks with several sources: those that proposed each retrieved perturbation, `a|b+a|...`."""
SELECTED_ABOVE = 0.5
"""Weight, relative to the largest, above which a perturbation counts as selected."""

Neighbours = Mapping[tuple[str, str], Sequence[tuple[str, float]]]

Moments = dict[tuple[str, str], WelchMoments]
"""Of the real cells, by cell line and perturbation, the controls among them."""


def note_moments(moments: Moments, line: str, perturbation: str, cells: np.ndarray) -> None:
    """Add real cells [n, G] of a condition."""
    moments.setdefault((line, perturbation), WelchMoments(cells.shape[1])).add(cells)


def write_retrieved(
    groups: Sequence[HeldOutCells],
    neighbours: Neighbours,
    path: Path,
    moments: Moments,
    genes: Sequence[str],
    control: str,
) -> None:
    """Write a row a predicted cell.

    Parameters
    ----------
    groups
        What was predicted.
    neighbours
        What each prediction draws on (`evidence.prediction.Prediction.neighbours`), by cell line and perturbation.
    path
        The file.
    moments
        Of the real cells, for their differential genes.
    genes
        G names.
    control
        Label of control cells.
    """
    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(COLUMNS)
        for group in groups:
            for name, rows in group.conditions.items():
                heaviest = neighbours[group.line, name]
                text = "|".join(f"{other}(w={weight:.2f})" for other, weight in heaviest)
                chosen = [other for other, weight in heaviest if weight > SELECTED_ABOVE]
                degs = _differential(moments, group.line, name, control, genes)
                row = [group.line, name, text, "|".join(chosen) or "none", len(chosen), len(heaviest)]
                writer.writerows([[*row, "|".join(degs[:LISTED]), len(degs)]] * len(rows))


def _differential(
    moments: Mapping[tuple[str, str], WelchMoments], line: str, name: str, control: str, genes: Sequence[str]
) -> list[str]:
    own, others = moments.get((line, name)), moments.get((line, control))
    return [] if own is None or others is None else differential_names(own, others, genes)
