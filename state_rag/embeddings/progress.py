"""A progress bar over the bytes of a file, for formats that take seconds to read."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, cast

from tqdm import tqdm


@contextmanager
def byte_progress(file: BinaryIO, label: str, *, show: bool) -> Iterator[BinaryIO]:
    """Yield `file` wrapped so that what is read from it moves a bar.

    Parameters
    ----------
    file
        Opened for reading, unbuffered reads of large blocks count best.
    label
        Said beside the bar.
    show
        Whether to show it at all. Even then it appears only on a terminal, and after one second.
    """
    total = os.fstat(file.fileno()).st_size
    with tqdm(
        total=total, desc=label, unit="B", unit_scale=True, delay=1.0, leave=False, disable=None if show else True
    ) as bar:
        yield cast(BinaryIO, _Counted(file, bar))


class _Counted:
    def __init__(self, file: BinaryIO, bar: "tqdm"):
        self.file = file
        self.bar = bar

    def read(self, count: int = -1) -> bytes:
        data = self.file.read(count)
        self.bar.update(len(data))
        return data

    def readable(self) -> bool:
        return True
