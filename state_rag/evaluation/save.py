"""Write an evaluation in GGE's layout; `results` says which files, and reads them back."""

import json
import zipfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from state_rag import __version__
from state_rag.effects.conditions import Columns
from state_rag.effects.line_profiles import LineProfiles
from state_rag.errors import StateRagError
from state_rag.evaluation.evaluate import MODEL, Evaluation
from state_rag.evaluation.real_side import real_side
from state_rag.evaluation.results import PROFILES, SUMMARY
from state_rag.files import atomic_path
from state_rag.metrics.row_blocks import row_blocks
from state_rag.names import suggest

PER_GENE = {
    "mse": lambda profiles: np.square(profiles.real - profiles.predicted),
    "mae": lambda profiles: np.abs(profiles.real - profiles.predicted),
    "delta_real": lambda profiles: profiles.real - profiles.control,
    "delta_predicted": lambda profiles: profiles.predicted - profiles.control,
}
SPLIT = "test"
TABLE_VALUES = 2**20


def save_evaluation(
    evaluation: Evaluation,
    folder: Path,
    columns: Columns,
    *,
    metadata: dict[str, Any] | None = None,
    per_gene: tuple[str, ...] = ("mse",),
) -> None:
    """Write an evaluation; `summary.json` comes last, so that a folder that has it is complete.

    Parameters
    ----------
    evaluation
        Result of `evaluate_pair`.
    folder
        Where to; made if missing.
    columns
        Names in `obs`, which become the covariate columns.
    metadata
        Anything to add to the summary's `metadata`.
    per_gene
        Which of `mse`, `mae`, `delta_real`, `delta_predicted` to write as `per_gene_<name>.csv` (genes x conditions).
    """
    check_per_gene(per_gene)
    folder.mkdir(parents=True, exist_ok=True)
    for stale in (SUMMARY, *(f"per_gene_{name}.csv" for name in PER_GENE if name not in per_gene)):
        (folder / stale).unlink(missing_ok=True)
    table = _gge_columns(evaluation.table, columns, len(evaluation.features))
    is_model = table["predictor"] == MODEL
    with atomic_path(folder / "results.csv") as path:
        table[is_model].drop(columns="predictor").to_csv(path, index=False)
    with atomic_path(folder / "baselines.csv") as path:
        table[~is_model].to_csv(path, index=False)
    for name in per_gene:
        _save_per_gene(evaluation, name, folder)
    _save_profiles(evaluation, folder)
    summary = _summary(evaluation, table[is_model], columns, metadata or {})
    with atomic_path(folder / SUMMARY) as path:
        path.write_text(json.dumps(summary, indent=2) + "\n")


def check_per_gene(names: tuple[str, ...]) -> None:
    """Refuse names of per-gene tables that do not exist."""
    if unknown := [name for name in names if name not in PER_GENE]:
        close = suggest(unknown[:1], PER_GENE)
        raise StateRagError(f"--per-gene: no table '{unknown[0]}'{close}; choose from {', '.join(PER_GENE)}")


def _gge_columns(table: pd.DataFrame, columns: Columns, genes: int) -> pd.DataFrame:
    """Return the table with the leading columns of GGE's `results.csv`."""
    head = pd.DataFrame(
        {
            "predictor": table["predictor"],
            "condition_key": table["perturbation"] + "####" + table["cell_line"],
            "split": SPLIT,
            "perturbation": table["perturbation"],
            "n_real_samples": table["n_real"],
            "n_generated_samples": table["n_predicted"],
            "n_genes": genes,
        }
    )
    covariates = {
        columns.perturbation: table["perturbation"],
        columns.cell_line: table["cell_line"],
        "cell_line": table["cell_line"],
    }
    for name, values in covariates.items():
        if name not in head:
            head[name] = values
    metrics = table.drop(columns=["predictor", "perturbation", "cell_line", "n_real", "n_predicted"])
    return pd.concat([head, metrics], axis=1)


def _summary(evaluation: Evaluation, model: pd.DataFrame, columns: Columns, metadata: dict[str, Any]) -> dict[str, Any]:
    aggregates: dict[str, float | None] = {}
    for metric in evaluation.metrics:
        values = model[metric.name].dropna()
        for name, value in (("mean", values.mean()), ("std", values.std(ddof=0)), ("median", values.median())):
            aggregates[f"{metric.name}_{name}"] = float(value) if len(values) else None
    return {
        "n_splits": 1,
        "n_genes": len(evaluation.features),
        "condition_columns": [columns.perturbation, columns.cell_line],
        "splits": {SPLIT: {"n_conditions": len(model), "aggregates": aggregates}},
        "metadata": {
            "written_by": f"state-rag {__version__}",
            "metric_names": [metric.name for metric in evaluation.metrics],
            "spaces": {
                "genes": "as predicted",
                "degs": "fitted per condition on real cells against the real controls of the cell line",
                "pca": "fitted once per cell line on all its real cells, controls included",
                "fitted_on_cells": {line: space.n_cells for line, space in evaluation.spaces.items()},
            },
            "definitions": {
                metric.name: {"label": metric.label, "higher_is_better": metric.higher_is_better, "space": metric.space}
                for metric in evaluation.metrics
            },
            "settings": asdict(evaluation.settings),
            "real": real_side(evaluation),
            "notes": evaluation.notes,
            **metadata,
        },
    }


def _save_per_gene(evaluation: Evaluation, name: str, folder: Path) -> None:
    """Write genes x conditions, GGE's orientation; column names are `<split>_<condition key>`."""
    heads = [
        f"{SPLIT}_{perturbation}####{line}"
        for line, profiles in evaluation.profiles.items()
        for perturbation in profiles.perturbations
    ]
    genes = len(evaluation.features)
    with atomic_path(folder / f"per_gene_{name}.csv") as path, open(path, "w", encoding="utf-8") as stream:
        for some in row_blocks(genes, max(1, TABLE_VALUES // len(heads))):
            block = np.concatenate(
                [
                    PER_GENE[name](_part(profiles, rows))[:, some].T
                    for profiles in evaluation.profiles.values()
                    for rows in row_blocks(len(profiles.perturbations))
                ],
                axis=1,
            )
            frame = pd.DataFrame(block, index=evaluation.features[some], columns=heads)
            frame.to_csv(stream, float_format="%.5g", header=some.start == 0)


def _part(profiles: LineProfiles, rows: slice) -> LineProfiles:
    """Return some conditions' profiles in memory."""
    names = ("real", "predicted", "degs")
    return replace(
        profiles, perturbations=profiles.perturbations[rows], **{name: getattr(profiles, name)[rows] for name in names}
    )


def _save_profiles(evaluation: Evaluation, folder: Path) -> None:
    """Write `profiles.npz` as `numpy.savez` does, profiles block by block."""
    arrays: dict[str, Any] = {
        "lines": np.array(list(evaluation.profiles)),
        "features": np.array(evaluation.features),
    }
    for number, profiles in enumerate(evaluation.profiles.values()):
        arrays[f"{number}/perturbations"] = np.array(profiles.perturbations)
        for name in ("real", "predicted", "degs", "control", "own_control"):
            arrays[f"{number}/{name}"] = getattr(profiles, name)
    with atomic_path(folder / PROFILES) as path, zipfile.ZipFile(path, "w") as archive:
        for name, values in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as stream:
                if isinstance(values, np.ndarray):
                    np.lib.format.write_array(stream, values, allow_pickle=False)
                    continue
                descr = np.lib.format.dtype_to_descr(values.dtype)
                np.lib.format.write_array_header_1_0(
                    stream, {"descr": descr, "fortran_order": False, "shape": values.shape}
                )
                for rows in row_blocks(len(values)):
                    stream.write(values[rows].tobytes())
