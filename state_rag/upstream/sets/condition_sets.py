"""Cell sets of chosen test conditions, drawn for each condition by itself.

cell-load shuffles all test sets with one generator and draws control cells with another, in the order of reading, so
what a condition gets depends on which others are read. Here it depends on the condition and a seed only.
"""

import hashlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class CellSet:
    """A set of cells of one condition, and the control cells to be drawn for it.

    Attributes
    ----------
    cell_line, perturbation
        The condition.
    rows
        Its cells, as rows of the loader's dataset.
    seed
        Seed of the draw of control cells.
    """

    cell_line: str
    perturbation: str
    rows: tuple[int, ...]
    seed: int

    def read(self, loader: Any) -> Any:
        """Return the batch that the loader would make of the set."""
        for subset in loader.dataset.datasets:
            subset.dataset.mapping_strategy.rng.seed(self.seed)
            subset.dataset.rng = np.random.default_rng(self.seed)
        return loader.collate_fn([loader.dataset[row] for row in self.rows])


def condition_sets(loader: Any, names: Collection[str], seed: int) -> list[CellSet]:
    """Return the sets of all conditions of some perturbations, by cell line and perturbation.

    Parameters
    ----------
    loader
        A test loader of cell-load's.
    names
        Perturbations, the control too if it is wanted.
    seed
        Which of the possible sets.
    """
    sampler = loader.batch_sampler
    groups: dict[tuple[str, str], list[np.ndarray]] = {}
    for condition, rows in _groups(sampler, set(names)):
        groups.setdefault(condition, []).append(rows)
    found = []
    for (line, name), parts in sorted(groups.items()):
        rng = np.random.default_rng(_entropy(seed, line, name))
        for part in parts:
            rows = part if sampler.use_consecutive_loading else rng.permutation(part)
            rows = rows[: sampler.downsample_cells]
            for start in range(0, len(rows), sampler.cell_sentence_len):
                chosen = rows[start : start + sampler.cell_sentence_len]
                if len(chosen) == sampler.cell_sentence_len or not sampler.drop_last:
                    found.append(CellSet(line, name, tuple(chosen.tolist()), int(rng.integers(2**32))))
    return found


def _groups(sampler: Any, names: set[str]) -> Iterator[tuple[tuple[str, str], np.ndarray]]:
    """Yield the rows that may share a set: of one file, cell line, perturbation and, where that counts, batch."""
    offset = 0
    for subset in sampler.dataset.datasets:
        cells, cache = np.asarray(subset.indices), subset.dataset.metadata_cache
        wanted = np.isin(np.asarray(cache.pert_categories).astype(str), sorted(names))[cache.pert_codes[cells]]
        codes = [cache.cell_type_codes[cells], cache.pert_codes[cells]]
        if sampler.use_batch:
            codes.append(cache.batch_codes[cells])
        keys = np.stack(codes, axis=1)[wanted]
        rows = offset + np.flatnonzero(wanted)
        offset += len(cells)
        if not len(rows):
            continue
        kinds, group_of = np.unique(keys, axis=0, return_inverse=True)
        for number, kind in enumerate(kinds):
            condition = str(cache.cell_type_categories[kind[0]]), str(cache.pert_categories[kind[1]])
            yield condition, rows[group_of.reshape(-1) == number]


def _entropy(*parts: object) -> int:
    """Return a number that depends on nothing but the parts."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest(), "little")
