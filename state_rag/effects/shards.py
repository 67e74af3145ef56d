"""Sums of the cells of one file, or of a stretch of a large one, by line and perturbation; read again if kept.

What is kept of a file goes by what the file is: size, time of the last change, and its first and last MiB (of a zarr
store: names, sizes and times of its files, and its metadata), not by where it lies. So a file that was moved is known,
one that was changed or written anew is read again. The key holds all that the sums depend on besides: the program, the
matrix, the genes in their order, and the columns of `obs`. It does not hold the split: the sums of all conditions are
kept, and whoever needs those of some takes these.
"""

import hashlib
import json
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from state_rag.cache import ENVIRONMENT, cache_folder, program_digest
from state_rag.cell_files import CellFile, is_store
from state_rag.datasets.treated_labels import Labels, read_labels
from state_rag.effects.aligned_rows import AlignedRows
from state_rag.effects.cell_sums import CellSums, sum_cells
from state_rag.effects.conditions import Columns
from state_rag.effects.sums_file import FORMAT, read_about, write_sums
from state_rag.errors import StateRagError
from state_rag.files import data_size, files_of, writable_folder
from state_rag.h5ad import open_cells, read_column

logger = logging.getLogger(__name__)

CELLS_AT_ONCE = 2**19
"""Cells of a stretch: larger files are read in several, each of which is kept."""
KEPT_FROM = 2**25
"""Bytes from which on a file's sums are kept; smaller ones are read in the time that it takes to look."""

AT_HAND = 2**26
"""Bytes of sums up to which those of a thread of this process are handed over, rather than read from where they lie."""

_ENDS = 1 << 20

_PACKAGE = Path(__file__).resolve().parents[1]
PROGRAM = tuple(
    _PACKAGE / part
    for part in ("effects", "contract", "names", "cell_files.py", "h5ad.py", "datasets/treated_labels.py")
)
"""Sources by which cells become sums: what another version made of a file is not taken for what this one makes."""


@dataclass(frozen=True)
class Wanted:
    """What is summed, of every file.

    Attributes
    ----------
    matrix
        `X` or `obsm/NAME`.
    columns
        Names in `obs`.
    names
        Genes, in order; None where they have no names.
    width
        How many there are.
    first
        Where they come from.
    """

    matrix: str
    columns: Columns
    names: tuple[str, ...] | None
    width: int
    first: str

    @property
    def digest(self) -> str:
        """A digest of all that sums depend on."""
        told = [FORMAT, program_digest(*PROGRAM), self.matrix, asdict(self.columns), self.names, self.width]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()


@dataclass(frozen=True)
class Shard:
    """Cells of a file from `start` to before `stop`, and where their sums are kept (None: nowhere)."""

    path: Path
    start: int
    stop: int
    kept: Path | None

    def __str__(self) -> str:
        return f"{self.path}, cells {self.start:,} to {self.stop:,}"


@dataclass(frozen=True)
class ShardSums:
    """Sums of a shard's cells, or None where they lie in its file, and its number of cells without a label.

    Groups are called by line, label, and what the column of perturbations has.
    """

    sums: CellSums | None
    unlabelled: int


def shards_of(path: Path, cells: int, wanted: Wanted, folder: Path | None) -> list[Shard]:
    """Return the stretches of a file.

    Parameters
    ----------
    path
        The file.
    cells
        How many it has.
    wanted
        What is summed.
    folder
        Where sums are kept; None for nowhere.
    """
    identity = None
    if folder is not None and data_size(path) >= KEPT_FROM:
        identity = f"{content_identity(path)} {wanted.digest}"
    found = []
    for start in range(0, max(cells, 1), CELLS_AT_ONCE):
        stop, kept = min(start + CELLS_AT_ONCE, cells), None
        if folder is not None and identity is not None:
            kept = folder / f"{hashlib.sha256(f'{identity} {start} {stop}'.encode()).hexdigest()}.arrow"
        found.append(Shard(path, start, stop, kept))
    return found


def content_identity(path: Path) -> str:
    """Return a digest that tells a file, or a zarr store, from what it was before, wherever it lies."""
    files = files_of(path)
    digest = hashlib.sha256(repr(files).encode())
    for name, size, _ in files:
        if is_store(path) and not Path(name).name.startswith((".z", "zarr.json")):
            continue
        with open(path / name, "rb") as stream:
            digest.update(stream.read(_ENDS))
            if size > _ENDS:
                stream.seek(max(_ENDS, size - _ENDS))
                digest.update(stream.read(_ENDS))
    return digest.hexdigest()


def sums_folder() -> Path | None:
    """Return the folder where sums are kept, made if need be; None where nothing can be kept, which is said."""
    try:
        return writable_folder(cache_folder() / "sums", ENVIRONMENT)
    except StateRagError as error:
        logger.warning("Sums of cells are not kept. %s", error)
        return None


def kept_sums(shard: Shard) -> ShardSums | None:
    """Return what is kept of a shard; None where nothing is, or nothing that can be read."""
    if shard.kept is None or not shard.kept.is_file():
        return None
    try:
        return ShardSums(None, int(read_about(shard.kept)["unlabelled"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def sum_shard(wanted: Wanted, shard: Shard, told: Callable[[int], object] | None = None) -> ShardSums:
    """Read a shard, and keep its sums where it says.

    Parameters
    ----------
    wanted
        What is summed.
    shard
        The cells.
    told
        Called with the number of cells after each block.

    Raises
    ------
    StateRagError
        Naming the file, if it cannot be read, or lacks a column, the matrix or a gene.
    """
    try:
        with open_cells(shard.path) as file:
            keys, group_of = cell_groups(file, wanted.columns, shard.start, shard.stop)
            rows = AlignedRows(wanted.names, wanted.first, wanted.width).open(file, wanted.matrix)
            if rows.shape[0] < shard.stop:
                raise StateRagError(f"'{wanted.matrix}' has {rows.shape[0]:,} rows, obs has more.")
            found = sum_cells(rows, keys, group_of, shard.start, told)
    except StateRagError as error:
        named = str(shard.path) in str(error)
        raise error if named else StateRagError(f"{shard.path}: {error}") from error
    except (OSError, KeyError, ValueError, IndexError, TypeError) as error:
        said = (str(error) or type(error).__name__).splitlines()[0]
        raise StateRagError(f"{shard} cannot be read ({said}). The file is damaged; copy or write it again.") from error
    unlabelled = int((group_of < 0).sum())
    if shard.kept is not None:
        try:
            write_sums(shard.kept, found, {"unlabelled": unlabelled})
            if told is None or found.sums.nbytes > AT_HAND:
                return ShardSums(None, unlabelled)
        except (OSError, StateRagError) as error:
            logger.warning("The sums of %s are not kept (%s): %s", shard.path, ENVIRONMENT, error)
    return ShardSums(found, unlabelled)


def cell_groups(
    file: CellFile, columns: Columns, start: int = 0, stop: int | None = None
) -> tuple[list[tuple[str, str, str]], np.ndarray]:
    """Return the groups of a file's cells and each cell's number among them, -1 without a label.

    Parameters
    ----------
    file
        An open file of cells.
    columns
        Names in `obs`.
    start, stop
        Only the cells from `start` to before `stop`.

    Returns
    -------
    tuple
        Line, label and what the column of perturbations has, of each group, in the order of the categories; where
        labels tell modes, doses or times, a line and label may stand there more than once. And int `[cells]`.
    """
    lines, line_of = read_column(file, columns.cell_line, "--cell-type-key", start, stop)
    told = read_labels(file, columns.perturbation, columns.control, columns.treatment, start=start, stop=stop)
    return grouped(lines, line_of, told)


def grouped(lines: np.ndarray, line_of: np.ndarray, told: Labels) -> tuple[list[tuple[str, str, str]], np.ndarray]:
    """Return groups as `cell_groups` does, of cells with the number of their line, int `[cells]`, and their label."""
    count = max(1, len(told.labels))
    labelled = (line_of >= 0) & (told.code >= 0)
    number = line_of[labelled] * count + told.code[labelled]
    present = np.flatnonzero(np.bincount(number, minlength=len(lines) * count))
    place = np.empty(len(lines) * count, dtype=np.int64)
    place[present] = np.arange(len(present))
    group_of = np.full(len(labelled), -1)
    group_of[labelled] = place[number]
    keys = [
        (str(lines[line]), str(told.labels[code]), str(told.names[code]))
        for line, code in zip((present // count).tolist(), (present % count).tolist(), strict=True)
    ]
    return keys, group_of
