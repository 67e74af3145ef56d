"""Read a finished evaluation back: GGE's `results.csv`, `summary.json`, `per_gene_*.csv`, and two files of ours.

These are `baselines.csv`, laid out like `results.csv` with a column `predictor`, and `profiles.npz` with the mean
profiles that plots are drawn from. `save` writes them.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from state_rag.csv_tables import read_csv_table
from state_rag.effects.line_profiles import LineProfiles
from state_rag.errors import StateRagError
from state_rag.files import damage_told
from state_rag.metrics.registry import BY_NAME, Metric

SUMMARY = "summary.json"
"""The file that makes a results folder complete."""
PROFILES = "profiles.npz"
AGAIN = "Evaluate again with --force."


def load_summary(folder: Path) -> dict[str, Any]:
    """Read back the summary of a finished evaluation."""
    with damage_told(folder / SUMMARY, AGAIN):
        summary: dict[str, Any] = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
        if not isinstance(summary["metadata"], dict):
            raise ValueError("no metadata")
    return summary


def load_table(path: Path, words: Iterable[str] = ()) -> pd.DataFrame:
    """Read back a table of an evaluation; `words` are the columns of text."""
    return read_csv_table(path, words, remedy=AGAIN)


def load_tables(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, Any]]:
    """Read back the model's rows, the baselines' rows and the summary."""
    if not (folder / SUMMARY).is_file():
        raise StateRagError(f"{folder}: no finished evaluation here; make one with `state-rag evaluate`")
    summary = load_summary(folder)
    words = ("predictor", "perturbation", "cell_line", "condition_key", *summary.get("condition_columns", ()))
    model, baselines = (load_table(folder / name, words) for name in ("results.csv", "baselines.csv"))
    return model, baselines, summary


def definitions(folders: list[Path]) -> dict[str, Metric]:
    """Return the metrics that all of the evaluations have, by name, those that are not in the registry included."""
    found: dict[str, Metric] | None = None
    for folder in folders:
        summary = load_summary(folder)
        here = {
            name: BY_NAME.get(name) or Metric(name, entry["label"], entry["higher_is_better"], "raw", "genes", _stored)
            for name, entry in summary["metadata"]["definitions"].items()
        }
        found = here if found is None else {name: metric for name, metric in found.items() if name in here}
    return found or {}


def _stored(*_: Any) -> float:
    raise TypeError("this metric was read from a finished evaluation; it cannot be computed again")


def load_profiles(folder: Path) -> tuple[dict[str, LineProfiles], list[str]]:
    """Read back the mean profiles per cell line and the gene names."""
    path = folder / PROFILES
    if not path.is_file():
        raise StateRagError(f"{path}: no such file; run `state-rag evaluate --force` once more")
    with damage_told(path, AGAIN), np.load(path, allow_pickle=False) as stored:
        lines = [str(line) for line in stored["lines"]]
        names = ("real", "predicted", "degs", "control", "own_control")
        profiles = {
            line: LineProfiles(
                [str(name) for name in stored[f"{number}/perturbations"]],
                **{name: stored[f"{number}/{name}"] for name in names},
            )
            for number, line in enumerate(lines)
        }
        return profiles, [str(name) for name in stored["features"]]
