"""One perturbation under two labels, `A+B` and `B+A`: refused where cells are read, and written once by `data prepare`.

The order of members means nothing, nor does a control beside them, and STATE's loader takes every label for a
perturbation of its own. So a split could train on the one and test on the other, and the cells of one condition would
count as two.
"""

import shlex
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import numpy as np

from state_rag.errors import StateRagError
from state_rag.h5ad import open_cells, read_column
from state_rag.names import listing
from state_rag.names.combinations import doubled, in_order


def refuse_doubled(labels: Mapping[str, Collection[Path]], control: str, column: str) -> None:
    """Refuse labels of cells in files that name the same members.

    Parameters
    ----------
    labels
        Label -> files that have cells of it.
    control
        Label of control cells.
    column
        The obs column that they stand in.

    Raises
    ------
    StateRagError
        With the command that writes each once, for the files that need it.
    """
    groups = doubled(labels, control)
    if not groups:
        return
    others = [label for group in groups for label in group if in_order(label, control) != label]
    files = sorted({path for label in others for path in labels[label]})
    first = f"state-rag data prepare {shlex.quote(str(files[0]))}"
    more = f" (and so for {listing(list(map(str, files[1:])), 3)})" if files[1:] else ""
    raise StateRagError(
        f"{files[0]}: {_told(groups, column)} `{first}` writes each once{more}; in a zarr store, give them one label "
        "in obs."
    )


def refuse_doubled_in_files(files: Iterable[Path], control: str, column: str) -> None:
    """Refuse such labels in a column of files of cells; parameters and errors as of `refuse_doubled`."""
    labels: dict[str, set[Path]] = {}
    for path in files:
        with open_cells(path) as file:
            names, code = read_column(file, column, "--pert-col")
        for name in names[np.unique(code[code >= 0])].tolist():
            labels.setdefault(str(name), set()).add(path)
    refuse_doubled(labels, control, column)


def refuse_doubled_in_memory(labels: Iterable[str], control: str, column: str) -> None:
    """Refuse such labels of cells in memory.

    Raises
    ------
    StateRagError
        With what to write.
    """
    groups = doubled(labels, control)
    if groups:
        first = in_order(groups[0][0], control)
        raise StateRagError(
            f"{_told(groups, column)} Give them one label in obs, such as {first!r}; of a file, `data prepare` writes "
            "each once."
        )


def once(labels: Iterable[str], control: str) -> dict[str, str]:
    """Return the labels that are written otherwise here, each with how: `B+A` is `A+B`.

    Examples
    --------
    >>> once(["B+A", "A+B", "C", "ctrl"], "ctrl")
    {'B+A': 'A+B'}
    """
    return {label: other for label in labels if label != control and (other := in_order(label, control)) != label}


def _told(groups: list[tuple[str, ...]], column: str) -> str:
    shown = listing([" / ".join(group) for group in groups])
    several = "s" * (len(groups) > 1)
    return (
        f"obs column {column!r} has {len(groups)} perturbation{several} under several labels ({shown}), "
        "which would count as different ones; the order of members means nothing."
    )
