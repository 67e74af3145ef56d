"""Columns named like a mode, a dose or a time that no option names: their cells would be averaged as one condition."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from state_rag.cell_files import CellFile
from state_rag.datasets.quickstart.guesses import words_of
from state_rag.datasets.treated_labels import KEYS, TreatmentColumns
from state_rag.errors import StateRagError
from state_rag.h5ad import obs_columns, open_cells, read_column
from state_rag.names import listing
from state_rag.names.treatments import Treatment, dose_of, hours_of, mode_of, told_in

_WORDS = {
    "mode_col": {"perturbation_type", "pert_type", "perturbation_mode", "pert_mode"},
    "dose_col": {"dose", "dosage", "conc", "concentration"},
    "time_col": {"time", "timepoint", "time_point", "hours", "hpi"},
}
_READ = {"mode_col": mode_of, "dose_col": dose_of, "time_col": hours_of}

MOST = 100
"""A column with more different values is a measurement."""


class Untold(NamedTuple):
    """A column that nobody named.

    Attributes
    ----------
    column
        Of `obs`.
    option
        The option that names it, such as `--dose-col`.
    values
        What perturbed cells have there.
    mixed, conditions
        Conditions (a perturbation in a cell line) whose cells have several values, and all conditions.
    """

    column: str
    option: str
    values: tuple[str, ...]
    mixed: int
    conditions: int

    def __str__(self) -> str:
        """Return what is to be known, with what to do."""
        return (
            f"obs column {self.column!r} has several values ({listing(self.values, 4)}) within {self.mixed:,} of "
            f"{self.conditions:,} conditions, whose cells count as one. {self.option} {self.column} tells them apart, "
            "for the evidence engine."
        )


def untold_columns(
    path: Path, perturbation: str, cell_line: str, control: str, columns: TreatmentColumns
) -> list[Untold]:
    """Return columns named like a mode, dose or time that differ between cells of one condition and are not named.

    Parameters
    ----------
    path
        A file of cells.
    perturbation, cell_line, control
        Names in `obs`, and the control's label.
    columns
        Those that are named; of a part that has one no other is looked for.
    """
    found = []
    with open_cells(path) as file:
        names, name = read_column(file, perturbation, "--pert-col")
        lines, line = read_column(file, cell_line, "--cell-type-key")
        treated = np.array([str(one) != control for one in names.tolist()], dtype=bool)[name] & (name >= 0)
        place = line * len(names) + name
        for column in obs_columns(file):
            key = next((key for key in KEYS if words_of(column) & _WORDS[key]), None)
            if key is None or key in columns.to_data() or column in (perturbation, cell_line):
                continue
            one = _differs(file, column, key, place, treated)
            found += [] if one is None else [one]
    return found


def untold_labels(path: Path, perturbation: str, columns: TreatmentColumns) -> list[str]:
    """Return that labels of perturbations tell doses or times, where no option says that they do; nothing else.

    Parameters
    ----------
    path
        A file of cells.
    perturbation
        Their column.
    columns
        Those that are named.
    """
    if columns:
        return []
    with open_cells(path) as file:
        names, name = read_column(file, perturbation, "--pert-col")
    labels = [str(names[one]) for one in np.unique(name[name >= 0]).tolist()]
    told = [label for label in labels if told_in(label)[1] != Treatment()]
    if len(told) < 2:
        return []
    return [
        f"labels of obs column {perturbation!r} tell doses or times (such as {told[0]}). The evidence engine takes "
        f"each for a name of its own, unless --dose-col {perturbation} says that they do."
    ]


def _differs(file: CellFile, column: str, key: str, condition: np.ndarray, treated: np.ndarray) -> Untold | None:
    """Return the column if it reads as what it is named like, and differs within conditions."""
    try:
        values, value = read_column(file, column, key)
    except StateRagError:
        return None
    used = treated & (value >= 0)
    there = np.unique(value[used])
    if not 2 <= len(there) <= MOST:
        return None
    texts = [str(values[one]) for one in there.tolist()]
    try:
        read = [_READ[key](text) for text in texts]  # type: ignore[operator]
    except StateRagError:
        return None
    if len({one for one in read if one is not None}) < 2:
        return None
    pairs = np.unique(condition[used] * len(values) + value[used]) // len(values)
    _, counts = np.unique(pairs, return_counts=True)
    if not (counts > 1).any():
        return None
    return Untold(column, f"--{key.replace('_', '-')}", tuple(texts), int((counts > 1).sum()), len(counts))
