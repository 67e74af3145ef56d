"""Find out which obs columns of an h5ad file hold perturbation, cell type and batch, and what the control is called."""

from collections.abc import Iterable, Sequence

import h5py
import numpy as np

from state_rag.errors import StateRagError
from state_rag.h5ad import obs_columns, read_column
from state_rag.names import listing, suggest
from state_rag.names.controls import control_likeness

PERTURBATION_COLUMNS = ("gene", "perturbation", "condition", "target_gene", "pert", "drug", "drugname_drugconc")
CELL_TYPE_COLUMNS = ("cell_line", "cell_type", "celltype", "cell_name")
BATCH_COLUMNS = ("gem_group", "batch", "batch_var", "gemgroup", "plate", "sample")
CONTROLS = ("non-targeting", "control", "ctrl", "non_targeting", "nontargeting", "NT", "DMSO", "DMSO_TF")
ONE_LINE = "one_line"
"""The cell line of all cells where no column names one and the user does not either."""


def find_column(file: h5py.File, given: str | None, usual: Sequence[str], what: str, flag: str) -> str:
    """Return the obs column that holds `what`: the one given, else the only usual name that is present.

    Several usual names count as one where their columns group the cells alike; the first is returned.

    Raises
    ------
    StateRagError
        If the given column is absent, if no usual name is present, or if several are and differ.
    """
    if given is not None:
        read_column(file, given, flag)
        return given
    present = [name for name in usual if name in obs_columns(file)]
    if not present:
        raise StateRagError(
            f"{file.filename}: no obs column with a usual name for the {what} ({', '.join(usual)}). Columns present: "
            f"{', '.join(obs_columns(file)) or 'none'}. Name it with {flag}"
            + (", or let `state-rag data prepare` add one." if usual is not PERTURBATION_COLUMNS else ".")
        )
    for name in present[1:]:
        if not same_groups(file, present[0], name, flag):
            raise StateRagError(
                f"{file.filename}: obs columns {present[0]!r} and {name!r} could both be the {what}, and they differ. "
                f"Choose with {flag}."
            )
    return present[0]


def find_control(names: Iterable[str], given: str | None, where: str, flag: str) -> str:
    """Return the name of the control: the one given, else the only usual one among `names`.

    Raises
    ------
    StateRagError
        If the given control is not among the names, or no or several usual ones are.
    """
    names = sorted(set(names))
    if not names:
        raise StateRagError(f"{where}: there is no label, so no cell and no control. Is this the right file?")
    if given is not None:
        if given not in names:
            usual = [name for name in names if name in CONTROLS]
            hint = f"; a usual name that is: {', '.join(usual)}" if usual else suggest([given], names)
            raise StateRagError(
                f"{where}: control {given!r} (from {flag}) is not among the {len(names)} values"
                f"{hint or '; the first are: ' + ', '.join(names[:5])}. Set {flag} to the name of the control."
            )
        return given
    present = [name for name in names if name in CONTROLS]
    if len(present) != 1:
        found = (
            f"several names usual for a control ({', '.join(present)})" if present else "no name usual for a control"
        )
        raise StateRagError(
            f"{where}: {found} among {len(names)} values (looked for {', '.join(CONTROLS)}). Name the control with "
            f"{flag}{'' if present else _likely(names)}."
        )
    return present[0]


def _likely(names: Sequence[str]) -> str:
    """Return the labels that are named like a control, though not by a usual name; empty where none is."""
    likely = sorted((name for name in names if control_likeness(name)), key=lambda name: -control_likeness(name))
    return f"; named like one: {listing(likely, 3)}" if likely else ""


def same_groups(file: h5py.File, first: str, second: str, flag: str) -> bool:
    """Tell whether two columns group the cells alike, whatever they call the groups."""
    codes = np.stack([read_column(file, column, flag)[1] for column in (first, second)])
    pairs = np.unique(codes, axis=1).shape[1]
    return all(len(np.unique(row)) == pairs for row in codes)
