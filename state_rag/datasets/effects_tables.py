"""Tables of effects, a row a condition, told from files of cells: they have no split, and need none."""

import shlex

import h5py
import numpy as np

from state_rag.datasets.columns import CONTROLS
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
    if not set(LABELS) <= set(obs_columns(file)):
        return False
    (names, name), (contexts, context) = (read_column(file, column, "") for column in LABELS)
    if not len(name) or (name < 0).any() or (context < 0).any() or {*CONTROLS, control} & set(names[name].tolist()):
        return False
    return len(np.unique(context.astype(np.int64) * len(names) + name)) == len(name)


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
            f"{path} -o runs/evidence`."
        )
