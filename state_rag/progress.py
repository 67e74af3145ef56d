"""One progress bar for the room."""

from collections.abc import Iterable
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")


def track(items: Iterable[T], what: str, *, disable: bool = False) -> Iterable[T]:
    """Return `items` with a progress bar on standard error; silent for work under a second."""
    return tqdm(items, desc=what, disable=disable, delay=1.0, leave=False, mininterval=0.5)
