"""Labels of combinations, `A+B`: their members."""

from collections.abc import Iterable

SEPARATOR = "+"
"""Between the members of a combination."""


def parts_of(name: str, separator: str = SEPARATOR) -> tuple[str, ...]:
    """Return the different parts of a label in alphabetical order; one where it has a single one, or an empty one.

    Examples
    --------
    >>> parts_of("B+A"), parts_of("A"), parts_of("A+"), parts_of("A+A")
    (('A', 'B'), ('A',), ('A+',), ('A+A',))
    """
    parts = {part.strip() for part in name.split(separator)}
    return tuple(sorted(parts)) if len(parts) > 1 and all(parts) else (name,)


def with_members(names: Iterable[str], separator: str = SEPARATOR) -> list[str]:
    """Return names, and after them the members of those that are combinations.

    Examples
    --------
    >>> with_members(["A+B", "A"])
    ['A+B', 'A', 'B']
    """
    given = list(names)
    return list(dict.fromkeys([*given, *(part for name in given for part in parts_of(name, separator))]))
