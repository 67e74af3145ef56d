"""Mean effects of the conditions a run was trained on, in one pass over its data files.

Which cells are training cells follows cell-load's split rules: a `[zeroshot]` cell type gives its controls to
training and its perturbed cells to the named split; a `[fewshot]` one gives training everything that is neither in
its `val` nor in its `test` list; every other cell type belongs to training if its data set is in `[training]`.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from state_rag.datasets.data_files import find_data_files
from state_rag.datasets.splitting.split_toml import Split
from state_rag.effects.conditions import Columns
from state_rag.effects.group_totals import GroupTotals
from state_rag.effects.mean_effects import MeanEffects
from state_rag.effects.shard_pass import CellsOf, add_files
from state_rag.effects.workers import Workers
from state_rag.errors import StateRagError


def training_effects(
    split: Split,
    columns: Columns,
    matrix: str,
    n_features: int,
    *,
    names: Sequence[str] | None = None,
    squares: bool = False,
    progress: bool = True,
    workers: Workers | None = None,
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
    workers
        Who reads the files; by default threads of this process.

    Returns
    -------
    MeanEffects
        Effects of every usable training condition in a line that has controls.

    Raises
    ------
    StateRagError
        If a data file, column, matrix or gene is missing, or widths differ.
    """
    files: list[CellsOf] = []
    for dataset, place in split.datasets.items():
        try:
            found = find_data_files(place, f"{split.path}, data set {dataset!r}")
        except StateRagError as error:
            raise StateRagError(f"{error} If the data have moved, name a split that points to them: --toml.") from error
        files += [CellsOf(path, partial(_trains_on, split, dataset, columns.control)) for path in found]

    def check(path: Path, width: int) -> None:
        if width != n_features:
            raise StateRagError(
                f"{path}: '{matrix}' has {width} columns, the predictions have {n_features}; the run was trained on "
                "other data"
            )

    totals = GroupTotals(squares)
    add_files(totals, files, columns, matrix, names, workers=workers, progress=progress, check=check)
    return MeanEffects.from_totals(totals, columns.control, [str(file.path) for file in files])


def _trains_on(split: Split, dataset: str, control: str, line: str, label: str, name: str) -> bool:
    return label == control or split.trains_on(dataset, line, name)
