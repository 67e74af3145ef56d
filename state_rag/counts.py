"""Counts and seeds on the command line."""

from argparse import ArgumentTypeError
from collections.abc import Callable


def count_of(what: str) -> Callable[[str], int]:
    """Return an argparse type: a whole number of `what`, 1 or more."""

    def count(text: str) -> int:
        if not (text.isascii() and text.isdigit()) or int(text) < 1:
            raise ArgumentTypeError(f"{text} is not a number of {what}; give 1 or more")
        return int(text)

    return count


def seed(text: str) -> int:
    """Return the seed that a text is; an argparse type, since generators take no number below 0."""
    if not (text.isascii() and text.isdigit()):
        raise ArgumentTypeError(f"{text} is no seed; give a whole number from 0")
    return int(text)
