"""Mean effects of the conditions a run was trained on, read from its data files in chunks.

Which cells are training cells follows cell-load's split rules: a `[zeroshot]` cell type gives its controls to
training and its perturbed cells to the named split; a `[fewshot]` one gives training everything that is neither in
its `val` nor in its `test` list; every other cell type belongs to training if its data set is in `[training]`.
"""

import glob
import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import toml
from scipy import sparse

from state_rag.errors import StateRagError
from state_rag.evaluation.conditions import Columns
from state_rag.evaluation.matrices import open_h5ad, open_rows
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


@dataclass(frozen=True)
class Split:
    """A split TOML: data set paths and who trains on what."""

    path: Path
    datasets: dict[str, str]
    training: dict[str, str]
    zeroshot: dict[str, str]
    fewshot: dict[str, dict[str, list[str]]]

    def trains_on(self, dataset: str, cell_line: str, perturbation: str) -> bool:
        """Return whether perturbed cells of this kind are training cells."""
        key = f"{dataset}.{cell_line}"
        if key in self.zeroshot:
            return self.zeroshot[key] == "train"
        if key in self.fewshot:
            held = self.fewshot[key]
            return perturbation not in held.get("val", []) and perturbation not in held.get("test", [])
        return dataset in self.training

    def names_dataset(self, dataset: str) -> bool:
        """Return whether any part of the split uses the data set."""
        keys = [*self.zeroshot, *self.fewshot]
        return dataset in self.training or any(key.split(".")[0] == dataset for key in keys)


def read_split(path: str | Path) -> Split:
    """Read a split TOML.

    Raises
    ------
    StateRagError
        If the file is missing or not valid TOML.
    """
    path = Path(path)
    try:
        content = toml.loads(path.read_text())
    except FileNotFoundError as error:
        raise StateRagError(f"{path}: no such file; give the split's present place with --toml") from error
    except toml.TomlDecodeError as error:
        raise StateRagError(f"{path}: not valid TOML ({error})") from error
    parts = [dict(content.get(name, {})) for name in ("datasets", "training", "zeroshot", "fewshot")]
    return Split(path, *parts)


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
        if not split.names_dataset(dataset):
            continue
        files = data_files(place)
        if not files:
            raise StateRagError(
                f"{split.path}: data set '{dataset}' points to {place}, where there is no .h5ad file; "
                "give a split file with the present place with --toml"
            )
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


def data_files(place: str) -> list[Path]:
    """Return the data files of a data set: a file, a folder, or a pattern with wildcards and `{a,b}`."""
    if not any(sign in place for sign in "*?[]{}"):
        path = Path(place)
        if path.is_file():
            return [path]
        return sorted(found for suffix in ("*.h5", "*.h5ad") for found in path.glob(suffix))
    found = []
    for pattern in _expand_braces(place):
        patterns = [pattern] if pattern.endswith((".h5", ".h5ad")) else [f"{pattern.rstrip('/')}/*.h5*"]
        found += [Path(name) for each in patterns for name in glob.glob(each)]
    return sorted(set(found))


def _expand_braces(text: str) -> Iterable[str]:
    match = re.search(r"\{([^}]+)\}", text)
    if not match:
        return [text]
    before, after = text[: match.start()], text[match.end() :]
    return [whole for part in match.group(1).split(",") for whole in _expand_braces(before + part.strip() + after)]


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
