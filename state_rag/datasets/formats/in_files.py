"""Which published format an h5ad file has, what that says of its columns, and which labels it writes otherwise."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import h5py
import numpy as np

from state_rag.datasets.columns import same_groups
from state_rag.datasets.formats.known import Recognised, matching
from state_rag.errors import StateRagError
from state_rag.h5ad import obs_columns, open_cells, read_column
from state_rag.names import listing
from state_rag.names.combinations import CONTROLS, SEPARATOR, parts_of

if TYPE_CHECKING:
    import pandas as pd

MISSING = ("", "nan", "none", "na", "<na>")
"""Labels, in lower case, that tell nothing."""


class Names(NamedTuple):
    """Columns and control as far as the user and the format say; None for what neither does."""

    perturbation: str | None
    line: str | None
    batch: str | None
    control: str | None


def recognise(file: h5py.File) -> Recognised | None:
    """Return the format of an open h5ad file; None for none that is known.

    Raises
    ------
    StateRagError
        If several fit, and they mean columns that group the cells otherwise.
    """
    found = _fits(file)
    for other in found[1:]:
        one, two = found[0].format, other.format
        if not same_groups(file, one.perturbation, two.perturbation, "--pert-col"):
            raise StateRagError(
                f"{file.filename}: could be {one.name} (perturbation in {one.perturbation!r}) or {two.name} (in "
                f"{two.perturbation!r}), which differ. Choose with --pert-col."
            )
    return found[0] if found else None


def names_by_format(
    file: h5py.File,
    pert_col: str | None = None,
    cell_type_col: str | None = None,
    batch_col: str | None = None,
    control: str | None = None,
) -> Names:
    """Return columns and control: what the user says, else what the file's format says.

    Raises
    ------
    StateRagError
        As `recognise`, where the user does not name the perturbations.
    """
    given = Names(pert_col, cell_type_col, batch_col, control)
    found = recognise(file) if pert_col is None else _with_column(file, pert_col)
    if found is None:
        return given
    format_, columns = found.format, obs_columns(file)
    line, batch = (column if column in columns else None for column in (format_.line, format_.batch))
    return Names(format_.perturbation, cell_type_col or line, batch_col or batch, control or found.control)


def treatment_in(file: h5py.File, found: Recognised) -> dict[str, str]:
    """Return the columns of mode, dose and time that a format has and that tell perturbed cells of this file apart.

    A mode that all cells have, or a column without a value, tells nothing.
    """
    told = {}
    present = obs_columns(file)
    for part, column in found.format.treatment.items():
        if column not in present:
            continue
        labels = {label for label in _labels(file, column) if label.strip().lower() not in (*MISSING, *CONTROLS)}
        if len(labels) > 1:
            told[part] = column
    return told


def plain_labels(found: Recognised, labels: Sequence[str], counts: Mapping[str, int]) -> dict[str, str]:
    """Return the labels that are written otherwise here: `A+ctrl` is `A`, and `A_B` of two perturbations `A+B`.

    Parameters
    ----------
    found
        The format of the file.
    labels
        Of its perturbations.
    counts
        Label -> how many perturbations it stands for, where the file says so.

    Examples
    --------
    >>> from state_rag.datasets.formats.known import FORMATS
    >>> scperturb = Recognised(FORMATS[2], "control")
    >>> plain_labels(scperturb, ["B_A", "HLA_X", "control"], {"B_A": 2, "HLA_X": 1})
    {'B_A': 'A+B'}
    """
    plain = {}
    for label in labels:
        if found.format.with_control and label != found.control:
            other = SEPARATOR.join(parts_of(label))
        elif found.format.joined and counts.get(label, 1) > 1:
            parts = label.split(found.format.joined)
            other = SEPARATOR.join(sorted(parts)) if len(parts) == counts[label] and all(parts) else label
        else:
            continue
        if other != label:
            plain[label] = other
    return plain


def told_labels(file: h5py.File, column: str) -> dict[str, str]:
    """Return the labels of an open file's perturbations that are written otherwise here, as `plain_labels` does."""
    found = _with_column(file, column)
    if found is None:
        return {}
    labels, codes = read_column(file, found.format.perturbation, "")
    counts: dict[str, int] = {}
    if found.format.joined and "nperts" in found.format.has:
        numbers, number = read_column(file, "nperts", "")
        both = (codes >= 0) & (number >= 0)
        pairs = Counter(zip(codes[both].tolist(), number[both].tolist(), strict=True))
        for (label, value), _ in sorted(pairs.items(), key=lambda pair: pair[1]):
            counts[str(labels[label])] = _whole(str(numbers[value]))
    used = labels[np.unique(codes[codes >= 0])].tolist()
    return plain_labels(found, [str(label) for label in used], counts)


def rewrite(obs: "pd.DataFrame", column: str, plain: Mapping[str, str]) -> list[str]:
    """Rewrite labels of a column in place, and return what was done in words; nothing for no labels."""
    if not plain:
        return []
    obs[column] = obs[column].astype(str).map(lambda label: plain.get(label, label)).astype("category")
    pairs = listing([f"{old} is {new}" for old, new in plain.items()], 3)
    return [f"rewrote {len(plain)} labels of obs column {column!r} ({pairs})"]


def told_format(path: Path, pert_col: str | None = None) -> list[str]:
    """Return in words which format a file has, a line for what was taken and one for each thing to know; none for none.

    Parameters
    ----------
    path
        An h5ad file.
    pert_col
        The column of perturbations, where the user names it: a format that means another one says nothing then.

    Raises
    ------
    StateRagError
        As `recognise`, where the user names none.
    """
    with open_cells(path) as file:
        found = recognise(file) if pert_col is None else _with_column(file, pert_col)
        if found is None:
            return []
        lines = [found.words]
        if treatment := treatment_in(file, found):
            options = " ".join(f"--{part}-col {column}" for part, column in treatment.items())
            lines.append(f"has {' and '.join(treatment)} too; for the evidence engine: {options}")
        if plain := told_labels(file, found.format.perturbation):
            pairs = listing([f"{old} is {new}" for old, new in plain.items()], 3)
            lines.append(f"{len(plain)} labels are written otherwise here ({pairs}): `state-rag data prepare`")
    return lines


def _with_column(file: h5py.File, pert_col: str) -> Recognised | None:
    """Return the only format that fits and has its perturbations in a column; None for none or several."""
    own = [one for one in _fits(file) if one.format.perturbation == pert_col]
    return own[0] if len(own) == 1 else None


def _fits(file: h5py.File) -> list[Recognised]:
    return matching(obs_columns(file), lambda column: _labels(file, column))


def _labels(file: h5py.File, column: str) -> list[str]:
    """Return the labels of a column that have cells."""
    labels, codes = read_column(file, column, "")
    return [str(label) for label in labels[np.unique(codes[codes >= 0])].tolist()]


def _whole(text: str) -> int:
    try:
        return int(float(text))
    except ValueError:
        return 1
