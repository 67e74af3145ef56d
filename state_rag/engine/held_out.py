"""The cells that a split tests, and for each a control cell to predict it from."""

import hashlib
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from state_rag.cells.anchored import drawn_from
from state_rag.datasets.data_files import find_data_files
from state_rag.datasets.splitting.split_toml import Split
from state_rag.datasets.treated_labels import read_labels
from state_rag.effects.conditions import Columns
from state_rag.h5ad import open_cells, read_column


@dataclass(frozen=True)
class HeldOutCells:
    """Tested and control cells of one file and line.

    Attributes
    ----------
    path
        The file.
    line
        Cell line.
    conditions
        Perturbation -> rows of its cells, in the file's order.
    controls
        Rows of the line's control cells.
    batches
        Batch of every cell of the file, int `[cells]`, and names of batches.
    """

    path: Path
    line: str
    conditions: dict[str, np.ndarray]
    controls: np.ndarray
    batches: np.ndarray
    batch_names: np.ndarray

    def rng(self, perturbation: str, seed: int, *purpose: str) -> np.random.Generator:
        """Return a generator whose numbers hang on seed, line, perturbation and purpose alone."""
        text = "\t".join((str(seed), self.line, perturbation, *purpose))
        return np.random.default_rng(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big"))

    def control_rows(self, perturbation: str, seed: int) -> np.ndarray:
        """Return a control row for each cell of a condition, of its own batch where that has controls.

        A draw hangs on seed, line and perturbation alone. No control is drawn twice while others are left.
        """
        rows, rng = self.conditions[perturbation], self.rng(perturbation, seed)
        drawn = np.empty(len(rows), dtype=np.int64)
        for batch in np.unique(self.batches[rows]):
            own = self.batches[rows] == batch
            pool = self.controls[self.batches[self.controls] == batch]
            pool = pool if len(pool) else self.controls
            drawn[own] = drawn_from(pool, int(own.sum()), rng)
        return drawn


def held_out_cells(
    split: Split, columns: Columns, batch_col: str, keep: Collection[str] | None = None, train: bool = False
) -> Iterator[HeldOutCells]:
    """Yield the tested cells of a split, file by file and line by line.

    Parameters
    ----------
    split
        From `read_split`.
    columns
        Names in `obs`.
    batch_col
        Column of the batch.
    keep
        Perturbations to keep; None for all.
    train
        The training cells instead of the tested ones.
    """
    for dataset, place in split.datasets.items():
        for path in find_data_files(place, f"{split.path}, data set {dataset!r}"):
            with open_cells(path) as file:
                lines, line_of = read_column(file, columns.cell_line, "data.kwargs.cell_type_key")
                told = read_labels(
                    file, columns.perturbation, columns.control, columns.treatment, "data.kwargs.pert_col"
                )
                batch_names, batches = read_column(file, batch_col, "data.kwargs.batch_col")
            for number, line in enumerate(lines.tolist()):
                here = np.flatnonzero(line_of == number)
                asked = split.trains_on if train else split.tests
                parts: dict[str, list[np.ndarray]] = {}
                for code in np.unique(told.code[here]).tolist():
                    label, name = str(told.labels[code]), str(told.names[code])
                    if label == columns.control or not (keep is None or {label, name} & set(keep)):
                        continue
                    if code >= 0 and asked(dataset, line, name):
                        parts.setdefault(label, []).append(here[told.code[here] == code])
                found = {label: np.sort(np.concatenate(parts[label])) for label in sorted(parts)}
                controls = here[(told.code[here] >= 0) & (told.labels[told.code[here]] == columns.control)]
                if found and len(controls):
                    yield HeldOutCells(path, line, found, controls, batches, batch_names)


def conditions_of(split: Split, columns: Columns) -> dict[tuple[str, str, str], int]:
    """Return what a split's files hold, from their labels alone: (part, cell line, perturbation) -> number of cells.

    The part is `train`, `test`, or empty for what is neither; controls are not among them.

    Raises
    ------
    StateRagError
        If a data file or column is missing.
    """
    found: Counter[tuple[str, str, str]] = Counter()
    for dataset, place in split.datasets.items():
        for path in find_data_files(place, f"{split.path}, data set {dataset!r}"):
            with open_cells(path) as file:
                lines, line_of = read_column(file, columns.cell_line, "data.kwargs.cell_type_key")
                told = read_labels(
                    file, columns.perturbation, columns.control, columns.treatment, "data.kwargs.pert_col"
                )
            labelled, count = (line_of >= 0) & (told.code >= 0), len(told.labels)
            table = np.bincount(line_of[labelled] * count + told.code[labelled], minlength=len(lines) * count)
            for number in np.flatnonzero(table).tolist():
                line, code = str(lines[number // count]), number % count
                label, name = str(told.labels[code]), str(told.names[code])
                if label != columns.control:
                    trained, tested = (part(dataset, line, name) for part in (split.trains_on, split.tests))
                    found["train" if trained else "test" if tested else "", line, label] += int(table[number])
    return dict(found)
