"""Which perturbations lie nearest to one: for looking at a table, by cosine similarity."""

from typing import NamedTuple

import numpy as np

from state_rag.embeddings.table import Embeddings, lengths
from state_rag.errors import StateRagError


class Similar(NamedTuple):
    """One neighbour: all names that share its vector, and its cosine similarity to the query."""

    names: tuple[str, ...]
    cosine: float


def most_similar(embeddings: Embeddings, name: str, count: int = 10) -> tuple[tuple[str, ...], list[Similar]]:
    """Return the aliases of `name` and its nearest neighbours.

    GenePT's table holds symbols and aliases with one vector; names with equal vectors count as one neighbour here, and
    those that share the query's are its aliases. (A run's own stage 1 is `state_rag.retrieval.neighbours`.)

    Parameters
    ----------
    embeddings
        The table.
    name
        The query.
    count
        How many neighbours; fewer if the table has fewer.

    Returns
    -------
    tuple
        The other names with the query's vector, and the neighbours, nearest first.

    Raises
    ------
    StateRagError
        The name is unknown (close spellings are listed), or `count` is below 1.

    Examples
    --------
    >>> table = Embeddings(("A", "B", "C"), np.array([[1, 0], [1, 1], [0, 1]], np.float32), source="example")
    >>> [near.names for near in most_similar(table, "A")[1]]
    [('B',), ('C',)]
    """
    if count < 1:
        raise StateRagError(f"the number of neighbours must be at least 1, found {count}")
    query = embeddings.row(name)
    norms = lengths(embeddings.vectors)
    cosines = embeddings.vectors @ (query / np.linalg.norm(query)) / norms
    aliases: list[str] = []
    groups: list[tuple[list[str], int]] = []
    for row in np.argsort(-cosines, kind="stable"):
        other = embeddings.names[row]
        if other == name:
            continue
        if np.array_equal(embeddings.vectors[row], query):
            aliases.append(other)
            continue
        # Equal vectors have equal cosines up to rounding, so only the last few groups can match.
        near = [group for group in groups if cosines[group[1]] - cosines[row] < 1e-5]
        same = [group for group in near if np.array_equal(embeddings.vectors[row], embeddings.vectors[group[1]])]
        if same:
            same[0][0].append(other)
        elif len(groups) < count:
            groups.append(([other], int(row)))
        elif not near:
            break
    return tuple(aliases), [Similar(tuple(names), float(cosines[row])) for names, row in groups]
