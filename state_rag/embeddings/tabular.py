"""Read embedding tables from text and parquet files: one perturbation a row."""

import csv
import gzip
import io
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from state_rag.embeddings.progress import byte_progress
from state_rag.embeddings.table import check_names
from state_rag.errors import StateRagError
from state_rag.names import listing
from state_rag.text_lines import number_in

Rows = dict[Any, Any]

BATCH_VALUES = 2**23
"""Values of a parquet table that are read at a time, where only some rows are wanted."""


def read_delimited(path: Path, names: Collection[str] | None, progress: bool) -> Rows:
    """Read a CSV or TSV (`.gz` too): the name first, then D numbers.

    The first line is the header, as every data-frame library writes it, unless it reads as a data row: a name followed
    by numbers that are not the plain count 0, 1, 2, ... or 1, 2, 3, ... Lines are read one at a time and only the
    rows of `names` become numbers.

    Parameters
    ----------
    path
        The file; tab-separated if its name says `.tsv`.
    names
        Keep only these rows (None: all).
    progress
        Show a bar on a terminal.

    Returns
    -------
    dict
        Name -> float32 ``[D]``, in the file's order.

    Raises
    ------
    StateRagError
        A cell is no number (line and name are given), a name is empty or occurs twice.
    """
    delimiter = "\t" if ".tsv" in path.suffixes else ","
    rows: Rows = {}
    twice: list[str] = []
    with _text_lines(path, progress) as lines:
        for number, cells in enumerate(csv.reader(lines, delimiter=delimiter)):
            if not any(map(str.strip, cells)) or (number == 0 and _is_header(cells)):
                continue
            name = cells[0]
            if not name.strip():
                raise StateRagError(
                    f"{path}: line {number + 1} has no name. pandas takes a name such as NA for a missing one unless "
                    "it reads with `keep_default_na=False`; write the name there, or leave the line out"
                )
            if len(cells) < 2:
                raise StateRagError(
                    f"{path}: line {number + 1} has no '{delimiter}'-separated numbers after the name '{name[:40]}'; "
                    "expected a name and then one number a column"
                )
            if names is not None and name not in names:
                continue
            if name in rows:
                twice.append(name)
            rows[name] = _numbers(cells, path, number + 1)
    if twice:
        raise StateRagError(f"{path}: names that occur more than once: {listing(twice)}. Keep one row for each")
    return rows


def _numbers(cells: list[str], path: Path, line: int) -> np.ndarray:
    try:
        with np.errstate(over="ignore"):
            return np.array(cells[1:], dtype=np.float64).astype(np.float32)
    except ValueError:
        column = next(index for index, cell in enumerate(cells) if index and not number_in(cell) is not None)
        raise StateRagError(
            f"{path}: line {line}, '{cells[0]}', column {column + 1}: expected a number, found {cells[column]!r}"
        ) from None


def _is_header(cells: list[str]) -> bool:
    if not cells[0].strip() or not all(number_in(cell) is not None for cell in cells[1:]):
        return True
    numbers = [float(cell) for cell in cells[1:]]
    return numbers in (list(range(len(numbers))), list(range(1, len(numbers) + 1)))


@contextmanager
def _text_lines(path: Path, progress: bool) -> Iterator[Iterator[str]]:
    with open(path, "rb") as file, byte_progress(file, f"reading {path.name}", show=progress) as counted:
        binary: Any = gzip.GzipFile(fileobj=counted) if path.suffix.lower() == ".gz" else counted
        yield _lines_of(binary)


def _lines_of(binary: Any) -> Iterator[str]:
    decoder = io.TextIOWrapper(io.BufferedReader(_Raw(binary), 1 << 20), encoding="utf-8-sig", newline="")
    with decoder:
        yield from decoder


class _Raw(io.RawIOBase):
    """The raw-stream face that `io.BufferedReader` asks for, over anything with `read`."""

    def __init__(self, binary: Any):
        self.binary = binary

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self.binary.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def read_parquet(path: Path, names: Collection[str] | None, progress: bool) -> tuple[list[Any], Any]:
    """Read a parquet table.

    Names are the index if that is text, else the first text column. The vectors are the numeric columns, or one column
    of lists.

    Parameters
    ----------
    path
        The file.
    names
        Keep only these rows (None: all).
    progress
        Not used.

    Returns
    -------
    tuple of list and array or list
        Names and their vectors, ``[P, D]`` or a list of P.

    Raises
    ------
    StateRagError
        There is no text column, or columns of other kinds are among the numbers.
    """
    import pandas as pd

    frame, labels = _frame_of(path, names)
    numeric = [column for column in frame.columns if pd.api.types.is_numeric_dtype(frame[column].dtype)]
    if len(numeric) == len(frame.columns) and numeric:
        with np.errstate(over="ignore"):
            return list(labels), frame.to_numpy(dtype=np.float32, na_value=np.nan)
    if len(frame.columns) == 1:
        return list(labels), list(frame.iloc[:, 0])
    other = [column for column in frame.columns if column not in numeric]
    raise StateRagError(
        f"{path}: expected numeric columns or one of lists, found other values in {listing(other or ['no column'])}"
    )


def _frame_of(path: Path, names: Collection[str] | None) -> tuple[Any, Any]:
    """Return the numbers and the labels of a parquet table; of a part of it, read in batches of rows."""
    import pandas as pd
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    if names is None:
        return _parted(pd.read_parquet(path), path)
    frames, labels = [], []
    wanted = list(names)
    with parquet.ParquetFile(path) as file:
        rows = max(1, BATCH_VALUES // max(file.metadata.num_columns, 1))
        for batch in file.iter_batches(batch_size=rows):
            frame, found = _parted(arrow.Table.from_batches([batch]).to_pandas(), path)
            keep = found.isin(wanted)
            frames.append(frame[keep])
            labels.append(found[keep])
        if not frames:
            return _parted(file.read().to_pandas(), path)
    return pd.concat(frames), labels[0].append(labels[1:])


def _parted(frame: Any, path: Path) -> tuple[Any, Any]:
    """Return the columns of numbers, and the labels."""
    import pandas as pd

    text = [column for column in frame.columns if _is_text(frame[column])]
    if _is_text(frame.index.to_series()):
        labels = frame.index
    elif text:
        labels = pd.Index(frame[text[0]])
        frame = frame.drop(columns=text[0])
        text = text[1:]
    else:
        missing = max((int(one.isna().sum()) for one in _texts_with_gaps(frame)), default=0)
        if missing:
            raise StateRagError(
                f"{path}: {missing} perturbations have no name. pandas takes a name such as NA for a missing one "
                "unless it reads with `keep_default_na=False`; name them, or leave them out"
            )
        raise StateRagError(f"{path}: expected the perturbation names as a text index or text column, found none")
    if text:
        raise StateRagError(f"{path}: expected numbers beside the names, found text in column(s) {listing(text)}")
    return frame, labels


def _texts_with_gaps(frame: Any) -> list[Any]:
    """Return the index and the columns that are text but for missing values."""
    import pandas as pd

    columns = [frame.index.to_series(), *(frame[column] for column in frame.columns)]
    return [one for one in columns if one.isna().any() and pd.api.types.infer_dtype(one, skipna=True) == "string"]


def _is_text(series: Any) -> bool:
    import pandas as pd

    return bool(len(series)) and pd.api.types.infer_dtype(series, skipna=False) == "string"


def rows_of(names: list[Any], vectors: Any, source: str) -> Rows:
    """Return name -> vector, once the names are known to be text and distinct."""
    check_names(names, source)
    return dict(zip(names, vectors, strict=True))
