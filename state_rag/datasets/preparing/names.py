"""The columns of perturbation, cell line and batch of a file, and its control: found, or renamed to Replogle's."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from state_rag.datasets.columns import (
    BATCH_COLUMNS,
    CELL_TYPE_COLUMNS,
    ONE_LINE,
    PERTURBATION_COLUMNS,
    find_column,
    find_control,
)
from state_rag.datasets.doubled_labels import once
from state_rag.datasets.effects_tables import refuse_effects_table
from state_rag.datasets.formats.in_files import names_by_format, told_labels
from state_rag.datasets.quickstart.first_look import look_at
from state_rag.datasets.quickstart.guesses import guess_line
from state_rag.errors import StateRagError
from state_rag.h5ad import obs_columns, open_h5ad, read_column

if TYPE_CHECKING:
    import anndata

REPLOGLE_NAMES = {
    "pert_col": "gene",
    "cell_type_col": "cell_line",
    "batch_col": "gem_group",
    "control": "non-targeting",
}


def find_names(
    path: Path,
    pert_col: str | None,
    cell_type_col: str | None,
    one_line: str | None,
    batch_col: str | None,
    control: str | None,
) -> tuple[dict[str, str], str | None, dict[str, str]]:
    """Return columns and control, reading obs only, the name of the line whose column is yet to be added, and labels.

    Labels are those that are written otherwise here, by the file's format or the order of members, each with how.

    The batch column may be one that is yet to be added, too.
    """
    with open_h5ad(path) as file:
        refuse_effects_table(file, control)
        pert_col, cell_type_col, batch_col, control = names_by_format(file, pert_col, cell_type_col, batch_col, control)
        pert_col = find_column(file, pert_col, PERTURBATION_COLUMNS, "perturbation", "--pert-col")
        if one_line is None and cell_type_col is None and not {*CELL_TYPE_COLUMNS} & {*obs_columns(file)}:
            _refuse_likely_line(path, pert_col)
            one_line = ONE_LINE
        if one_line is None:
            cell_type_col = find_column(file, cell_type_col, CELL_TYPE_COLUMNS, "cell line", "--cell-type-key")
        else:
            cell_type_col = REPLOGLE_NAMES["cell_type_col"]
            if cell_type_col in obs_columns(file):
                raise StateRagError(
                    f"{path}: --one-line adds obs column {cell_type_col!r}, and there is one already. Leave it out."
                )
        if batch_col is not None or any(name in obs_columns(file) for name in BATCH_COLUMNS):
            batch_col = find_column(file, batch_col, BATCH_COLUMNS, "batch", "--batch-col")
        categories, codes = read_column(file, pert_col, "--pert-col")
        plain = told_labels(file, pert_col)
    used = categories[np.unique(codes[codes >= 0])].tolist()
    control = find_control(used, control, f"{path}, obs column {pert_col!r}", "--control")
    plain = {**once(map(str, used), control), **plain}
    found = {
        "pert_col": pert_col,
        "cell_type_col": cell_type_col,
        "batch_col": batch_col if batch_col is not None else REPLOGLE_NAMES["batch_col"],
        "control": control,
    }
    return found, one_line, plain


def _refuse_likely_line(path: Path, pert_col: str) -> None:
    """Refuse to take all cells for one line where an obs column of an unusual name looks like the cell line."""
    look = look_at(path)
    guess = guess_line(look, look.columns.get(pert_col))
    if guess.value is not None:
        raise StateRagError(
            f"{path}: no obs column with a usual name for the cell line ({', '.join(CELL_TYPE_COLUMNS)}), but "
            f"{guess.value!r} looks like one ({guess.why}). Say so with --cell-type-key {shlex.quote(guess.value)}; if "
            "all cells are of one line, name it: --one-line NAME."
        )


def rename(adata: "anndata.AnnData", names: dict[str, str], changes: list[str]) -> dict[str, str]:
    """Give the three columns and the control the names of the Replogle data."""
    for key in ("pert_col", "cell_type_col", "batch_col"):
        old, new = names[key], REPLOGLE_NAMES[key]
        if old == new:
            continue
        if new in adata.obs:
            adata.obs = adata.obs.rename(columns={new: f"{new}_original"})
            changes.append(f"renamed the obs column {new!r} that was there to '{new}_original'")
        adata.obs = adata.obs.rename(columns={old: new})
        changes.append(f"renamed obs column {old!r} to {new!r}")
    old, new = names["control"], REPLOGLE_NAMES["control"]
    if old != new:
        column = adata.obs[REPLOGLE_NAMES["pert_col"]]
        if new in column.cat.categories:
            raise StateRagError(
                f"obs column {names['pert_col']!r} has both {old!r} and {new!r}: --replogle-names would merge them. "
                f"Choose the control with --control {new}."
            )
        adata.obs[REPLOGLE_NAMES["pert_col"]] = column.cat.rename_categories({old: new})
        changes.append(f"renamed the control {old!r} to {new!r}")
    return dict(REPLOGLE_NAMES)
