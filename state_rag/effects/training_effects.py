"""Mean effects of the conditions a run was trained on, read from its data files in chunks.

Which cells are training cells follows cell-load's split rules: a `[zeroshot]` cell type gives its controls to
training and its perturbed cells to the named split; a `[fewshot]` one gives training everything that is neither in
its `val` nor in its `test` list; every other cell type belongs to training if its data set is in `[training]`.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np

from state_rag.datasets.split_check import find_data_files
from state_rag.datasets.split_toml import Split
from state_rag.datasets.treated_labels import read_labels
from state_rag.effects.aligned_rows import AlignedRows
from state_rag.effects.conditions import Columns
from state_rag.effects.group_totals import GroupTotals
from state_rag.effects.mean_effects import MeanEffects
from state_rag.errors import StateRagError
from state_rag.h5ad import open_h5ad, read_column

logger = logging.getLogger(__name__)


def training_effects(
    split: Split,
    columns: Columns,
    matrix: str,
    n_features: int,
    *,
    names: Sequence[str] | None = None,
    squares: bool = False,
    progress: bool = True,
) -> MeanEffects:
    """Read the training cells' mean effects.

    Conditions with NaN or infinity among their cells, and cell lines with such controls or none, are left out and
    named in the result.

    Parameters
    ----------
    split
        From `read_split`.
    columns
        Names in `obs`.
    matrix
        Where the values lie that predictions are compared with: `X` or `obsm/NAME`.
    n_features
        Width that the predictions have; a data file of another width is refused, unless its columns have names.
    names
        What the predictions' columns are called. Columns of every file are brought into this order; by default into
        that of the first file.
    squares
        Whether deviations between cells are wanted too.
    progress
        Whether to show a progress bar.

    Returns
    -------
    MeanEffects
        Effects of every usable training condition in a line that has controls.

    Raises
    ------
    StateRagError
        If a data file, column, matrix or gene is missing, or widths differ.
    """
    totals = GroupTotals(squares)
    aligned = AlignedRows(names)
    sources = []
    for dataset, place in split.datasets.items():
        try:
            files = find_data_files(place, f"{split.path}, data set {dataset!r}")
        except StateRagError as error:
            raise StateRagError(f"{error} If the data have moved, name a split that points to them: --toml.") from error
        for path in files:
            sources.append(str(path))
            _add_file(path, dataset, split, columns, matrix, n_features, aligned, totals, progress)
    return MeanEffects.from_totals(totals, columns.control, sources)


def _add_file(
    path: Path,
    dataset: str,
    split: Split,
    columns: Columns,
    matrix: str,
    n_features: int,
    aligned: AlignedRows,
    totals: GroupTotals,
    progress: bool,
) -> None:
    """Add one file's training conditions and controls."""
    with open_h5ad(path) as file:
        keys, group_of, named = named_groups_of(file, columns)
        rows = aligned.open(file, matrix)
        if rows.shape[1] != n_features:
            raise StateRagError(
                f"{path}: '{matrix}' has {rows.shape[1]} columns, the predictions have {n_features}; "
                "the run was trained on other data"
            )
        wanted = [
            number
            for number, ((line, label), name) in enumerate(zip(keys, named, strict=True))
            if label == columns.control or split.trains_on(dataset, line, name)
        ]
        # The last entry is for cells without a label, whose group is -1.
        place = np.full(len(keys) + 1, -1)
        place[wanted] = np.arange(len(wanted))
        what = f"{path.name}: training effects"
        totals.add(rows, [keys[number] for number in wanted], place[group_of], what, progress)


def groups_of(file: h5py.File, columns: Columns) -> tuple[list[tuple[str, str]], np.ndarray]:
    """Return the (cell line, perturbation) pairs of a file, and each cell's number among them; -1 without a label."""
    keys, group_of, _ = named_groups_of(file, columns)
    return keys, group_of


def named_groups_of(file: h5py.File, columns: Columns) -> tuple[list[tuple[str, str]], np.ndarray, list[str]]:
    """Return what `groups_of` does, and what the perturbation column has for each pair, by which splits go.

    Where labels tell modes, doses or times, a pair may stand there more than once.
    """
    lines, line_of = read_column(file, columns.cell_line, "--cell-type-key")
    told = read_labels(file, columns.perturbation, columns.control, columns.treatment)
    perturbations, perturbation_of = told.labels, told.code
    labelled = (line_of >= 0) & (perturbation_of >= 0)
    if not labelled.all():
        logger.warning("%s: %d cells without a label are no training cells.", file.filename, (~labelled).sum())
    codes, number = np.unique(line_of[labelled] * len(perturbations) + perturbation_of[labelled], return_inverse=True)
    group_of = np.full(len(labelled), -1)
    group_of[labelled] = number
    keys = [(str(lines[c // len(perturbations)]), str(perturbations[c % len(perturbations)])) for c in codes]
    return keys, group_of, [str(told.names[c % len(perturbations)]) for c in codes]
