"""Labels of combinations, `A+B`: their members."""

from collections.abc import Container, Iterable

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


def is_made(name: str, known: Container[str], separator: str = SEPARATOR) -> bool:
    """Tell whether a label that is not known itself is made of members that all are.

    Examples
    --------
    >>> is_made("A+B", {"A", "B"}), is_made("A+ctrl", {"A"}), is_made("A+C", {"A"}), is_made("A", {"A"})
    (True, True, False, False)
    """
    parts = parts_of(name, separator)
    return name not in known and parts != (name,) and all(part in known for part in parts)


def to_be_known(names: Iterable[str], known: Container[str], separator: str = SEPARATOR) -> list[str]:
    """Return the names that a source is asked for: combinations are made of their members, so it need not know them.

    Parameters
    ----------
    names
        Labels, with the members of combinations (`with_members`).
    known
        Those that the source knows; a combination among them counts.

    Examples
    --------
    >>> to_be_known(["A", "B", "C", "A+B", "A+C", "A+ctrl"], {"A", "A+C"})
    ['A', 'B', 'C', 'A+C']
    """
    return [name for name in dict.fromkeys(names) if name in known or parts_of(name, separator) == (name,)]
