"""Names that are asked for and names in a file, where both may be Ensembl ids of genes with a version or without."""

from collections.abc import Callable, Collection, Iterable
from typing import Any

import numpy as np

from state_rag.errors import StateRagError
from state_rag.names import listing, repeated
from state_rag.names.gene_ids import is_gene_id, unversioned

Rows = tuple[list[Any], Any]
"""Names, and a vector for each: a matrix or a list."""


def in_file(wanted: Iterable[str], has: Iterable[str], source: str) -> dict[str, str]:
    """Return name that is asked for -> name in the file, for those that it has; versions of ids do not count.

    Parameters
    ----------
    wanted
        Names.
    has
        Those of the file; an exact one comes first.
    source
        The file, for messages.

    Raises
    ------
    StateRagError
        If the file has two versions of what is asked for in a third, or without one.

    Examples
    --------
    >>> in_file(["ENSG00000141510.16", "TP53", "X"], ["ENSG00000141510.18", "TP53"], "example")
    {'ENSG00000141510.16': 'ENSG00000141510.18', 'TP53': 'TP53'}
    """
    there = dict.fromkeys(has)
    versions: dict[str, list[str]] = {}
    for name in there:
        if isinstance(name, str) and is_gene_id(name):
            versions.setdefault(unversioned(name), []).append(name)
    found = {}
    for name in dict.fromkeys(wanted):
        if name in there:
            found[name] = name
        elif is_gene_id(name) and (own := versions.get(unversioned(name))):
            plain = [one for one in own if one == unversioned(name)] or own
            if len(plain) > 1:
                raise StateRagError(
                    f"{source}: has {name} in several versions ({listing(plain)}). Keep one, as its id without version."
                )
            found[name] = plain[0]
    return found


def read_asked(read: Callable[[Collection[str] | None], Rows], wanted: Collection[str], source: str) -> Rows:
    """Return the rows of a table by the names that are asked for, in the order of the file.

    Parameters
    ----------
    read
        Reads the rows of some names, exactly as they are written, or all of them.
    wanted
        Names.
    source
        The file, for messages.
    """
    ids = {name for name in wanted if is_gene_id(name)}
    if not ids:
        return read(wanted)
    labels, vectors = read(frozenset({*wanted, *map(unversioned, ids)}))
    if ids - in_file(ids, labels, source).keys():  # which versions a file has is known when it is read
        labels, vectors = read(None)
    twice = [label for label in repeated(labels) if label in wanted]
    row = {label: number for number, label in enumerate(labels)}
    called = dict(sorted(in_file(wanted, labels, source).items(), key=lambda pair: (row[pair[1]], pair[0])))
    rows = [row[label] for label in called.values()]
    chosen: Any = vectors[rows] if isinstance(vectors, np.ndarray) else [vectors[one] for one in rows]
    names: list[Any] = [*called]
    if twice:  # which the caller refuses
        return [*names, *twice], _joined(chosen, [vectors[row[label]] for label in twice])
    return names, chosen


def _joined(some: Any, more: list[Any]) -> Any:
    return np.concatenate([some, np.stack(more)]) if isinstance(some, np.ndarray) else [*some, *more]
