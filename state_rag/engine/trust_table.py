"""How far predictions can be trusted, as tables: a row a condition, and columns of predicted cells."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from anndata.io import read_elem, write_elem

from state_rag.effects.conditions import Columns
from state_rag.evidence.prediction import Prediction
from state_rag.files import atomic_path
from state_rag.run_folders import PREDICTED, TRUST

OF_CELLS = ("expected_pearson", "expected_pearson_low", "expected_pearson_high", "trust_grade", "trust_reason")
"""Columns that predicted cells get in `obs`."""

Labels = Sequence[str] | np.ndarray

_WORDS = ("trust_grade", "trust_reason")


def trust_table(found: Prediction) -> pd.DataFrame | None:
    """Return a row for each predicted perturbation; None where the engine knows nothing of trust.

    Returns
    -------
    pandas.DataFrame
        `context`, `perturbation`, `use`; `expected_pearson` with `expected_pearson_low` and `_high`, NaN where nothing
        was calibrated; `trust_score`, by which predictions of one use can be ranked; `trust_grade`, `trust_reason`;
        `calibration_holds`; `std`, the root mean square over genes of the deviation of each.
    """
    trust = found.trust
    if trust is None:
        return None
    return pd.DataFrame(
        {
            "context": found.context,
            "perturbation": list(found.perturbations),
            "use": list(found.uses),
            "expected_pearson": trust.expected,
            "expected_pearson_low": trust.low,
            "expected_pearson_high": trust.high,
            "trust_score": trust.score,
            "trust_grade": list(trust.grade),
            "trust_reason": list(trust.reason),
            "calibration_holds": trust.holds,
            "std": np.sqrt(np.square(trust.std).mean(1)),
        }
    )


def columns_of_cells(table: pd.DataFrame, contexts: Labels, perturbations: Labels) -> pd.DataFrame:
    """Return `OF_CELLS` for each cell; NaN and nothing in words for those without a row, such as controls."""
    rows = table.drop_duplicates(["context", "perturbation"]).set_index(["context", "perturbation"])[list(OF_CELLS)]
    labels = pd.MultiIndex.from_arrays([np.asarray(contexts, dtype=str), np.asarray(perturbations, dtype=str)])
    found = rows.reindex(labels).reset_index(drop=True)
    for name in _WORDS:
        found[name] = pd.Categorical(found[name].fillna(""))
    return found


def add_trust(predictions: Iterable[Prediction], folder: Path, columns: Columns) -> Path | None:
    """Add `OF_CELLS` to predicted cells that somebody else wrote, and `trust.csv`; return that, None without trust.

    The trust is that of the mean, to which an anchored network's cells are brought; there is no layer `std`, which
    would be as large as the cells.

    Parameters
    ----------
    predictions
        That the cells are anchored on, of these conditions and maybe further ones.
    folder
        Of the predictions.
    columns
        Names in `obs`.
    """
    path = folder / PREDICTED
    tables = [table for found in predictions if (table := trust_table(found)) is not None]
    if not tables or not path.is_file():
        return None
    with h5py.File(path, "r") as file:
        obs = read_elem(file["obs"])
    contexts, names = (obs[column].astype(str) for column in (columns.cell_line, columns.perturbation))
    asked = pd.DataFrame({"context": contexts, "perturbation": names}).drop_duplicates()
    table = pd.concat(tables, ignore_index=True).merge(asked, on=["context", "perturbation"])
    found = columns_of_cells(table, contexts.to_numpy(), names.to_numpy()).set_axis(obs.index)
    obs = obs.drop(columns=[name for name in OF_CELLS if name in obs]).join(found)
    with h5py.File(path, "r+") as file:
        # beside the old one first, so that a full disk leaves that
        write_elem(file, "obs.new", obs)
        del file["obs"]
        file.move("obs.new", "obs")
    return write_trust(table, folder)


def write_trust(table: pd.DataFrame, folder: Path) -> Path:
    """Write the table into a prediction's folder, and return its path."""
    with atomic_path(folder / TRUST) as temporary:
        table.drop_duplicates(["context", "perturbation"]).to_csv(temporary, index=False)
    return folder / TRUST
