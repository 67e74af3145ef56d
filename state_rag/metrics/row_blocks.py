"""Rows in blocks: what arrays and arrays in files have in common, so that metrics need not hold all of them."""

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np

BLOCK_ROWS = 256


class RowBlocks(Protocol):
    """What arrays, a `RowStore` and the like have in common: a length, and rows (a slice of them) as arrays."""

    def __len__(self) -> int:
        """Return the number of rows."""
        ...

    def __getitem__(self, rows: Any) -> np.ndarray:
        """Return some rows."""
        ...


def row_blocks(count: int, size: int | None = None) -> Iterator[slice]:
    """Yield slices that cover `count` rows, `BLOCK_ROWS` or `size` at a time.

    Examples
    --------
    >>> [(part.start, part.stop) for part in row_blocks(5, 2)]
    [(0, 2), (2, 4), (4, 5)]
    """
    size = size or BLOCK_ROWS
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))
