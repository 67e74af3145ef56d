"""Mean effects of the conditions a run was trained on, read from its data files in chunks.

Which cells are training cells follows cell-load's split rules: a `[zeroshot]` cell type gives its controls to
training and its perturbed cells to the named split; a `[fewshot]` one gives training everything that is neither in
its `val` nor in its `test` list; every other cell type belongs to training if its data set is in `[training]`.

Totals lie in a temporary file (8 bytes a gene and condition), and effects are read from there as they are asked for,
so memory does not grow with the number of conditions.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import h5py
import numpy as np
from scipy import sparse

from state_rag.datasets.h5ad import open_h5ad, read_column
from state_rag.datasets.split_check import find_data_files
from state_rag.datasets.split_toml import Split
from state_rag.effects.conditions import Columns
from state_rag.effects.matrices import open_rows
from state_rag.effects.row_store import RowStore
from state_rag.errors import StateRagError
from state_rag.progress import track

logger = logging.getLogger(__name__)
CHUNK_VALUES = 2**22
"""Values that are read at once: 16 MiB, and twice that while they are added up."""
NO_CONTROLS, NOT_FINITE = "no control cells", "NaN or infinity in its control cells"


@dataclass
class TrainingEffects:
    """Mean effects of training conditions: cell line to perturbation to effect `[G]`, against that line's controls.

    Attributes
    ----------
    effects
        Every condition that can be used; arrays in memory, or read from a file as they are asked for.
    sources
        The data files.
    not_finite
        Conditions `perturbation in line` that are left out because NaN or infinity is among their cells.
    lines_left_out
        Cell lines none of whose effects can be told, and why.
    labels
        Some of the perturbation labels of lines without controls.
    """

    effects: Mapping[str, Mapping[str, np.ndarray]]
    sources: list[str] = field(default_factory=list)
    not_finite: list[str] = field(default_factory=list)
    lines_left_out: dict[str, str] = field(default_factory=dict)
    labels: list[str] = field(default_factory=list)

    @property
    def n_conditions(self) -> int:
        """Return the number of training conditions."""
        return sum(map(len, self.effects.values()))

    def mean_over_lines(self) -> Mapping[str, np.ndarray]:
        """Return every perturbation's effect averaged over the lines that have it."""
        lines: dict[str, list[str]] = {}
        for line, effects in self.effects.items():
            for name in effects:
                lines.setdefault(name, []).append(line)
        return _Computed(lines, lambda name: np.mean([self.effects[line][name] for line in lines[name]], axis=0))


class _GroupTotals:
    """Sums over groups of cells, in temporary files: one for each data file, made when its groups are known."""

    def __init__(self) -> None:
        self.places: dict[tuple[str, str], list[tuple[RowStore, int]]] = {}
        self.cells: dict[tuple[str, str], int] = {}

    def open(self, groups: Sequence[tuple[str, str]], sizes: Sequence[int], width: int) -> RowStore:
        """Make room for a file's groups and return it; its rows are in their order."""
        store = RowStore(len(groups), width, np.float64)
        for row, (group, size) in enumerate(zip(groups, sizes, strict=True)):
            self.places.setdefault(group, []).append((store, row))
            self.cells[group] = self.cells.get(group, 0) + int(size)
        return store

    def mean(self, group: tuple[str, str]) -> np.ndarray:
        """Return a group's mean `[G]` over all files."""
        total, *further = (store[row] for store, row in self.places[group])
        for part in further:
            total = total + part
        return total / self.cells[group]


@dataclass(frozen=True)
class _Computed(Mapping[str, np.ndarray]):
    """Effects `[G]` of some perturbations, computed from the totals at each look."""

    names: Mapping[str, object]
    effect: Callable[[str], np.ndarray]

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self.names:
            raise KeyError(name)
        return self.effect(name)

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


def training_effects(
    split: Split, columns: Columns, matrix: str, n_features: int, *, progress: bool = True
) -> TrainingEffects:
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
        Width that the predictions have; a data file of another width is refused.
    progress
        Whether to show a progress bar.

    Returns
    -------
    TrainingEffects
        Effects of every usable training condition in a line that has controls.

    Raises
    ------
    StateRagError
        If a data file, column or matrix is missing, or widths differ.
    """
    totals = _GroupTotals()
    sources = []
    for dataset, place in split.datasets.items():
        try:
            files = find_data_files(place, f"{split.path}, data set {dataset!r}")
        except StateRagError as error:
            raise StateRagError(f"{error} If the data have moved, name a split that points to them: --toml.") from error
        for path in files:
            sources.append(str(path))
            _add_file(path, dataset, split, columns, matrix, n_features, totals, progress)
    return _against_controls(totals, columns.control, sources)


def _against_controls(totals: _GroupTotals, control: str, sources: list[str]) -> TrainingEffects:
    """Return the effects that can be told from the totals, and what cannot."""
    names: dict[str, list[str]] = {}
    for line, perturbation in totals.places:
        found = names.setdefault(line, [])
        if perturbation != control:
            found.append(perturbation)
    effects: dict[str, Mapping[str, np.ndarray]] = {}
    result = TrainingEffects(effects, sources)
    for line, perturbations in names.items():
        if not perturbations:
            continue
        if (line, control) not in totals.places:
            result.lines_left_out[line] = NO_CONTROLS
            result.labels = sorted({*result.labels, *perturbations})[:8]
            continue
        mean = totals.mean((line, control))
        if not np.isfinite(mean).all():
            result.lines_left_out[line] = NOT_FINITE
            continue
        usable = {name: None for name in perturbations if np.isfinite(totals.mean((line, name))).all()}
        result.not_finite += [f"{name} in {line}" for name in perturbations if name not in usable]
        if usable:
            effects[line] = _Computed(usable, partial(_effect, totals, line, mean))
    return result


def _effect(totals: _GroupTotals, line: str, control: np.ndarray, perturbation: str) -> np.ndarray:
    return totals.mean((line, perturbation)) - control


def _add_file(
    path: Path,
    dataset: str,
    split: Split,
    columns: Columns,
    matrix: str,
    n_features: int,
    totals: _GroupTotals,
    progress: bool,
) -> None:
    """Add one file's training conditions and controls."""
    with open_h5ad(path) as file:
        keys, group_of = _groups(file, columns)
        rows = open_rows(file, matrix)
        if rows.shape[1] != n_features:
            raise StateRagError(
                f"{path}: '{matrix}' has {rows.shape[1]} columns, the predictions have {n_features}; "
                "the run was trained on other data"
            )
        wanted = [
            number
            for number, (line, perturbation) in enumerate(keys)
            if perturbation == columns.control or split.trains_on(dataset, line, perturbation)
        ]
        # The last entry is for cells without a label, whose group is -1.
        place = np.full(len(keys) + 1, -1)
        place[wanted] = np.arange(len(wanted))
        place = place[group_of]
        chosen = np.flatnonzero(place >= 0)
        if len(chosen) == 0:
            return
        store = totals.open([keys[number] for number in wanted], np.bincount(place[chosen]).tolist(), n_features)
        chunk = max(1, CHUNK_VALUES // n_features)
        what = f"{path.name}: training effects"
        for start in track(range(0, len(chosen), chunk), what, disable=not progress):
            part = chosen[start : start + chunk]
            used, member = np.unique(place[part], return_inverse=True)
            members = sparse.csr_matrix((np.ones(len(part)), (member, np.arange(len(part)))))
            for row, total in zip(used.tolist(), members @ rows.read(part).astype(np.float64), strict=True):
                store[row] = store[row] + total


def _groups(file: h5py.File, columns: Columns) -> tuple[list[tuple[str, str]], np.ndarray]:
    """Return the (cell line, perturbation) pairs of a file, and each cell's number among them; -1 without a label."""
    lines, line_of = read_column(file, columns.cell_line, "--cell-type-key")
    perturbations, perturbation_of = read_column(file, columns.perturbation, "--pert-col")
    labelled = (line_of >= 0) & (perturbation_of >= 0)
    if not labelled.all():
        logger.warning("%s: %d cells without a label are no training cells.", file.filename, (~labelled).sum())
    codes, number = np.unique(line_of[labelled] * len(perturbations) + perturbation_of[labelled], return_inverse=True)
    group_of = np.full(len(labelled), -1)
    group_of[labelled] = number
    return [(str(lines[c // len(perturbations)]), str(perturbations[c % len(perturbations)])) for c in codes], group_of
