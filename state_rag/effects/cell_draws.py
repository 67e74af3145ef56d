"""Random choices of cells that depend on what the cells are, not on where they lie in a file."""

import hashlib
from collections.abc import Iterable

import numpy as np


def content_keys(cells: np.ndarray, seed: int = 0) -> np.ndarray:
    """Return a 64-bit key of each cell: equal for equal contents, otherwise as if drawn at random.

    Parameters
    ----------
    cells
        `[n, genes]`.
    seed
        Another number gives other keys.

    Examples
    --------
    >>> cells = np.array([[1.0, 2.0], [3.0, 4.0]])
    >>> bool((content_keys(cells)[::-1] == content_keys(cells[::-1])).all())
    True
    """
    # Adding zero makes 0 of -0, which is the same value.
    rows = np.ascontiguousarray(cells, dtype=np.float32) + np.float32(0)
    key = seed.to_bytes(8, "little")
    digests = [hashlib.blake2b(row, digest_size=8, key=key).digest() for row in rows]
    return np.frombuffer(b"".join(digests), dtype="<u8")


def choose_cells(keys: Iterable[np.ndarray], at_most: int) -> np.ndarray:
    """Return the numbers of the cells with the smallest keys, in the order of their keys.

    Parameters
    ----------
    keys
        Of `content_keys`, in blocks.
    at_most
        How many; all cells if there are fewer.
    """
    return np.argsort(np.concatenate(list(keys)), kind="stable")[:at_most]


def condition_generator(seed: int, cell_line: str, perturbation: str) -> np.random.Generator:
    """Return a generator of a condition's own, whatever else is evaluated beside it."""
    digest = hashlib.blake2b(f"{cell_line}\0{perturbation}".encode(), digest_size=16).digest()
    return np.random.default_rng([seed, *np.frombuffer(digest, dtype="<u4").tolist()])
