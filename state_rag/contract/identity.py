"""What a run was trained on: its spaces, its files and its split. Travels with the run folder and the checkpoint."""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from state_rag import __version__
from state_rag.cell_files import CellFile, is_group
from state_rag.contract.feature_names import FileMatrices
from state_rag.contract.space import CELLS_READ, Fit, Space, fit, read_space, with_levels_of
from state_rag.errors import StateRagError
from state_rag.files import atomic_path, damage_told, data_size
from state_rag.h5ad import label_of_each, open_cells, read_column

FILE = "data_contract.json"
"""Its name in a run folder."""
FORMAT = 1

_HASHED_ROWS = 200
_FILES_READ_WHOLLY, _CELLS_OF_MANY = 4, 1_000
_NAMES_AT_ONCE = 1 << 18


@dataclass(frozen=True)
class DataFile:
    """A data file as it was.

    Attributes
    ----------
    path
        Absolute.
    size
        Bytes.
    cells
        How many it holds.
    fingerprint
        SHA-256 over the names of its cells and genes and the values of evenly spaced cells: unlike a hash of the file
        it takes a second for any size.
    """

    path: str
    size: int
    cells: int
    fingerprint: str


@dataclass(frozen=True)
class Identity:
    """What a run was trained on.

    Attributes
    ----------
    spaces
        By key (`X`, `obsm/NAME`).
    files
        The data files, in the order in which they are read.
    split
        The split as plain types: `datasets` (with absolute locations), `training`, `zeroshot`, `fewshot`.
    version
        Of state-rag, when it was recorded.
    """

    spaces: dict[str, Space]
    files: tuple[DataFile, ...] = ()
    split: dict[str, Any] | None = None
    version: str = __version__

    def to_dict(self) -> dict[str, Any]:
        """Return plain types."""
        return {
            "format": FORMAT,
            "version": self.version,
            "spaces": [space.to_dict() for space in self.spaces.values()],
            "files": [vars(file) for file in self.files],
            "split": self.split,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Identity":
        """Return what `to_dict` gave.

        Raises
        ------
        StateRagError
            If it was written by a later version.
        """
        if values["format"] != FORMAT:
            raise StateRagError(
                f"what the run was trained on is recorded in format {values['format']}, and this version of state-rag "
                f"reads {FORMAT}. Update state-rag."
            )
        spaces = [Space.from_dict(space) for space in values["spaces"]]
        return cls(
            {space.key: space for space in spaces},
            tuple(DataFile(**file) for file in values["files"]),
            values["split"],
            values["version"],
        )

    def write(self, folder: str | os.PathLike[str]) -> Path:
        """Write it into a run folder."""
        path = Path(folder) / FILE
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(self.to_dict(), indent=1, ensure_ascii=False), encoding="utf-8")
        return path

    @classmethod
    def read(cls, folder: str | os.PathLike[str]) -> "Identity | None":
        """Read it from a run folder; None for a run of before it was recorded.

        Raises
        ------
        StateRagError
            If the file is damaged.
        """
        path = Path(folder) / FILE
        if not path.is_file():
            return None
        with damage_told(path, "Remove it to go on without checks of genes and scale."):
            return cls.from_dict(json.loads(path.read_text(encoding="utf-8")))


def spaces_used(embed_key: str | None, output_space: str | None) -> tuple[str, ...]:
    """Return the matrices that STATE reads under these settings of `data.kwargs`.

    Examples
    --------
    >>> spaces_used("X_hvg", "gene"), spaces_used(None, "gene"), spaces_used("X_state", "all")
    (('obsm/X_hvg',), ('X',), ('obsm/X_state', 'X'))
    """
    if not embed_key:
        return ("X",)
    first = f"obsm/{embed_key}"
    further = {"gene": "obsm/X_hvg", "all": "X"}.get(output_space or "gene", first)
    return (first,) if further == first else (first, further)


@dataclass(frozen=True)
class FileFit:
    """How one file fits what is expected of it: the space, and what was found."""

    path: Path
    space: Space
    fit: Fit


def read_identity(
    files: Sequence[Path],
    keys: Iterable[str],
    *,
    pert_col: str,
    control: str,
    context: str | None = None,
    split: Mapping[str, Any] | None = None,
    expected: Mapping[str, Space] | None = None,
    cells: int | None = None,
    told: Callable[[str], object] | None = None,
) -> tuple[Identity, list[FileFit]]:
    """Read what files hold, and how each fits the first (or what is expected).

    Parameters
    ----------
    files
        The h5ad files.
    keys
        The matrices that are used, see `spaces_used`.
    pert_col, control
        Column and label of control cells, whose means are kept.
    context
        Column of cell lines, whose controls' levels are kept; None for none.
    split
        What the files are split into, to be kept with it.
    expected
        The spaces of a run; by default those of the first file.
    cells
        Read at most so many cells of each file to measure scales; by default `CELLS_READ`, and fewer of each of many
        files.
    told
        Called with each file's name, before it is read.

    Returns
    -------
    tuple
        The identity of the first file's spaces, with all files; and for each file and space how it fits. A file that
        declares names which its values contradict, or that holds other than numbers, does not fit itself.

    Raises
    ------
    StateRagError
        If a file or a matrix is missing.
    """
    known: dict[str, Space] = {}
    records, fits = [], []
    keys = tuple(keys)
    if cells is None:
        cells = min(CELLS_READ, max(_CELLS_OF_MANY, _FILES_READ_WHOLLY * CELLS_READ // max(len(files), 1)))
    for path in files:
        if told is not None:
            told(path.name)
        with open_cells(path) as file:
            categories, codes = read_column(file, pert_col, "data.kwargs.pert_col")
            controls = np.flatnonzero((categories == control)[codes] & (codes >= 0))
            lines = None
            if context is not None:
                names, number = read_column(file, context, "data.kwargs.cell_type_key")
                lines = label_of_each(names, number[controls])
            matrices = FileMatrices(file)
            for key in keys:
                try:
                    space = read_space(matrices, key, controls, cells, lines)
                except StateRagError as error:
                    raise StateRagError(f"{path}: {error}.") from error
                known.setdefault(key, space)
                fits.append(FileFit(path, space, fit((expected or known)[key], space)))
                known[key] = with_levels_of(known[key], space)
            digest = _fingerprint(file, matrices, keys)
            records.append(DataFile(str(path.resolve()), data_size(path), matrices.n_cells, digest))
    return Identity(known, tuple(records), None if split is None else dict(split)), fits


def fingerprint(path: Path, keys: Iterable[str]) -> str:
    """Return the fingerprint of a file (see `DataFile`) over these matrices; empty where it lacks one of them."""
    with open_cells(path) as file:
        return _fingerprint(file, FileMatrices(file), tuple(keys))


def _fingerprint(file: CellFile, matrices: FileMatrices, keys: Sequence[str]) -> str:
    digest = hashlib.sha256()
    for table in ("obs", "var"):
        if table in file:
            index = file[table].attrs.get("_index", "_index")
            if index in file[table] and not is_group(file[table][index]):
                for names in _padded(file[table][index]):
                    digest.update(names.tobytes())
    for key in keys:
        rows = matrices.rows(key)
        if rows is None:
            return ""
        chosen = np.unique(np.linspace(0, max(rows.shape[0] - 1, 0), min(_HASHED_ROWS, rows.shape[0])).astype(np.int64))
        digest.update(key.encode() + np.ascontiguousarray(rows.read(chosen)).tobytes())
    return digest.hexdigest()


def _padded(index: Any) -> Iterator[np.ndarray]:
    """Yield names, a stretch at a time and all of one width, as bytes: what a table of a million has is not held."""

    def stretches() -> Iterator[np.ndarray]:
        for start in range(0, index.shape[0], _NAMES_AT_ONCE):
            names = np.asarray(index[start : start + _NAMES_AT_ONCE])
            if names.dtype.kind in "OTU":
                names = np.array([one if isinstance(one, bytes) else str(one).encode() for one in names.tolist()])
            yield names.astype("S")

    width = max((names.dtype.itemsize for names in stretches()), default=1)
    for names in stretches():
        yield names.astype(f"S{width}")
