"""Whether predictions knew how right they were: the correlation that they expected against the one observed."""

import logging
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from state_rag.csv_tables import read_csv_table
from state_rag.files import atomic_path
from state_rag.run_folders import TRUST

logger = logging.getLogger(__name__)
CALIBRATION, CONDITIONS = "trust_calibration.csv", "trust_conditions.csv"
"""What is written beside the results; also the picture `plots/trust`."""

READ = ["context", "perturbation", "expected_pearson", "expected_pearson_low", "expected_pearson_high"]
READ += ["trust_score", "trust_grade", "calibration_holds"]
"""Columns of it that are used."""

BINS = 5
OBSERVED = "pearson_delta"


def read_trust(predictions: Path) -> pd.DataFrame | None:
    """Return what predictions say of their trust; None where they say nothing."""
    path = predictions / TRUST
    if not path.is_file():
        return None
    words = ("context", "perturbation", "trust_grade")
    return read_csv_table(path, words, remedy="Predict again.", columns=READ)


def judged(trust: pd.DataFrame, values: pd.DataFrame) -> pd.DataFrame:
    """Return expected and observed correlation, a row a condition that has both; unscored ones are left out.

    Parameters
    ----------
    trust
        From `read_trust`.
    values
        A row a condition: `cell_line`, `perturbation`, `pearson_delta`.
    """
    keys = values[["cell_line", "perturbation", OBSERVED]].rename(columns={"cell_line": "context"})
    found = trust.merge(keys.astype({"context": str, "perturbation": str}), on=["context", "perturbation"])
    return found.rename(columns={OBSERVED: "observed_pearson"}).dropna(subset=["observed_pearson"])


def calibration(conditions: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each fifth of the expected correlation, lowest first, and one for all.

    Returns
    -------
    pandas.DataFrame
        `expected` (`all`, `1` to `5`), `conditions`, `expected_pearson` and `observed_pearson` (means),
        `interval_coverage` (share of conditions in their own 90 % interval); in the row `all` also `spearman`, of
        `trust_score` and the observed correlation.

    Examples
    --------
    >>> table = pd.DataFrame({"expected_pearson": [0.2, 0.8], "observed_pearson": [0.1, 0.9], "trust_score": [1, 2]})
    >>> table["expected_pearson_low"], table["expected_pearson_high"] = [0.0, 0.7], [0.3, 0.85]
    >>> calibration(table)["interval_coverage"].tolist()
    [0.5, 1.0, 0.0]
    """
    rows = [_row("all", conditions)]
    known = conditions.dropna(subset=["expected_pearson"])
    order = known.iloc[np.argsort(known["expected_pearson"].to_numpy(), kind="stable")]
    parts = [part for part in np.array_split(np.arange(len(order)), BINS) if len(part)]
    rows += [_row(str(number), order.iloc[part]) for number, part in enumerate(parts, 1)]
    score, observed = conditions["trust_score"], conditions["observed_pearson"]
    rank = spearmanr(score, observed).statistic if min(score.nunique(), observed.nunique()) > 1 else np.nan
    rows[0]["spearman"] = float(rank)
    return pd.DataFrame(rows)


def write_calibration(predictions: Path, values: pd.DataFrame, folder: Path, *, picture: bool = True) -> bool:
    """Write the tables, and the picture, beside the results; tell whether there was anything to write.

    Parameters
    ----------
    predictions
        Folder of the predictions.
    values
        As for `judged`.
    folder
        Of the results; what an earlier evaluation wrote of this is removed.
    picture
        Whether to draw.
    """
    for stale in (CALIBRATION, CONDITIONS, "plots/trust.png", "plots/trust.svg"):
        (folder / stale).unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    trust = read_trust(predictions)
    if trust is None or OBSERVED not in values:
        return False
    conditions = judged(trust, values)
    if conditions.empty:
        return False
    table = calibration(conditions)
    for name, written in ((CALIBRATION, table), (CONDITIONS, conditions)):
        with atomic_path(folder / name) as path:
            written.to_csv(path, index=False)
    logger.info("%s", in_words(table))
    if picture and conditions["expected_pearson"].notna().any():
        from state_rag.plot import style
        from state_rag.plot.trust import trust_figure

        style.save_figure(trust_figure(conditions), folder / "plots", "trust")
    return True


def in_words(table: pd.DataFrame) -> str:
    """Return a sentence on a calibration table."""
    row = table.iloc[0]
    said = (
        f"Trust, {row['conditions']} conditions: Spearman of expected and observed Pearson delta {row['spearman']:.2f}"
    )
    if np.isnan(row["expected_pearson"]):
        return f"{said}; ranks only, since the screen is too small to calibrate or was not trained for such questions."
    return (
        f"{said}; expected {row['expected_pearson']:.2f}, observed {row['observed_pearson']:.2f} in the mean; "
        f"{100 * row['interval_coverage']:.0f} % are within their 90 % interval."
    )


def _row(name: str, part: pd.DataFrame) -> dict[str, object]:
    known = part.dropna(subset=["expected_pearson"])
    observed = known["observed_pearson"]
    inside = (observed >= known["expected_pearson_low"]) & (observed <= known["expected_pearson_high"])
    return {
        "expected": name,
        "conditions": len(part),
        "expected_pearson": known["expected_pearson"].mean(),
        "observed_pearson": part["observed_pearson"].mean(),
        "interval_coverage": inside.mean() if len(known) else np.nan,
    }
