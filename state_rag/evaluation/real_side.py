"""Were two evaluations scored on the same real cells? If not, their values may not stand in one table."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from state_rag.errors import StateRagError
from state_rag.evaluation.evaluate import MODEL, Evaluation
from state_rag.evaluation.results import AGAIN, PROFILES, load_summary, load_tables
from state_rag.files import damage_told
from state_rag.metrics.row_blocks import row_blocks

MADE_UP = "feature_"
"""How genes are called where their names are not known; such names say nothing."""
RTOL, ATOL = 1e-4, 1e-6
"""Means of the same cells differ by rounding where predictions were written in another order."""


def real_side(evaluation: Evaluation) -> dict[str, Any]:
    """Return what identifies the real cells of an evaluation, for its summary.

    Returns
    -------
    dict
        `n_genes`, and digests: `genes` (None where names are not known), `cells` (number of real cells of each
        condition), `control` (mean real control of each cell line, float32) and `conditions` (mean real profiles,
        float32).
    """
    model = evaluation.table[evaluation.table["predictor"] == MODEL]
    rows = model[["cell_line", "perturbation", "n_real"]].astype(str).to_numpy()
    control, conditions = hashlib.sha256(), hashlib.sha256()
    for line, profiles in evaluation.profiles.items():
        control.update(line.encode() + np.asarray(profiles.control, dtype=np.float32).tobytes())
        conditions.update("\n".join([line, *profiles.perturbations]).encode())
        for some in row_blocks(len(profiles.real)):
            conditions.update(np.ascontiguousarray(profiles.real[some], dtype=np.float32).tobytes())
    known = not all(name.startswith(MADE_UP) for name in evaluation.features)
    return {
        "n_genes": len(evaluation.features),
        "genes": _digest(evaluation.features) if known else None,
        "cells": _digest(sorted("\t".join(row) for row in rows)),
        "control": control.hexdigest()[:16],
        "conditions": conditions.hexdigest()[:16],
    }


def refuse_other_real_cells(folders: Mapping[str, Path], reference: str, where: str = "") -> None:
    """Refuse evaluations whose real cells are not those of the reference.

    Only conditions that both have are compared, and means to rounding, as far as the folders' files tell.

    Parameters
    ----------
    folders
        Run to results folder.
    reference
        Whom the others are compared with.
    where
        Added to their names.

    Raises
    ------
    StateRagError
        Naming the run, what differs, where, and the next step.
    """
    for name, folder in folders.items():
        if name != reference and (what := difference(folders[reference], folder)):
            raise StateRagError(
                f"{name} and {reference}{where} were scored on different real data, so their values cannot be "
                f"compared: {what}. Predict both from the same data file with the same data.kwargs (embed_key, "
                "output_space), both with or both without --pseudobulk, or compare them apart"
            )


def difference(first: Path, second: Path) -> str:
    """Return what differs between the real sides of two evaluations, the second's first; empty where nothing does."""
    one, other = _summary(first), _summary(second)
    identity = one["metadata"].get("real")
    if identity is not None and identity == other["metadata"].get("real"):
        return ""
    rows = [_rows(summary) for summary in (other, one)]
    if rows[0] != rows[1]:
        return f"{rows[0]} against {rows[1]}"
    if one.get("n_genes") != other.get("n_genes"):
        return f"{other.get('n_genes')} genes against {one.get('n_genes')}"
    profiles = _Profiles.read(first), _Profiles.read(second)
    parts = [_of_names(*profiles), _of_counts(_real_cells(first), _real_cells(second)), *_of_means(*profiles)]
    return "; ".join(part for part in parts if part)


def _rows(summary: dict[str, Any]) -> str:
    """Return in words what the files' rows are."""
    return "pseudobulks (--pseudobulk)" if summary["metadata"].get("notes", {}).get("pseudobulk") else "single cells"


def _summary(folder: Path) -> dict[str, Any]:
    return load_summary(folder)


def _real_cells(folder: Path) -> pd.Series:
    """Return the number of real cells by condition, as far as it is known."""
    model = load_tables(folder)[0].set_index(["cell_line", "perturbation"])
    return model["n_real_samples"] if "n_real_samples" in model else pd.Series(dtype=int)


@dataclass
class _Profiles:
    """Mean real profiles by cell line and perturbation, with the control's under None, and the genes' names."""

    means: dict[tuple[str, str | None], np.ndarray]
    genes: list[str]

    @classmethod
    def read(cls, folder: Path) -> "_Profiles":
        if not (folder / PROFILES).is_file():
            return cls({}, [])
        return cls(dict(_means(folder / PROFILES)), _genes(folder / PROFILES))


def _means(path: Path) -> Iterator[tuple[tuple[str, str | None], np.ndarray]]:
    with damage_told(path, AGAIN), np.load(path, allow_pickle=False) as stored:
        for number, line in enumerate(map(str, stored["lines"])):
            yield (line, None), stored[f"{number}/control"]
            for name, row in zip(stored[f"{number}/perturbations"], stored[f"{number}/real"], strict=True):
                yield (line, str(name)), row


def _genes(path: Path) -> list[str]:
    with damage_told(path, AGAIN), np.load(path, allow_pickle=False) as stored:
        return [str(name) for name in stored["features"]]


def _of_names(one: _Profiles, other: _Profiles) -> str:
    differing = [
        (mine, theirs)
        for mine, theirs in zip(one.genes, other.genes, strict=False)
        if mine != theirs and not (mine.startswith(MADE_UP) or theirs.startswith(MADE_UP))
    ]
    if not differing:
        return ""
    mine, theirs = differing[0]
    return f"{len(differing)} of {len(one.genes)} genes are others ({theirs} in place of {mine}, ...)"


def _of_counts(one: pd.Series, other: pd.Series) -> str:
    shared = one.index.intersection(other.index)
    differing = [key for key in shared if one[key] != other[key]]
    if not differing:
        return ""
    line, name = first = differing[0]
    return f"{name} in {line} has {other[first]} real cells against {one[first]}{_and_more(len(differing))}"


def _of_means(one: _Profiles, other: _Profiles) -> Iterator[str]:
    """Say whether controls, and whether conditions, have other means."""
    for what, is_kind in (("real controls", lambda name: name is None), ("real cells", lambda name: name is not None)):
        differing = [
            (key, mean, other.means[key])
            for key, mean in one.means.items()
            if is_kind(key[1]) and key in other.means and not _close(mean, other.means[key])
        ]
        if differing:
            (line, name), mine, theirs = differing[0]
            gene = int(np.nanargmax(np.abs(np.nan_to_num(mine) - np.nan_to_num(theirs))))
            of = f"{what} of {line}" if name is None else f"{what} of {name} in {line}"
            yield (
                f"the {of} have other means ({one.genes[gene]}: {theirs[gene]:.4g} against {mine[gene]:.4g})"
                + _and_more(len(differing))
            )


def _close(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and np.allclose(a, b, rtol=RTOL, atol=ATOL, equal_nan=True)


def _and_more(count: int) -> str:
    return f", and {count - 1} more such differences" if count > 1 else ""


def _digest(texts: list[str]) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]
