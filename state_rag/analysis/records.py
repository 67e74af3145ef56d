"""Read `retrieval_info.csv` into one record per condition, cell by cell, without holding the cells."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from state_rag.engine.retrieved import SOURCES
from state_rag.errors import StateRagError
from state_rag.files import damage_told
from state_rag.progress import track

INCLUDED_ABOVE = 0.5
NEEDED = ("cell_type", "pert_name", "retrieved_perturbations")


@dataclass(frozen=True)
class Retrieved:
    """What was retrieved for one perturbation in one cell line, averaged over its cells.

    Attributes
    ----------
    cell_line, perturbation
        The condition.
    neighbours
        Candidates in order of retrieval, nearest first, `[K]`.
    inclusion
        Mean inclusion weight of each over the cells that retrieved it, `[K]`.
    cells
        Number of cells.
    sources
        The sources of knowledge that proposed each neighbour, joined by `+`, `[K]`; none where a run has a single one.
    """

    cell_line: str
    perturbation: str
    neighbours: tuple[str, ...]
    inclusion: np.ndarray
    cells: int
    sources: tuple[str, ...] = ()

    @property
    def selected(self) -> frozenset[str]:
        """Return the neighbours whose mean inclusion is above one half."""
        chosen = zip(self.neighbours, self.inclusion, strict=True)
        return frozenset(name for name, weight in chosen if weight > INCLUDED_ABOVE)


def parse_retrieved(text: str) -> list[tuple[str, float]]:
    """Return names and weights of one cell's `NAME(w=1.00)|...`.

    Raises
    ------
    ValueError
        If a part does not have that form.

    Examples
    --------
    >>> parse_retrieved("WARS(w=0.93)|A(B)(w=0.10)")
    [('WARS', 0.93), ('A(B)', 0.1)]
    """
    parts = []
    for part in filter(None, text.split("|")):
        name, mark, weight = part.removesuffix(")").rpartition("(w=")
        if not mark or not part.endswith(")") or not name:
            raise ValueError(part)
        parts.append((name, float(weight)))
    return parts


def read_retrieval(path: str | Path, *, progress: bool = True) -> list[Retrieved]:
    """Read a retrieval file.

    Returns
    -------
    list of Retrieved
        One per condition for which anything was retrieved, by cell line and perturbation.

    Raises
    ------
    StateRagError
        If the file is missing, lacks a column or has a row of another form; the message gives the line.
    """
    path = existing_records(path)
    sums: dict[tuple[str, str], dict[str, list[float]]] = {}
    cells: dict[tuple[str, str], int] = {}
    proposed: dict[tuple[str, str], dict[str, str]] = {}
    with damage_told(path, "Predict again."), open(path, newline="", encoding="utf-8") as stream:
        reader = csv.DictReader(stream)
        if missing := [name for name in NEEDED if name not in (reader.fieldnames or ())]:
            raise StateRagError(f"{path}: no column '{missing[0]}'; it has {', '.join(reader.fieldnames or ['none'])}")
        for row in track(_rows(reader), f"{path.name}", disable=not progress):
            key = (row["cell_type"], row["pert_name"])
            try:
                found = parse_retrieved(row["retrieved_perturbations"] or "")
            except ValueError as error:
                raise StateRagError(
                    f"{path}, line {reader.line_num}: '{error}' is not of the form NAME(w=0.50); predict again"
                ) from error
            if not found:
                continue
            cells[key] = cells.get(key, 0) + 1
            own = sums.setdefault(key, {})
            if said := row.get(SOURCES):
                proposed.setdefault(key, {}).update(zip((name for name, _ in found), said.split("|"), strict=False))
            for rank, (name, weight) in enumerate(found):
                entry = own.setdefault(name, [0.0, 0.0, 0.0])
                entry[0] += weight
                entry[1] += rank
                entry[2] += 1
    records = []
    for (line, perturbation), own in sorted(sums.items()):
        ordered = sorted(own.items(), key=lambda item: item[1][1] / item[1][2])
        names = tuple(name for name, _ in ordered)
        inclusion = np.array([entry[0] / entry[2] for _, entry in ordered])
        by = proposed.get((line, perturbation), {})
        sources = tuple(by.get(name, "none") for name in names) if by else ()
        records.append(Retrieved(line, perturbation, names, inclusion, cells[line, perturbation], sources))
    if not records:
        raise StateRagError(f"{path}: nothing was retrieved for any cell; was the run trained with training.rag=true?")
    return records


def existing_records(path: str | Path) -> Path:
    """Return the path of a retrieval file, which must be there."""
    if not Path(path).is_file():
        raise StateRagError(
            f"{path}: no such file; it is written by `state tx predict` for runs with training.rag=true"
        )
    return Path(path)


def _rows(reader: csv.DictReader) -> Iterator[dict[str, str]]:
    yield from reader
