"""`retrieval_info.csv` of an evidence run: which perturbations each prediction draws on, in the form of other runs."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from state_rag.engine.folder import EvidenceRun
from state_rag.engine.held_out import HeldOutCells
from state_rag.errors import StateRagError
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
SHOWN = 32
"""Perturbations named in a row at most."""

Moments = dict[tuple[str, str], WelchMoments]
"""Of the real cells, by cell line and perturbation, the controls among them."""


def note_moments(moments: Moments, line: str, perturbation: str, cells: np.ndarray) -> None:
    """Add real cells [n, G] of a condition."""
    moments.setdefault((line, perturbation), WelchMoments(cells.shape[1])).add(cells)


def write_retrieved(
    run: EvidenceRun, groups: Sequence[HeldOutCells], path: Path, moments: Moments, genes: Sequence[str]
) -> None:
    """Write a row a predicted cell.

    Parameters
    ----------
    run
        The run.
    groups
        What was predicted.
    path
        The file.
    moments
        Of the real cells, for their differential genes.
    genes
        G names.
    """
    control = run.data["control_pert"]
    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(COLUMNS)
        for group in groups:
            for name, rows in group.conditions.items():
                text, chosen, count = _retrieved(run, group.line, name)
                degs = _differential(moments, group.line, name, control, genes)
                row = [group.line, name, text, "|".join(chosen) or "none", len(chosen), count]
                writer.writerows([[*row, "|".join(degs[:LISTED]), len(degs)]] * len(rows))


def _differential(
    moments: Mapping[tuple[str, str], WelchMoments], line: str, name: str, control: str, genes: Sequence[str]
) -> list[str]:
    own, others = moments.get((line, name)), moments.get((line, control))
    return [] if own is None or others is None else differential_names(own, others, genes)


def _retrieved(run: EvidenceRun, line: str, name: str) -> tuple[str, list[str], int]:
    """Return the perturbations with the largest weights, those with half of the largest or more, and how many."""
    try:
        found = run.engine.explain(line, name)
    except StateRagError:  # nothing is known of it
        return "", [], 0
    weights: dict[str, float] = {}
    for (_, other), weight in zip(found.conditions, np.abs(found.weights).tolist(), strict=True):
        weights[other] = weights.get(other, 0.0) + weight
    largest = max(weights.values(), default=0.0) or 1.0
    ranked = sorted(weights, key=lambda other: -weights[other])[:SHOWN]
    text = "|".join(f"{other}(w={weights[other] / largest:.2f})" for other in ranked)
    return text, [other for other in ranked if weights[other] > largest / 2], len(ranked)
