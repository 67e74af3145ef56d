"""Labels of cells whose mode, dose or time have columns of their own, as `names.treatments` writes them."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from state_rag.cell_files import CellFile
from state_rag.errors import StateRagError
from state_rag.h5ad import open_cells, read_column
from state_rag.names import drug_of, listing
from state_rag.names.combinations import parts_of
from state_rag.names.treatments import (
    Treatment,
    canonical,
    dose_of,
    doses_in,
    hours_of,
    label_of,
    mode_of,
    told_in,
    treatment_of,
    unit_of,
)

if TYPE_CHECKING:
    import pandas as pd

KEYS = ("mode_col", "dose_col", "time_col")
"""Under `data.kwargs` of an evidence run, and as options."""


@dataclass(frozen=True)
class TreatmentColumns:
    """Columns of `obs` that tell how cells were perturbed; None where there is none.

    Attributes
    ----------
    mode
        Such as CRISPRi, CRISPRa, KO or drug.
    dose
        Numbers, with or without a unit (molar ones come to µM), or Tahoe-100M's lists of (drug, dose, unit). It may be
        the column of perturbations itself, with such lists or labels (`NAME:dose=0.5`); then the drug is the name.
    time
        Hours, or numbers with a unit.
    """

    mode: str | None = None
    dose: str | None = None
    time: str | None = None

    def __bool__(self) -> bool:
        return any(column is not None for column in (self.mode, self.dose, self.time))

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> "TreatmentColumns":
        """Return the columns that `data.kwargs` of a run names."""
        return cls(*(data.get(key) for key in KEYS))

    def to_data(self) -> dict[str, str]:
        """Return what `of` reads; nothing for no column."""
        named = zip(KEYS, (self.mode, self.dose, self.time), strict=True)
        return {key: column for key, column in named if column is not None}


class Labels(NamedTuple):
    """Labels of cells.

    Attributes
    ----------
    labels
        L different ones, str; a label stands once for each name that it was made of.
    code
        Int [cells]: label of each cell; -1 without one.
    names
        What the column of perturbations has for each of the L.
    """

    labels: np.ndarray
    code: np.ndarray
    names: np.ndarray


def read_labels(
    file: CellFile,
    perturbation: str,
    control: str,
    columns: TreatmentColumns,
    flag: str = "--pert-col",
    *,
    start: int = 0,
    stop: int | None = None,
) -> Labels:
    """Read the labels of a file's cells; names as they are where no column tells more.

    Parameters
    ----------
    file
        An open file of cells.
    perturbation
        Column of perturbations.
    control
        Label of control cells, which stays as it is.
    columns
        Those of mode, dose and time.
    flag
        How the user names the first.
    start, stop
        Only the cells from `start` to before `stop`.

    Raises
    ------
    StateRagError
        If a column is missing, or holds what is no dose or no time.
    """
    names, code = read_column(file, perturbation, flag, start, stop)
    if not columns:
        return Labels(names, code, names)
    read = {
        key: read_column(file, column, f"--{key.replace('_', '-')}", start, stop)
        for key, column in columns.to_data().items()
    }
    return _joined(names, code, read, control, perturbation, columns)


def labels_in(obs: "pd.DataFrame", perturbation: str, control: str, columns: TreatmentColumns) -> Labels:
    """Return the labels of cells, or of a table's rows, in memory; parameters and errors as of `read_labels`."""

    def read(column: str) -> tuple[np.ndarray, np.ndarray]:
        if column not in obs:
            raise StateRagError(f"obs has no column {column!r}; it has {listing(list(map(str, obs.columns)))}.")
        values = obs[column].astype("category").cat
        return np.array(list(map(str, values.categories)), dtype=object), np.asarray(values.codes, dtype=np.int64)

    names, code = read(perturbation)
    if not columns:
        return Labels(names, code, names)
    parts = {key: read(column) for key, column in columns.to_data().items()}
    return _joined(names, code, parts, control, perturbation, columns)


def _joined(
    names: np.ndarray,
    code: np.ndarray,
    read: Mapping[str, tuple[np.ndarray, np.ndarray]],
    control: str,
    perturbation: str,
    columns: TreatmentColumns,
) -> Labels:
    treated = np.array([str(name) != control for name in names.tolist()])[code] & (code >= 0)
    told = [_told(key, *read[key], treated, columns) for key in KEYS if key in read]
    keys = [key for key in KEYS if key in read]
    # what controls have there tells nothing
    rows = np.stack([code, *(np.where(treated, read[key][1], -1) for key in keys)])
    different, place = np.unique(rows[:, code >= 0], axis=1, return_inverse=True)
    labels, of = [], []
    for number, *others in different.T.tolist():
        name = str(names[number])
        of.append(name)
        if name == control:
            labels.append(name)
            continue
        parts: dict[str, Any] = {
            key: None if one < 0 else values[one] for key, one, values in zip(keys, others, told, strict=True)
        }
        treatment = Treatment(*(parts.get(key) for key in KEYS))
        if perturbation not in columns.to_data().values():
            labels.append(label_of(name, treatment))
        elif len(parts_of(name)) > 1 and _tells(name):
            labels.append(canonical(name))
        else:  # the label tells it
            plain, own = told_in(name)
            mode = own.mode if treatment.mode is None else treatment.mode
            dose = own.dose if treatment.dose is None else treatment.dose
            labels.append(
                label_of(plain, Treatment(mode, dose, own.time if treatment.time is None else treatment.time))
            )
    found = np.full(len(code), -1, dtype=np.int64)
    found[code >= 0] = place.ravel()
    return Labels(np.array(labels, dtype=object), found, np.array(of, dtype=object))


def _told(
    key: str, categories: np.ndarray, code: np.ndarray, treated: np.ndarray, columns: TreatmentColumns
) -> list[Any]:
    """Return what each category of a column means; None for those that no treated cell has."""
    used = set(np.unique(code[treated & (code >= 0)]).tolist())
    read: Callable[[str], Any] = {"mode_col": mode_of, "dose_col": dose_of, "time_col": hours_of}[key]
    texts = {number: str(categories[number]) for number in sorted(used)}
    column = columns.to_data()[key]
    if any(_tells(text) and drug_of(text) is None for text in texts.values()):
        return _told_in_labels(key, column, texts, len(categories))
    try:
        found = [read(texts[number]) if number in texts else None for number in range(len(categories))]
        units = {unit_of(text) for text in texts.values()} - {None} if key == "dose_col" else set()
    except StateRagError as error:
        raise StateRagError(f"obs column {column!r} (--{key.replace('_', '-')}): {error}") from error
    if len(units) > 1:
        named = listing([repr(unit) if unit else "none" for unit in sorted(map(str, units))])
        raise StateRagError(f"obs column {column!r} (--dose-col) mixes units ({named}); bring all doses to one.")
    return found


def _told_in_labels(key: str, column: str, texts: Mapping[int, str], count: int) -> list[Any]:
    """Return what labels such as `NAME:dose=0.5` tell of a part."""
    lacking = [text for text in texts.values() if not _tells(text)]
    if lacking:
        raise StateRagError(
            f"obs column {column!r} (--{key.replace('_', '-')}): some labels tell a dose or a time, as NAME:dose=0.5, "
            f"and {len(lacking)} do not ({listing(lacking)})."
        )
    place = KEYS.index(key)
    return [told_in(texts[number])[1][place] if number in texts else None for number in range(count)]


def dose_unit(files: Iterable[Path], perturbation: str, control: str, columns: TreatmentColumns) -> str | None:
    """Return the unit that the doses of treated cells name in some files, as `names.treatments.unit_of` writes it.

    Parameters
    ----------
    files
        h5ad files, or other files of cells.
    perturbation, control, columns
        Names in `obs`, and the control's label.

    Returns
    -------
    str or None
        Empty where they are numbers alone; None without a column of doses, or without a dose in it.

    Raises
    ------
    StateRagError
        If files name different units.
    """
    if columns.dose is None:
        return None
    found: dict[str, Path] = {}
    for path in files:
        with open_cells(path) as file:
            names, name = read_column(file, perturbation, "--pert-col")
            doses, dose = read_column(file, columns.dose, "--dose-col")
        treated = np.array([str(one) != control for one in names.tolist()], dtype=bool)[name] & (name >= 0)
        used = np.unique(dose[treated & (dose >= 0)])
        texts = [str(doses[one]) for one in used.tolist()]
        for unit in {_unit_in(text) for text in texts} - {None}:
            found.setdefault(str(unit), path)
    if len(found) > 1:
        named = listing([f"{unit or 'none'} in {path}" for unit, path in sorted(found.items())])
        raise StateRagError(f"obs column {columns.dose!r} (--dose-col) mixes units ({named}); bring all doses to one.")
    return next(iter(found), None)


def _unit_in(text: str) -> str | None:
    told = doses_in(text) if drug_of(text) is None and _tells(text) else [text]
    return next(map(unit_of, told), None)


def _tells(label: str) -> bool:
    """Tell whether a label has a dose or a time in it, of a combination all of its members."""
    return all(told_in(part)[1] != Treatment() for part in parts_of(label))


def count_labels(
    files: Iterable[Path], perturbation: str, cell_line: str, control: str, columns: TreatmentColumns
) -> dict[tuple[str, str], int]:
    """Return the cells of each (cell line, label) in some files, controls aside.

    Parameters
    ----------
    files
        h5ad files.
    perturbation, cell_line, control, columns
        Names in `obs`, and the control's label.
    """
    found: Counter[tuple[str, str]] = Counter()
    for path in files:
        with open_cells(path) as file:
            lines, line_of = read_column(file, cell_line, "--cell-type-key")
            told = read_labels(file, perturbation, control, columns)
        labelled = (line_of >= 0) & (told.code >= 0)
        pairs, counts = np.unique(np.stack([line_of, told.code])[:, labelled], axis=1, return_counts=True)
        for (line, label), count in zip(pairs.T.tolist(), counts.tolist(), strict=True):
            if str(told.names[label]) != control:
                found[str(lines[line]), str(told.labels[label])] += count
    return dict(found)


def treatment_words(labels: Mapping[tuple[str, str], int]) -> list[str]:
    """Return in words what labels of conditions tell beside names, a line each for modes, doses, times and an example.

    Parameters
    ----------
    labels
        (cell line, label) -> cells; without controls.

    Examples
    --------
    >>> for line in treatment_words({("k562", "A:CRISPRa"): 9, ("k562", "B:CRISPRa"): 5, ("rpe1", "A:CRISPRi"): 7}):
    ...     print(line)
    modes   CRISPRa: 2 conditions, 14 cells; CRISPRi: 1 conditions, 7 cells
    labels  such as A:CRISPRa, A:CRISPRi, B:CRISPRa
    """
    conditions: Counter[str] = Counter()
    cells: Counter[str] = Counter()
    doses: Counter[float] = Counter()
    times: Counter[float] = Counter()
    for (_, label), count in labels.items():
        treatment = treatment_of(label.partition("+")[0])[1]
        mode = treatment.mode or "none told"
        conditions[mode] += 1
        cells[mode] += count
        doses[-1.0 if treatment.dose is None else treatment.dose] += 1
        times[-1.0 if treatment.time is None else treatment.time] += 1
    lines = []
    if set(conditions) != {"none told"}:
        told = "; ".join(f"{mode}: {conditions[mode]} conditions, {cells[mode]:,} cells" for mode in sorted(conditions))
        lines.append(f"modes   {told}")
    for what, found in (("doses", doses), ("times", times)):
        if set(found) != {-1.0}:
            named = [("none told" if one < 0 else f"{one:g}") + f" ({found[one]})" for one in sorted(found)]
            lines.append(f"{what}   {listing(named, 10)}")
    return [*lines, f"labels  such as {listing(sorted({label for _, label in labels}), 3)}"]
