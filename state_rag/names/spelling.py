"""Names in messages: the first of many, and those that are spelled like an unknown one."""

import difflib
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from typing import TypeVar

Name = TypeVar("Name", bound=Hashable)

LIKENESS = 0.66
"""The smallest ratio of `difflib.SequenceMatcher` that counts as close: one wrong letter of three."""

COMPARED = 20_000
"""Of more names only so many are compared letter by letter, those that have most letters in common."""
LETTERS = 64
"""Of a name that count for that."""
BLOCK = 50_000
"""Names whose letters are counted at a time."""


def listing(names: Iterable[object], limit: int = 5) -> str:
    """Return the first few names and, when there are more, how many in all.

    Examples
    --------
    >>> listing(["A", "B"]), listing("ABCDEFG", limit=2)
    ('A, B', 'A, B, ... (7 in all)')
    """
    shown = [str(name) for name in names]
    if len(shown) <= limit:
        return ", ".join(shown)
    return f"{', '.join(shown[:limit])}, ... ({len(shown)} in all)"


def repeated(names: Iterable[Name]) -> list[Name]:
    """Return what occurs more than once, in the order in which it first does.

    Examples
    --------
    >>> repeated("ABACAB")
    ['A', 'B']
    """
    return [name for name, count in Counter(names).items() if count > 1]


def _close(name: str, known: Iterable[str]) -> list[str]:
    """Return at most three of the known names that are like `name`, case ignored, best first."""
    by_upper: dict[str, str] = {}
    for candidate in known:
        by_upper.setdefault(candidate.upper(), candidate)
    upper = list(by_upper)
    if len(upper) > COMPARED:
        upper = _with_most_letters_of(name.upper(), upper)
    matches = difflib.get_close_matches(name.upper(), upper, n=3, cutoff=LIKENESS)
    return [by_upper[found] for found in matches]


def _with_most_letters_of(name: str, known: Sequence[str]) -> list[str]:
    """Return the `COMPARED` names that have most letters in common with a name, for their lengths.

    That share bounds the ratio from above; of names that share as many, those with the same first letters come first.
    """
    import numpy as np  # few commands need it

    wanted = Counter(name[:LETTERS].encode("ascii", "replace"))
    bounds = []
    for start in range(0, len(known), BLOCK):
        # whatever is not ASCII counts as the same letter, which keeps the bound
        some = np.array([one[:LETTERS].encode("ascii", "replace") for one in known[start : start + BLOCK]])
        letters = some.view(np.uint8).reshape(len(some), -1)
        alike = sum(np.minimum((letters == letter).sum(1), count) for letter, count in wanted.items())
        bounds.append(2 * alike / np.maximum((letters > 0).sum(1) + len(name[:LETTERS]), 1))
    bound = np.concatenate(bounds)
    likely = np.flatnonzero(bound >= LIKENESS)
    if len(likely) > COMPARED:
        common = {row: _common_start(name, known[row]) for row in likely.tolist()}
        likely = np.array(sorted(common, key=lambda row: (-bound[row], -common[row], row))[:COMPARED])
    return [known[row] for row in likely.tolist()]


def _common_start(name: str, other: str) -> int:
    return next(
        (place for place, (a, b) in enumerate(zip(name, other, strict=False)) if a != b), min(len(name), len(other))
    )


def suggest(unknown: Sequence[str], known: Iterable[str], limit: int = 5) -> str:
    """Return `'; close spellings: A -> A1, A2'` for the first unknown names, or an empty string.

    All messages that refuse a name end in this, with the names that could have been meant.

    Examples
    --------
    >>> suggest(["copb1", "XYZ"], ["HARS", "COPB1"])
    '; close spellings: copb1 -> COPB1'
    """
    known = list(known)
    found = {name: _close(name, known) for name in unknown[:limit]}
    parts = [f"{name} -> {', '.join(close)}" for name, close in found.items() if close]
    return f"; close spellings: {'; '.join(parts)}" if parts else ""
