"""Names in messages: the first of many, and those that are spelled like an unknown one."""

import difflib
from collections.abc import Iterable, Sequence


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


def close_spellings(name: str, known: Iterable[str], count: int = 5, likeness: float = 0.6) -> list[str]:
    """Return the known names most like `name`, case ignored, best first.

    `likeness` is the smallest ratio of `difflib.SequenceMatcher` that counts as close.

    Examples
    --------
    >>> close_spellings("copb1", ["HARS", "COPB1"])
    ['COPB1']
    """
    by_upper: dict[str, str] = {}
    for candidate in known:
        by_upper.setdefault(candidate.upper(), candidate)
    matches = difflib.get_close_matches(name.upper(), list(by_upper), n=count, cutoff=likeness)
    return [by_upper[found] for found in matches]


def suggest(unknown: Sequence[str], known: Iterable[str], limit: int = 5) -> str:
    """Return `'; close spellings: A -> A1, A2'` for the first unknown names, or an empty string."""
    known = list(known)
    found = {name: close_spellings(name, known, 3, likeness=0.7) for name in unknown[:limit]}
    parts = [f"{name} -> {', '.join(close)}" for name, close in found.items() if close]
    return f"; close spellings: {'; '.join(parts)}" if parts else ""
