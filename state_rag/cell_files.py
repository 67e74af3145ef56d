"""Files of cells, h5ad files and zarr stores: the latter with what an open h5ad file offers, to be read alike."""

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, TypeAlias

import h5py
import numpy as np

from state_rag.errors import StateRagError

SUFFIX = ".zarr"
SUFFIXES = (".h5ad", ".h5", SUFFIX)


def is_store(path: Path) -> bool:
    """Tell whether a path is a folder that is named as a zarr store."""
    return path.suffix == SUFFIX and path.is_dir()


class ZarrStore:
    """An AnnData object in a zarr store, open for reading; tables and matrices by their place, as in an h5ad file.

    Parameters
    ----------
    path
        The folder.

    Raises
    ------
    StateRagError
        If it is no zarr store.
    """

    def __init__(self, path: Path) -> None:
        try:
            import zarr
        except ImportError as error:
            raise StateRagError(f"{path}: reading zarr stores needs the package zarr: pip install zarr") from error
        self.filename = str(path)
        try:
            self._group: Any = zarr.open_group(str(path), mode="r")
        except (OSError, KeyError, ValueError, TypeError) as error:
            said = (str(error) or type(error).__name__).splitlines()[0]
            raise StateRagError(
                f"{path}: cannot be read as a zarr store ({said}). Copy it again, with all that is in the folder."
            ) from error

    def __enter__(self) -> "ZarrStore":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Do nothing: a store keeps no file open."""

    @property
    def attrs(self) -> Any:
        """Attributes of the whole."""
        return self._group.attrs

    def get(self, key: str, default: Any = None) -> Any:
        """Return a group or an array, or else the default."""
        return self._group.get(key, default)

    def __getitem__(self, key: str) -> Any:
        return self._group[key]

    def __contains__(self, key: str) -> bool:
        return key in self._group

    def __iter__(self) -> Iterator[str]:
        return iter(self._group)


CellFile: TypeAlias = h5py.File | ZarrStore


def is_group(node: object) -> bool:
    """Tell whether what lies at a place of a file holds further places, rather than values."""
    return hasattr(node, "keys")


def text_at(file: CellFile, place: str) -> np.ndarray | None:
    """Return the text at a place, str `[n]` (one of a single text); None where there is nothing."""
    node = file.get(place)
    return None if node is None else as_text(np.atleast_1d(np.asarray(node[()])))


def n_cells(file: CellFile) -> int:
    """Return how many cells there are."""
    obs = file["obs"]
    index = obs[obs.attrs.get("_index", "_index")]
    return int((index["values"] if is_group(index) else index).shape[0])  # a group: nullable text


def as_text(values: np.ndarray) -> np.ndarray:
    """Return stored names as str."""
    return np.array([v.decode("utf-8", "replace") if isinstance(v, bytes) else str(v) for v in values], dtype=str)
