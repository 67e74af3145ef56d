"""Whether the genes that predictions call do change: by Welch's test on the real cells, beside naive callers.

What changes is told as it was for the training conditions: false discovery rate .05 within a condition.
"""

import logging
from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from anndata.io import read_elem

from state_rag.effects.conditions import Pair
from state_rag.effects.line_profiles import LineProfiles
from state_rag.engine.called import FREQUENCY, LAYER, calls_file, read_calls
from state_rag.files import atomic_path
from state_rag.metrics.degs import WelchMoments, changes, moments_of
from state_rag.metrics.significance import paired_wilcoxon
from state_rag.progress import track
from state_rag.run_folders import PREDICTED

logger = logging.getLogger(__name__)

PRECISION, LISTS, CONDITIONS = "gene_calls_precision.csv", "gene_calls_lists.csv", "gene_calls_conditions.csv"
"""What is written beside the results."""

CALLERS = ("probability", "size of the predicted effect", "gene frequency")
"""Ways to rank genes: the prediction's own, and two naive ones."""

LEVELS = (0.05, 0.1)
"""False discovery rates whose lists are judged; `gene_calls.csv` ends at the last."""

READ_ROWS = 4096


def write_called_genes(
    pair: Pair, profiles: Mapping[str, LineProfiles], predictions: Path, folder: Path, *, progress: bool = False
) -> bool:
    """Write the tables beside the results; tell whether predictions say which genes change.

    Parameters
    ----------
    pair
        Predicted and real cells.
    profiles
        Of each evaluated line.
    predictions
        Their folder.
    folder
        Of the results; what an earlier evaluation wrote of this is removed.
    progress
        Whether to show a progress bar.
    """
    for stale in (PRECISION, LISTS, CONDITIONS):
        (folder / stale).unlink(missing_ok=True)
    path = calls_file(predictions)
    if path is None or not _says(predictions / PREDICTED):
        return False
    called = _called(read_calls(path))
    rows: list[dict[str, object]] = []
    truths, scores, lists = [], [], []
    with h5py.File(predictions / PREDICTED) as file:
        layer, frequencies = file[f"layers/{LAYER}"], read_elem(file["varm"])[FREQUENCY]
        order = slice(None) if pair.gene_order is None else pair.gene_order
        for line, conditions in pair.lines.items():
            control = _moments(pair, pair.controls[line][0])
            place = {name: number for number, name in enumerate(profiles[line].perturbations)}
            often = frequencies[line].to_numpy()[order]
            for condition in track(conditions, f"{line}: called genes", disable=not progress):
                name = condition.perturbation
                truth = changes(_moments(pair, condition.real), control)
                probability = layer[int(condition.predicted[0])][order].astype(np.float64)
                if np.isnan(truth).any() or np.isnan(probability).any():
                    continue
                effect = profiles[line].predicted[place[name]] - profiles[line].own_control
                own = called.get((line, name), {})
                rates = np.array([own.get(gene, 1.0) for gene in pair.features])
                scores.append(np.stack([probability, np.abs(effect), often]).astype(np.float32))
                truths.append(truth.astype(np.int8))
                lists.append((rates.astype(np.float32), np.sign(effect).astype(np.int8)))
                rows.append({"context": line, "perturbation": name, **_precisions(truth != 0, scores[-1])})
    if not rows:
        return False
    truth = np.stack(truths)
    folder.mkdir(parents=True, exist_ok=True)
    tables = {
        CONDITIONS: pd.DataFrame(rows),
        PRECISION: _compared(pd.DataFrame(rows), truth != 0, np.stack(scores, 1)),
        LISTS: _judged(truth, *map(np.stack, zip(*lists, strict=True))),
    }
    for name, table in tables.items():
        with atomic_path(folder / name) as temporary:
            table.to_csv(temporary, index=False)
    logger.info("%s", in_words(tables[PRECISION], tables[LISTS]))
    return True


def in_words(precision: pd.DataFrame, lists: pd.DataFrame) -> str:
    """Return sentences on both tables."""
    ours, size, frequency = (f"{value:.3f}" for value in precision["average_precision"])
    said = (
        f"Called genes, {int(precision['conditions'].iloc[0])} conditions with changes: average precision {ours}, by "
        f"the size of the predicted effect {size}, by how often a gene changes {frequency}."
    )
    for row in lists.itertuples():
        found = f"{100 * row.false:.0f} % of {row.called} called genes" if row.called else "none called"
        said += f" At a false discovery rate of {row.fdr:g}: {found}{' do not change' if row.called else ''}."
    return said


def _says(path: Path) -> bool:
    if not path.is_file():
        return False
    with h5py.File(path) as file:
        return f"layers/{LAYER}" in file and f"varm/{FREQUENCY}" in file


def _called(table: pd.DataFrame) -> dict[tuple[str, str], dict[str, float]]:
    """Return the false discovery rate of each called gene, by condition."""
    keys = ["context", "perturbation"]
    return {
        (str(line), str(name)): dict(zip(part["gene"], part["fdr"], strict=True))
        for (line, name), part in table.groupby(keys, sort=False)
    }


def _moments(pair: Pair, rows: np.ndarray) -> WelchMoments:
    return moments_of(pair.read_real(rows[start : start + READ_ROWS]) for start in range(0, len(rows), READ_ROWS))


def _precisions(changed: np.ndarray, scores: np.ndarray) -> dict[str, object]:
    found = {name: _precision(changed, one) for name, one in zip(CALLERS, scores, strict=True)}
    return {"changed": int(changed.sum()), **found}


def _precision(changed: np.ndarray, scores: np.ndarray) -> float:
    """Return the average precision; NaN where nothing changes."""
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(changed, scores)) if changed.any() else np.nan


def _compared(conditions: pd.DataFrame, changed: np.ndarray, scores: np.ndarray) -> pd.DataFrame:
    """Return a row a caller: mean average precision, its test against the first, and that over all genes together."""
    own = conditions[CALLERS[0]].to_numpy()
    rows = []
    for name, values in zip(CALLERS, scores, strict=True):
        of_name = conditions[name].to_numpy()
        rows.append(
            {
                "caller": name,
                "conditions": int(np.isfinite(of_name).sum()),
                "average_precision": float(np.nanmean(of_name)) if np.isfinite(of_name).any() else np.nan,
                "p_against_probability": np.nan if name == CALLERS[0] else paired_wilcoxon(own, of_name),
                "all_together": _precision(changed.ravel(), values.ravel()),
            }
        )
    return pd.DataFrame(rows)


def _judged(truth: np.ndarray, rates: np.ndarray, direction: np.ndarray) -> pd.DataFrame:
    """Return a row a level: how many are called, which share does not change or changes the other way, and recall."""
    rows = []
    for level in LEVELS:
        called = rates <= np.float32(level)
        count = int(called.sum())
        of_called = truth[called]
        rows.append(
            {
                "fdr": level,
                "called": count,
                "false": float((of_called == 0).mean()) if count else np.nan,
                "other_direction": float((of_called * direction[called] < 0).mean()) if count else np.nan,
                "recall": float(called[truth != 0].mean()) if truth.any() else np.nan,
            }
        )
    return pd.DataFrame(rows)
