"""Read cell sets of cell-load's test loader many at a time: the same cells and controls, rows fetched together."""

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from state_rag.contract.matrices import Rows, open_rows

KEPT_BYTES = 96 * 2**20
"""Control cells that a file's reader keeps in memory; cell-load keeps the last 10,000 cells, however wide they are."""


class SetReader:
    """Reads sets as `PerturbationDataset.__getitem__` and `collate_fn` would, but for ``pert_emb``, which is left out.

    Control cells are drawn by cell-load's own mapping strategy, cell after cell. With loader processes each has its own
    copy of the generator and reads every W-th set; so do the draws here, in one process.

    Parameters
    ----------
    loader
        A test loader of cell-load's that `can_read` accepts.
    """

    def __init__(self, loader: Any) -> None:
        self._subsets = loader.dataset.datasets
        self._ends = np.asarray(loader.dataset.cumulative_sizes)
        self._sets_read = 0
        self._strategies = list({id(part.dataset): part.dataset.mapping_strategy for part in self._subsets}.values())
        self._generators = [[copy.deepcopy(s.rng) for s in self._strategies] for _ in range(loader.num_workers)]
        self._matrices: dict[tuple[int, str], Rows] = {}
        self._kept: dict[tuple[int, str], _KeptRows] = {}

    @staticmethod
    def can_read(loader: Any) -> bool:
        """Tell whether all that the loader gives can be read: nothing is thinned out, exponentiated or added."""
        if (getattr(loader.collate_fn, "keywords", None) or {}).get("exp_counts"):
            return False
        return all(
            not part.dataset.store_raw_basal
            and not part.dataset.additional_obs
            and part.dataset.downsample in (None, 1.0)
            and not getattr(part.dataset.mapping_strategy, "use_consecutive_loading", False)
            and hasattr(part.dataset.mapping_strategy, "rng")
            for part in loader.dataset.datasets
        )

    def read(self, sets: Sequence[Sequence[int]]) -> dict[str, Any]:
        """Return the cells of some sets, which follow those of the last call, as one batch.

        Parameters
        ----------
        sets
            Rows of the loader's dataset, set by set.

        Returns
        -------
        dict
            What the loader's batches have, for all cells of all sets; ``batch`` as indices [N].
        """
        rows = np.concatenate([np.asarray(own, dtype=np.int64) for own in sets])
        which = np.searchsorted(self._ends, rows, side="right")
        cells, controls = np.empty_like(rows), np.empty_like(rows)
        for place, (cell, control) in enumerate(self._drawn(sets, which.tolist())):
            cells[place], controls[place] = cell, control
        files: dict[int, np.ndarray] = {}
        for number in np.unique(which):
            same = np.flatnonzero(which == number)
            key = id(self._subsets[number].dataset)
            files[key] = np.concatenate([files[key], same]) if key in files else same
        datasets = {id(part.dataset): part.dataset for part in self._subsets}
        batch: dict[str, Any] = {}
        for key, places in files.items():
            for name, values in self._of_file(datasets[key], cells[places], controls[places]).items():
                _put(batch, name, values, places, len(rows))
        return batch

    def _drawn(self, sets: Sequence[Sequence[int]], which: Sequence[int]) -> Iterator[tuple[int, int]]:
        """Yield each cell's row in its file, and that of its control; -1 where there is none."""
        starts, numbers = [0, *self._ends.tolist()], iter(which)
        for own in sets:
            if self._generators:
                generators = self._generators[self._sets_read % len(self._generators)]
                for strategy, generator in zip(self._strategies, generators, strict=True):
                    strategy.rng = generator
            self._sets_read += 1
            for row in own:
                number = next(numbers)
                subset = self._subsets[number]
                dataset = subset.dataset
                cell = int(dataset.all_indices[subset.indices[row - starts[number]]])
                split = dataset._find_split_for_idx(cell)
                control = dataset.mapping_strategy.get_control_index(dataset, split, cell)
                yield cell, -1 if control is None else int(control)

    def _of_file(self, dataset: Any, cells: np.ndarray, controls: np.ndarray) -> dict[str, Any]:
        dataset.ensure_h5_open()
        cache = dataset.metadata_cache
        batches = [int(dataset.batch_onehot_map[name].argmax()) for name in cache.batch_categories]
        codes = cache.batch_codes[cells]
        space = dataset.embed_key or ""
        found: dict[str, Any] = {
            "pert_cell_emb": self._rows(dataset, space).read(cells),
            "ctrl_cell_emb": self._controls(dataset, space, controls),
            "pert_name": np.asarray(dataset.pert_categories, dtype=object)[cache.pert_codes[cells]],
            "cell_type": np.asarray(dataset.cell_type_categories, dtype=object)[cache.cell_type_codes[cells]],
            "dataset_name": np.full(len(cells), dataset.name, dtype=object),
            "batch_name": np.asarray(cache.batch_categories, dtype=object)[codes],
            "batch": np.array(batches, dtype=np.int64)[codes],
        }
        if dataset.store_raw_expression and dataset.output_space != "embedding":
            counts = "X_hvg" if dataset.output_space == "gene" else ""
            same = counts == space
            found["pert_cell_counts"] = found["pert_cell_emb"] if same else self._rows(dataset, counts).read(cells)
        if dataset.barcode and dataset.cell_barcodes is not None:
            found["pert_cell_barcode"] = dataset.cell_barcodes[cells].astype(object)
            found["ctrl_cell_barcode"] = dataset.cell_barcodes[controls].astype(object)
        return found

    def _rows(self, dataset: Any, space: str) -> Rows:
        """Return the matrix ``obsm[space]`` of a file, or X where `space` is empty."""
        key = id(dataset), space
        if key not in self._matrices:
            self._matrices[key] = open_rows(dataset.h5_file, f"obsm/{space}" if space else "X")
        return self._matrices[key]

    def _controls(self, dataset: Any, space: str, rows: np.ndarray) -> np.ndarray:
        """Return float32 [len(rows), D]; zeros for row -1."""
        key = id(dataset), space
        if key not in self._kept:
            self._kept[key] = _KeptRows(self._rows(dataset, space))
        return self._kept[key].rows(rows)


class _KeptRows:
    """Rows of a matrix in a file, the last ones kept; row -1 is zeros."""

    def __init__(self, matrix: Rows) -> None:
        self._fetch = matrix.read
        self._slot = np.full(matrix.shape[0], -1, dtype=np.int32)
        self._values: np.ndarray | None = None
        self._owner = np.empty(0, dtype=np.int64)
        self._next = 0

    def rows(self, wanted: np.ndarray) -> np.ndarray:
        """Return float32 [len(wanted), D]."""
        asked = np.unique(wanted[wanted >= 0])
        missing = asked[self._slot[asked] < 0]
        if self._values is None:
            first = self._fetch(missing[:1]) if len(missing) else self._fetch(np.zeros(1, dtype=np.int64))
            places = max(1, KEPT_BYTES // max(first[0].nbytes, 1))
            places = min(places, len(self._slot))
            self._values = np.empty((places, first.shape[1]), dtype=np.float32)
            self._owner = np.full(places, -1, dtype=np.int64)
        if len(missing) + self._next > len(self._values):
            # Start anew: what is thrown away is read again when it is asked for.
            self._slot[self._owner[: self._next]] = -1
            self._next, missing = 0, asked
        if len(missing) > len(self._values):
            values, place = self._fetch(asked), np.searchsorted(asked, wanted)
        else:
            if len(missing):
                slots = np.arange(self._next, self._next + len(missing))
                self._values[self._next : slots[-1] + 1] = self._fetch(missing)
                self._owner[slots], self._slot[missing] = missing, slots
                self._next += len(missing)
            values, place = self._values, self._slot[wanted]
        found = values[place]
        found[wanted < 0] = 0
        return found


def _put(batch: dict[str, Any], name: str, values: Any, places: np.ndarray, total: int) -> None:
    """Put the cells of one file at their places."""
    if values.dtype == object:
        if name not in batch:
            batch[name] = [""] * total
        for place, value in zip(places.tolist(), values.tolist(), strict=True):
            batch[name][place] = value
        return
    tensor = torch.from_numpy(np.ascontiguousarray(values))
    if len(places) == total:
        batch[name] = tensor if np.array_equal(places, np.arange(total)) else tensor[np.argsort(places)]
        return
    if name not in batch:
        batch[name] = tensor.new_zeros(total, *tensor.shape[1:])
    batch[name][torch.from_numpy(places)] = tensor
