"""Tables of embeddings that stay in their file: rows are read when they are needed, whatever the table's size."""

import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from state_rag.errors import StateRagError
from state_rag.text_lines import text_lines

NAMES_KEY = "names"
"""Tensor of the names in safetensors: a JSON list as bytes of UTF-8."""
BESIDE = (".names.txt", ".names.parquet", ".txt", ".parquet")
"""Endings of the file of names beside a `.npy` file, in the order in which they are looked for."""


def read_npy(path: Path, names: Collection[str] | None) -> tuple[list[str], np.ndarray]:
    """Read a NumPy array of vectors, whose names lie beside it: of `base.npy` in `base.names.txt`, one a line.

    The matrix is mapped, not loaded; what is written to it does not reach the file. Names in parquet are its only text
    column, or its index.

    Parameters
    ----------
    path
        The file; float32 `[P, D]` in C order is used as it lies, other numbers are converted.
    names
        Keep these only (None: all).

    Raises
    ------
    StateRagError
        There are no names beside it, not one for each row, or the array is no matrix of numbers.
    """
    beside = names_beside(path)
    if beside is None:
        raise StateRagError(
            f"{path}: a .npy file has no names; put them beside it, one a line and in the order of the rows, as "
            f"{path.stem}{BESIDE[0]} (or {', '.join(path.stem + ending for ending in BESIDE[1:])})"
        )
    matrix = np.load(path, mmap_mode="c", allow_pickle=False)
    if matrix.ndim != 2 or matrix.dtype.kind not in "iuf":
        raise StateRagError(
            f"{path}: expected a matrix of numbers with a row for each name, found {matrix.dtype} values of shape "
            f"{list(matrix.shape)}"
        )
    stored = _names_in(beside)
    if len(stored) != len(matrix):
        raise StateRagError(f"{path} has {len(matrix)} rows, but {beside} has {len(stored)} names; each row needs one")
    return taken(stored, matrix, names)


def names_beside(path: Path) -> Path | None:
    """Return the file with the names of a `.npy` file's rows; None where there is none, and for other files."""
    if path.suffix.lower() != ".npy":
        return None
    places = (path.with_name(path.stem + ending) for ending in BESIDE)
    return next((place for place in places if place.is_file()), None)


def mapped_tensor(path: Path, key: str) -> np.ndarray | None:
    """Return a float32 tensor `[P, D]` of a safetensors file, mapped; None for numbers of another kind.

    The layout is 8 bytes with the header's length, the header in JSON, then the tensors
    (https://huggingface.co/docs/safetensors, "Format"). The file has been opened by the library before, which checks
    the header.

    Raises
    ------
    OSError, ValueError, KeyError
        For a damaged file.
    """
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        described = json.loads(file.read(length))[key]
    if described["dtype"] != "F32":
        return None
    first = 8 + length + described["data_offsets"][0]
    return np.memmap(path, dtype="<f4", mode="c", offset=first, shape=tuple(described["shape"]))


def packed_names(names: Sequence[str]) -> np.ndarray:
    """Return names as a tensor for safetensors, uint8 `[B]`."""
    return np.frombuffer(json.dumps(list(names), ensure_ascii=False).encode("utf-8", "surrogatepass"), dtype=np.uint8)


def unpacked_names(packed: np.ndarray) -> list[str]:
    """Return the names that `packed_names` packed.

    Raises
    ------
    ValueError
        If these bytes are no list of names.
    """
    names = json.loads(packed.tobytes().decode("utf-8", "surrogatepass"))
    if not isinstance(names, list):
        raise ValueError(f"expected a list of names, found a {type(names).__name__}")
    return names


def taken(stored: list[Any], matrix: np.ndarray, names: Collection[str] | None) -> tuple[list[Any], np.ndarray]:
    """Return the names and rows that are asked for, all of them as they lie where `names` is None."""
    if names is None:
        return stored, matrix
    rows = [row for row, name in enumerate(stored) if name in names]
    return [stored[row] for row in rows], np.asarray(matrix[rows])


def _names_in(path: Path) -> list[str]:
    if path.suffix == ".txt":
        return list(text_lines(path))
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    schema = parquet.read_schema(path)
    text = [
        field.name
        for field in schema
        if arrow.types.is_string(field.type)
        or arrow.types.is_large_string(field.type)
        or (arrow.types.is_dictionary(field.type) and arrow.types.is_string(field.type.value_type))
    ]
    if len(text) != 1:
        raise StateRagError(f"{path}: expected one column of text with the names, found {', '.join(text) or 'none'}")
    return parquet.read_table(path, columns=text).column(text[0]).to_pylist()
