"""`adata_pred.h5ad` and `adata_real.h5ad`, written while a run predicts instead of being kept in memory."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from state_rag.cells.anchored import LARGEST
from state_rag.errors import StateRagError
from state_rag.h5ad_writing import CellWriter
from state_rag.run_folders import PREDICTED, REAL
from state_rag.upstream.sets.grouped_sets import BARCODES, DECODED, Predicted
from state_rag.upstream.swap import replaced


class StreamedCells:
    """Takes predicted sets and writes their cells; STATE, given no cells, ends its work with two empty objects.

    Their columns and spaces are what the files get, so that these are the ones that STATE would write.

    Parameters
    ----------
    folder
        Where the files shall lie.
    n_cells
        Cells that will come.
    data
        The run's `data.kwargs`.
    embedding
        Name of the space that is kept unclipped beside X: that of a run that predicts an embedding.
    """

    def __init__(
        self, folder: Path, n_cells: Callable[[], int], data: Mapping[str, Any], embedding: str | None
    ) -> None:
        self._folder, self._n_cells, self._data, self._embedding = folder, n_cells, data, embedding
        self._writers: dict[str, CellWriter] = {}
        self._barcodes: list[str] = []

    def take(self, done: Predicted) -> None:
        """Write the cells of some sets."""
        batch, output = done.sets.batch, done.output
        self._barcodes = [name for name in BARCODES if name in batch]  # STATE makes columns of them where it has some
        decoded = output.get(DECODED)
        for name, main, beside in (
            (PREDICTED, DECODED, "preds"),
            (REAL, "pert_cell_counts", "pert_cell_emb"),
        ):
            if name not in self._writers:
                self._writers[name] = CellWriter(self._folder / name, self._n_cells(), BARCODES[:1])
            own = _values(output[beside])
            if decoded is not None:
                matrices = {"X": _clipped(_values(output[main])), f"obsm/{self._data['embed_key']}": own}
            elif self._embedding is not None:
                matrices = {"X": _clipped(own), f"obsm/{self._embedding}": own}
            else:
                matrices = {"X": _clipped(own)}
            self._writers[name].add(matrices, self._labels(batch))

    def _labels(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        labels = {
            self._data["pert_col"]: batch["pert_name"],
            self._data["cell_type_key"]: batch["cell_type"],
            self._data.get("batch_col") or "batch": batch["batch_name"],
        }
        labels |= {name: batch[name] for name in BARCODES if name in batch}
        return {name: [str(value) for value in values] for name, values in labels.items()}

    @contextmanager
    def completing(self, finish: Callable[[], None]) -> Iterator[None]:
        """Have the files finished where STATE writes its empty objects; left by an error, they are given up.

        Parameters
        ----------
        finish
            Has the last sets predicted and taken.
        """
        import anndata

        write: Callable[..., Any] = anndata.AnnData.write_h5ad

        def complete(self_: Any, filename: Any, *args: Any, **kwargs: Any) -> None:
            name = Path(filename).name
            if self_.n_obs or name not in (PREDICTED, REAL):
                write(self_, filename, *args, **kwargs)
                return
            finish()
            if name not in self._writers:
                raise StateRagError("There was no cell to predict. Check the split, and that its test set has cells.")
            self._writers[name].finish([*self_.obs.columns, *self._barcodes], self_.var)
            del self._writers[name]

        try:
            with replaced(anndata.AnnData, "write_h5ad", complete):
                yield
        finally:
            for writer in self._writers.values():
                writer.discard()


def _values(tensor: Any) -> np.ndarray:
    return tensor.detach().float().cpu().numpy()


def _clipped(values: np.ndarray) -> np.ndarray:
    return np.clip(values, 0.0, LARGEST)
