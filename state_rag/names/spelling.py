"""Names in messages: the first of many, and those that are spelled like an unknown one."""

import difflib
from collections.abc import Iterable, Sequence

LIKENESS = 0.66
"""The smallest ratio of `difflib.SequenceMatcher` that counts as close: one wrong letter of three."""


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


def _close(name: str, known: Iterable[str]) -> list[str]:
    """Return at most three of the known names that are like `name`, case ignored, best first."""
    by_upper: dict[str, str] = {}
    for candidate in known:
        by_upper.setdefault(candidate.upper(), candidate)
    matches = difflib.get_close_matches(name.upper(), list(by_upper), n=3, cutoff=LIKENESS)
    return [by_upper[found] for found in matches]


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
