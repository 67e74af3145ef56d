"""One progress bar for the room."""

from collections.abc import Iterable
from typing import NoReturn, TypeVar

from tqdm import tqdm

T = TypeVar("T")


def track(items: Iterable[T], what: str, *, disable: bool = False) -> Iterable[T]:
    """Return `items` with a progress bar on standard error; silent for work under a second."""
    return tqdm(items, desc=what, disable=disable, delay=1.0, leave=False, mininterval=0.5)


def bar(total: int, what: str, unit: str, *, disable: bool = False) -> "tqdm[NoReturn]":
    """Return a progress bar over so many units, to be told how many are done (`update`), for a `with` block.

    It says how many are done in a second.
    """
    return tqdm(total=total, desc=what, unit=f" {unit}", unit_scale=True, disable=disable, delay=1.0, leave=False)
