"""Tables of effects, a row a condition, told from files of cells: they have no split, and need none."""

import shlex

import h5py
import numpy as np

from state_rag.datasets.columns import CELL_TYPE_COLUMNS, CONTROLS, PERTURBATION_COLUMNS
from state_rag.errors import StateRagError
from state_rag.h5ad import obs_columns, read_column

LABELS = ("perturbation", "context")
"""The obs columns of a table of effects."""


def is_effects_table(file: h5py.File, control: str | None = None) -> bool:
    """Tell whether an open h5ad file has one row for each perturbation and context, and no controls.

    Parameters
    ----------
    file
        The file.
    control
        What the user calls control cells, if anything; a file that has them holds cells.
    """
    return set(LABELS) <= set(obs_columns(file)) and _has_one_row_each(file, *LABELS, control)


def _has_one_row_each(file: h5py.File, perturbation: str, context: str, control: str | None) -> bool:
    (names, name), (contexts, where) = (read_column(file, column, "") for column in (perturbation, context))
    if not 0 < len(name) <= len(names) * len(contexts) or (name < 0).any() or (where < 0).any():
        return False
    if {*CONTROLS, control} & set(names[np.unique(name)].tolist()):
        return False
    return len(np.unique(where.astype(np.int64) * len(names) + name)) == len(name)


def refuse_other_names(file: h5py.File) -> None:
    """Refuse what can only be a table of effects, but names its columns as files of cells do.

    Raises
    ------
    StateRagError
        With the line that renames them.
    """
    there = obs_columns(file)
    pairs = ((first, second) for first in PERTURBATION_COLUMNS for second in CELL_TYPE_COLUMNS)
    for pair in pairs:
        if set(pair) <= set(there) and _has_one_row_each(file, *pair, None):
            renamed = dict(zip(pair, LABELS, strict=True))
            raise StateRagError(
                f"{file.filename}: a row for each {pair[0]} and {pair[1]}, and no controls, so this is no file of "
                f"cells. As a table of effects its columns are called {LABELS[0]} and {LABELS[1]}: "
                f"`effects.obs = effects.obs.rename(columns={renamed})`, then write it again."
            )


def refuse_effects_table(file: h5py.File, control: str | None = None) -> None:
    """Refuse a table of effects where cells are needed.

    Raises
    ------
    StateRagError
        With the command that takes it.
    """
    if is_effects_table(file, control):
        path = shlex.quote(str(file.filename))
        raise StateRagError(
            f"{file.filename}: a table of effects (a row for each perturbation and context, no controls), and cells "
            f"are needed here. The evidence engine is fitted on it as it is, without a split: `state-rag evidence fit "
            f"{path} -o runs/evidence`; in Python, `sr.evidence.from_effects(anndata.read_h5ad(path))`."
        )
