"""Which names are combinations, `A+B`, and what their members are."""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Sequence

from state_rag.evidence.responses import Responses
from state_rag.names.combinations import parts_of, plain_of


def members_of(name: str, known: Container[str]) -> tuple[str, ...]:
    """Return the members of a combination in alphabetical order; nothing for a name that is none.

    A name is a combination where it has two or more different members and at least one of them is known.

    Parameters
    ----------
    name
        Of the perturbation.
    known
        Single perturbations.

    Examples
    --------
    >>> members_of("B+A", ["A"]), members_of("A", ["A"]), members_of("X+Y", ["A"]), members_of("A+", ["A"])
    (('A', 'B'), (), (), ())
    """
    parts = parts_of(name)
    return parts if len(parts) > 1 and any(part in known for part in parts) else ()


def combinations_among(names: Sequence[str], members: Callable[[str], tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """Return the members of those names that are combinations.

    What is a member of one is known by it, so that a name with such a member is a combination too, and so on.

    Parameters
    ----------
    names
        Of perturbations.
    members
        Returns the members of a name, as `members_of` does, by what is known beside these names.

    Examples
    --------
    >>> combinations_among(["A+B", "B+C", "X+Y"], lambda name: members_of(name, ["A"]))
    {'A+B': ('A', 'B'), 'B+C': ('B', 'C')}
    """
    found = {name: parts for name in names if (parts := members(name))}
    rest, more = [name for name in names if name not in found], found
    while more:
        known = {one for parts in found.values() for one in parts}
        more = {name: parts for name in rest if name not in found and (parts := members_of(name, known))}
        found |= more
    return found


def parted(
    responses: Responses, embedded: Collection[str]
) -> tuple[Responses, Responses | None, dict[str, tuple[str, ...]]]:
    """Return single perturbations, combinations (None for none), and the members of each of these.

    Where nothing but combinations was measured they are taken for single ones: there is nothing to add up.

    Parameters
    ----------
    responses
        Of both.
    embedded
        Perturbations that something else than a response is known of.
    """
    known = {*map(plain_of, responses.perturbation_names), *embedded}
    members = combinations_among(responses.perturbation_names, lambda name: members_of(name, known))
    rows = [row for row, name in enumerate(responses.perturbations) if name not in members]
    if not members or not rows:
        return responses, None, {}
    others = [row for row, name in enumerate(responses.perturbations) if name in members]
    return responses.take(rows), responses.take(others), members
