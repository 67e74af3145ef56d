"""Mean effects of the conditions a run was trained on, read from its data files in chunks.

Which cells are training cells follows cell-load's split rules: a `[zeroshot]` cell type gives its controls to
training and its perturbed cells to the named split; a `[fewshot]` one gives training everything that is neither in
its `val` nor in its `test` list; every other cell type belongs to training if its data set is in `[training]`.
"""

import logging
from dataclasses import dataclass, field

import numpy as np
from scipy import sparse

from state_rag.datasets.h5ad import open_h5ad
from state_rag.datasets.split_check import find_data_files
from state_rag.datasets.split_toml import Split
from state_rag.errors import StateRagError
from state_rag.evaluation.conditions import Columns
from state_rag.evaluation.matrices import open_rows
from state_rag.evaluation.progress import track

logger = logging.getLogger(__name__)
CHUNK = 8192


@dataclass
class TrainingEffects:
    """Mean effects of training conditions: cell line to perturbation to effect `[G]`, against that line's controls."""

    effects: dict[str, dict[str, np.ndarray]]
    sources: list[str] = field(default_factory=list)

    @property
    def n_conditions(self) -> int:
        """Return the number of training conditions."""
        return sum(map(len, self.effects.values()))

    def mean_over_lines(self) -> dict[str, np.ndarray]:
        """Return every perturbation's effect averaged over the lines that have it."""
        gathered: dict[str, list[np.ndarray]] = {}
        for effects in self.effects.values():
            for name, effect in effects.items():
                gathered.setdefault(name, []).append(effect)
        return {name: np.mean(found, axis=0) for name, found in gathered.items()}


def training_effects(
    split: Split, columns: Columns, matrix: str, n_features: int, *, progress: bool = True
) -> TrainingEffects:
    """Read the training cells' mean effects.

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
        Effects of every training condition in a line that has controls.

    Raises
    ------
    StateRagError
        If a data file, column or matrix is missing, or widths differ.
    """
    sums: dict[tuple[str, str], np.ndarray] = {}
    counts: dict[tuple[str, str], int] = {}
    sources = []
    for dataset, place in split.datasets.items():
        try:
            files = find_data_files(place, f"{split.path}, data set {dataset!r}")
        except StateRagError as error:
            raise StateRagError(f"{error} If the data have moved, name a split that points to them: --toml.") from error
        for path in files:
            sources.append(str(path))
            _add_file(path, dataset, split, columns, matrix, n_features, sums, counts, progress)
    means = {key: total / counts[key] for key, total in sums.items()}
    effects: dict[str, dict[str, np.ndarray]] = {}
    for (line, perturbation), mean in means.items():
        control = means.get((line, columns.control))
        if perturbation != columns.control and control is not None:
            effects.setdefault(line, {})[perturbation] = mean - control
    return TrainingEffects(effects, sources)


def _add_file(path, dataset, split: Split, columns, matrix, n_features, sums, counts, progress) -> None:
    """Add one file's training conditions and controls to the running sums."""
    from anndata.io import read_elem

    with open_h5ad(path) as file:
        obs = read_elem(file["obs"])
        for column in (columns.perturbation, columns.cell_line):
            if column not in obs.columns:
                raise StateRagError(f"{path}: obs has no column '{column}'; it has {', '.join(map(str, obs.columns))}")
        rows = open_rows(file, matrix)
        if rows.shape[1] != n_features:
            raise StateRagError(
                f"{path}: '{matrix}' has {rows.shape[1]} columns, the predictions have {n_features}; "
                "the run was trained on other data"
            )
        labels = obs[[columns.cell_line, columns.perturbation]].astype(str)
        groups = labels.groupby(list(labels.columns), observed=True, sort=True)
        group_of, keys = groups.ngroup().to_numpy(), list(groups.indices)
        wanted = np.array(
            [pert == columns.control or split.trains_on(dataset, line, pert) for line, pert in keys], dtype=bool
        )
        if not wanted.any():
            return
        chosen = np.flatnonzero(wanted[group_of])
        totals = np.zeros((len(keys), n_features))
        for start in track(range(0, len(chosen), CHUNK), f"{path.name}: training effects", disable=not progress):
            part = chosen[start : start + CHUNK]
            members = sparse.csr_matrix(
                (np.ones(len(part)), (group_of[part], np.arange(len(part)))), shape=(len(keys), len(part))
            )
            used = np.unique(group_of[part])
            totals[used] += members[used] @ rows.read(part).astype(np.float64)
    sizes = np.bincount(group_of, minlength=len(keys))
    for number, key in enumerate(keys):
        if wanted[number]:
            pair = (str(key[0]), str(key[1]))
            sums[pair] = sums.get(pair, 0) + totals[number]
            counts[pair] = counts.get(pair, 0) + int(sizes[number])
