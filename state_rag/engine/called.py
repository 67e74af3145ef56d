"""Which genes predictions call changed, as tables, and beside predicted cells."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from state_rag.csv_tables import read_csv_table
from state_rag.evidence.estimator import Evidence
from state_rag.evidence.prediction import Prediction
from state_rag.evidence.responses import UNTOLD
from state_rag.evidence.trust.gene_caller import GeneCaller
from state_rag.evidence.trust.gene_calls import FDR, GeneCalls
from state_rag.files import atomic_path
from state_rag.names import listing

CALLS = "gene_calls.csv"
"""In a folder of predictions: the genes that each condition is called to change."""

PLAIN_ROWS = 300_000
"""Rows above which the table is compressed, as `gene_calls.csv.gz`."""

WORDS = ("context", "perturbation", "gene", "direction")
"""Its columns of text."""

LAYER, FREQUENCY = "probability_changed", "frequency_changed"
"""Of predicted cells: the layer of probabilities, and in `varm` the share of measured conditions that change a gene."""


def calls_table(found: Prediction, fdr: float = FDR) -> pd.DataFrame:
    """Return a row for each gene that is called, by perturbation and probability; none where there are no calls.

    Parameters
    ----------
    found
        From `Evidence.predict`.
    fdr
        False discovery rate of the list.

    Returns
    -------
    pandas.DataFrame
        `context`, `perturbation`, `gene`; `direction`, `up` or `down`; `effect`, the predicted one; `probability` of a
        change; `fdr`, that of the shortest list that has the gene; `calibration_holds`, as in `trust.csv`.
    """
    calls, trust = found.calls, found.trust
    if calls is None or trust is None:
        return _empty()
    query, gene = np.nonzero(calls.called(fdr))
    order = np.lexsort((-np.abs(found.mean[query, gene]), -calls.probability[query, gene], query))
    query, gene = query[order], gene[order]
    return pd.DataFrame(
        {
            "context": found.context,
            "perturbation": np.array(found.perturbations, dtype=object)[query],
            "gene": np.array(found.genes, dtype=object)[gene],
            "direction": np.where(calls.direction[query, gene] > 0, "up", "down"),
            "effect": found.mean[query, gene],
            "probability": calls.probability[query, gene],
            "fdr": calls.fdr[query, gene],
            "calibration_holds": trust.holds[query],
        }
    )


def write_calls(tables: Iterable[pd.DataFrame], folder: Path) -> Path:
    """Write tables of called genes as one into a prediction's folder, in place of what is there; return its path."""
    filled = [table for table in tables if len(table)]
    table = pd.concat(filled, ignore_index=True) if filled else _empty()
    name = CALLS if len(table) <= PLAIN_ROWS else f"{CALLS}.gz"
    with atomic_path(folder / name) as temporary:
        compression = None if name == CALLS else "gzip"
        table.to_csv(temporary, index=False, float_format="%.4g", compression=compression)
    (folder / (CALLS if name != CALLS else f"{CALLS}.gz")).unlink(missing_ok=True)
    return folder / name


def calls_file(folder: Path) -> Path | None:
    """Return the table of called genes in a prediction's folder; None where there is none."""
    return next((folder / name for name in (CALLS, f"{CALLS}.gz") if (folder / name).is_file()), None)


def remove_calls(folder: Path) -> None:
    """Remove the table of an earlier prediction."""
    for name in (CALLS, f"{CALLS}.gz"):
        (folder / name).unlink(missing_ok=True)


def read_calls(path: Path) -> pd.DataFrame:
    """Read a table of called genes."""
    columns = list(_empty())
    return read_csv_table(path, WORDS, remedy="Predict again.", columns=columns)[columns]


def changed_frequency(engine: Evidence, context: str) -> np.ndarray | None:
    """Return how often genes change [G] in the measured conditions of a context, of all where there are none there.

    None where it is not known what changed.
    """
    changes = engine.responses.changes
    if changes is None:
        return None
    here = np.array([name == context for name in engine.responses.contexts])
    told = changes[here if (changes[here] != UNTOLD).any() else ~here]
    frequency: np.ndarray = (np.abs(told) == 1).sum(0) / np.maximum((told != UNTOLD).sum(0), 1)
    return frequency


def called_words(calls: GeneCalls, genes: Sequence[str], shown: int = 12, fdr: float = FDR) -> str:
    """Return a sentence on the genes that a single query is called to change."""
    if np.isnan(calls.probability[0]).all():
        return "Which genes change is not known: the engine was not calibrated for such questions."
    called = np.flatnonzero(calls.called(fdr)[0])
    if not len(called):
        return f"No gene is called to change at a false discovery rate of {fdr:g}."
    order = called[np.argsort(-calls.probability[0, called], kind="stable")]
    names = [f"{genes[place]} {'↑' if calls.direction[0, place] > 0 else '↓'}" for place in order[:shown].tolist()]
    more = f", and {len(order) - shown} more" if len(order) > shown else ""
    number = f"{len(order)} gene{'s' * (len(order) > 1)}"
    return f"Called to change, at a false discovery rate of {fdr:g}: {number}: {', '.join(names)}{more}."


def caller_words(found: GeneCaller) -> str:
    """Return what was found about which genes change, in questions of one use."""
    size, ours = found.precision[0, 0], found.precision[found.precision.sum(1).argmax(), 0]
    return (
        f"called genes: learned from {int(found.counts[0])} measured conditions with {int(found.counts[1]):,} changed "
        f"genes, by {listing(found.looked_at)}; average precision on conditions held back {ours:.2f}, by the size of "
        f"the effect alone {size:.2f}"
    )


def _empty() -> pd.DataFrame:
    columns = {name: pd.Series(dtype=str) for name in WORDS}
    columns |= {name: pd.Series(dtype=float) for name in ("effect", "probability", "fdr")}
    return pd.DataFrame({**columns, "calibration_holds": pd.Series(dtype=bool)})
