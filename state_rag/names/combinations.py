"""Labels of combinations, `A+B`: their members."""

from collections.abc import Iterable

SEPARATOR = "+"
"""Between the members of a combination."""

CONTROLS = ("ctrl", "control")
"""Parts that stand for no perturbation, as in GEARS' label `A+ctrl`."""


def parts_of(name: str, separator: str = SEPARATOR) -> tuple[str, ...]:
    """Return the different parts of a label in alphabetical order, without controls; the label where a part is empty.

    Examples
    --------
    >>> parts_of("B+A"), parts_of("A"), parts_of("A+"), parts_of("A+A"), parts_of("A+ctrl"), parts_of("ctrl")
    (('A', 'B'), ('A',), ('A+',), ('A+A',), ('A',), ('ctrl',))
    """
    parts = {part.strip() for part in name.split(separator)}
    if len(parts) < 2 or not all(parts):
        return (name,)
    named = {part for part in parts if part.lower() not in CONTROLS}
    return tuple(sorted(named)) if named else (name,)


def plain_of(name: str, separator: str = SEPARATOR) -> str:
    """Return the single perturbation that a label stands for; a combination stays.

    Examples
    --------
    >>> plain_of("A+ctrl"), plain_of("A"), plain_of("B+A")
    ('A', 'A', 'B+A')
    """
    parts = parts_of(name, separator)
    return parts[0] if len(parts) == 1 else name


def with_members(names: Iterable[str], separator: str = SEPARATOR) -> list[str]:
    """Return names, and after them the members of those that are combinations.

    Examples
    --------
    >>> with_members(["A+B", "A"])
    ['A+B', 'A', 'B']
    """
    given = list(names)
    return list(dict.fromkeys([*given, *(part for name in given for part in parts_of(name, separator))]))
