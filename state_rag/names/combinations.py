"""Labels of combinations, `A+B`: their members."""

from collections.abc import Container, Iterable

SEPARATOR = "+"
"""Between the members of a combination."""

CONTROLS = ("ctrl", "control", "non-targeting", "non_targeting", "nontargeting")
"""Parts that stand for no perturbation, as in GEARS' label `A+ctrl`, in small letters."""


def parts_of(name: str, control: str = "") -> tuple[str, ...]:
    """Return the different parts of a label in alphabetical order, without controls.

    It is the label itself where a part has no letter or digit, or a bracket that another part closes.

    Parameters
    ----------
    name
        The label.
    control
        What the data call control cells, which as a part stands for no perturbation either.

    Examples
    --------
    >>> parts_of("B+A"), parts_of("A"), parts_of("A+"), parts_of("A+A"), parts_of("A+ctrl"), parts_of("ctrl")
    (('A', 'B'), ('A',), ('A+',), ('A+A',), ('A',), ('ctrl',))
    >>> parts_of("[('(+)-JQ1', 0.5, 'uM')]")
    ("[('(+)-JQ1', 0.5, 'uM')]",)
    >>> parts_of("A+DMSO"), parts_of("A+DMSO", "DMSO")
    (('A', 'DMSO'), ('A',))
    """
    parts = {part.strip() for part in name.split(SEPARATOR)}
    if len(parts) < 2 or not all(map(_is_whole, parts)):
        return (name,)
    named = {part for part in parts if part.lower() not in CONTROLS and part != control}
    return tuple(sorted(named)) if named else (name,)


def in_order(name: str, control: str = "") -> str:
    """Return a label as it is written here: members in alphabetical order, without controls (as `parts_of`).

    Examples
    --------
    >>> in_order("B+A"), in_order("A + B"), in_order("ctrl+A"), in_order("A")
    ('A+B', 'A+B', 'A', 'A')
    """
    return SEPARATOR.join(parts_of(name, control))


def doubled(names: Iterable[str], control: str = "") -> list[tuple[str, ...]]:
    """Return groups of labels that name the same members, each sorted: one perturbation under several labels.

    Labels that are `control` are passed over, and as a part it stands for no perturbation.

    Examples
    --------
    >>> doubled(["A+B", "B+A", "A", "A+ctrl", "C+D"])
    [('A', 'A+ctrl'), ('A+B', 'B+A')]
    """
    groups: dict[tuple[str, ...], set[str]] = {}
    for name in names:
        if not control or name != control:
            groups.setdefault(parts_of(name, control), set()).add(name)
    return sorted(tuple(sorted(group)) for group in groups.values() if len(group) > 1)


def plain_of(name: str) -> str:
    """Return the single perturbation that a label stands for; a combination stays.

    Examples
    --------
    >>> plain_of("A+ctrl"), plain_of("A"), plain_of("B+A")
    ('A', 'A', 'B+A')
    """
    parts = parts_of(name)
    return parts[0] if len(parts) == 1 else name


def with_members(names: Iterable[str]) -> list[str]:
    """Return names, and after them the members of those that are combinations.

    Examples
    --------
    >>> with_members(["A+B", "A"])
    ['A+B', 'A', 'B']
    """
    given = list(names)
    return list(dict.fromkeys([*given, *(part for name in given for part in parts_of(name))]))


def is_made(name: str, known: Container[str]) -> bool:
    """Tell whether a label that is not known itself is made of members that all are.

    Examples
    --------
    >>> is_made("A+B", {"A", "B"}), is_made("A+ctrl", {"A"}), is_made("A+C", {"A"}), is_made("A", {"A"})
    (True, True, False, False)
    """
    parts = parts_of(name)
    return name not in known and parts != (name,) and all(part in known for part in parts)


def to_be_known(names: Iterable[str], known: Container[str]) -> list[str]:
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
    return [name for name in dict.fromkeys(names) if name in known or parts_of(name) == (name,)]


def closes(text: str) -> bool:
    """Tell whether a text has as many closing brackets of each kind as opening ones."""
    return all(text.count(left) == text.count(right) for left, right in ("()", "[]", "{}"))


def _is_whole(part: str) -> bool:
    """Tell whether a part of a label can be a name: something to read, and brackets that are closed again."""
    return closes(part) and any(map(str.isalnum, part))
