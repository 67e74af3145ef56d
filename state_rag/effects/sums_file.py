"""Sums of cells as an Arrow file (IPC), a row a group: what a pass over many files keeps of each.

======================  ============================================================================================
`line`, `label`         cell line and perturbation, with what mode, dose and time add to its name
`name`                  what the column of perturbations has, by which splits go
`cells`                 number of cells
`sums`, `squares`       lists of G float64: the cells' sum, and that of the squares of deviations from their mean
metadata `state_rag`    JSON: `format`, `unlabelled` (cells left out for want of a label)
======================  ============================================================================================
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from state_rag.effects.cell_sums import CellSums
from state_rag.files import atomic_path

FORMAT = 2
KEYS = ("line", "label", "name")
_VALUES_AT_ONCE = 2**21


def write_sums(path: Path, found: CellSums, about: dict[str, Any]) -> None:
    """Write sums; `path` holds the whole file afterwards, or what it held before."""
    import pyarrow as pa

    width = found.sums.shape[1]
    lists = pa.list_(pa.float64(), width)
    fields = [*(pa.field(name, pa.string()) for name in KEYS), pa.field("cells", pa.int64())]
    fields += [pa.field(name, lists, nullable=False) for name in ("sums", "squares")]
    schema = pa.schema(fields, {"state_rag": json.dumps({"format": FORMAT, **about})})
    step = max(1, _VALUES_AT_ONCE // max(width, 1))
    with (
        atomic_path(path) as temporary,
        pa.OSFile(str(temporary), "wb") as stream,
        pa.ipc.new_file(stream, schema) as writer,
    ):
        for start in range(0, len(found.keys), step):
            rows = slice(start, start + step)
            columns = [pa.array([key[place] for key in found.keys[rows]], pa.string()) for place in range(len(KEYS))]
            columns.append(pa.array(found.cells[rows]))
            for values in (found.sums[rows], found.squares[rows]):
                columns.append(pa.FixedSizeListArray.from_arrays(pa.array(np.ravel(values)), width))
            writer.write_batch(pa.record_batch(columns, schema=schema))


def read_about(path: Path) -> dict[str, Any]:
    """Return what a file tells of itself.

    Raises
    ------
    OSError, ValueError, KeyError
        If it is no such file, or damaged (`pyarrow` raises errors of these kinds).
    """
    import pyarrow as pa

    with pa.OSFile(str(path), "rb") as stream, pa.ipc.open_file(stream) as file:
        about = json.loads(file.schema.metadata[b"state_rag"])
    if about["format"] != FORMAT:
        raise ValueError(f"format {about['format']}")
    return about


def read_sums(path: Path) -> Iterator[CellSums]:
    """Yield the groups of a file, some at a time."""
    import pyarrow as pa

    with pa.OSFile(str(path), "rb") as stream, pa.ipc.open_file(stream) as file:
        for number in range(file.num_record_batches):
            batch = file.get_batch(number)
            values = [batch[name].flatten().to_numpy().reshape(len(batch), -1) for name in ("sums", "squares")]
            keys = list(zip(*(batch[name].to_pylist() for name in KEYS), strict=True))
            yield CellSums(keys, batch["cells"].to_numpy(), *values)
