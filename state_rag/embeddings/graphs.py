"""Graphs of genes (edge lists: STRING, BioGRID, a regulatory network) as a source.

Two genes are alike as a walk along edges, ever shorter steps weighted more, leads from one to the other: the diffusion
kernel exp(-t L) of Kondor and Lafferty (2002), L the normalised Laplacian, so that hubs are near nobody for their
degree alone.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import sparse
from scipy.special import ive

from state_rag.embeddings.factor import factor
from state_rag.errors import StateRagError
from state_rag.text_lines import number_in, text_lines

TIME = 2.0
"""How far a walk spreads, in units in which it leaves its start once on average."""
BLOCK = 256
"""Columns of the kernel at a time."""
SMALL = 1e-7
"""Size of the terms of a series that are left out."""
WEIGHTS = ("combined_score", "score", "weight")
"""What a header calls the weight."""
STRING_ID = re.compile(r"\d+\.ENS\w*P\d+")
"""What STRING calls a protein: the species, then Ensembl's name."""


NUMBER, WORD, NOTHING, ELSE = "number", "word", "nothing", "else"
"""What stands where a weight is looked for."""
MISSING = ("na", "nan", "n/a", "none", "null")
"""Words, in lower case, that tell no weight and no kind of edge."""
ENDS = ("source", "target", "from", "to")
ENDS_BEGIN = ("node", "protein", "gene", "symbol", "interactor", "regulator", "tf")
"""What headers call the ends of edges, or how that begins."""


class _Place(NamedTuple):
    line: int
    text: str


@dataclass(frozen=True)
class Graph:
    """An undirected graph with weights.

    Attributes
    ----------
    names
        N nodes.
    edges
        Symmetric [N, N], weights above 0, nothing on the diagonal.
    weighted
        Whether edges differ in weight.
    left_out
        Lines with a loop, or an edge that weighs 0.
    """

    names: tuple[str, ...]
    edges: sparse.csr_matrix
    weighted: bool = True
    left_out: int = 0

    @property
    def facts(self) -> str:
        """Return what was taken, in words."""
        alike = "" if self.weighted else " of one weight"
        rest = f", {self.left_out} loops or edges without weight left out" if self.left_out else ""
        return f"{len(self.names)} nodes, {self.edges.nnz // 2} edges{alike}{rest}"

    def embedded(self, names: Collection[str]) -> tuple[list[str], np.ndarray]:
        """Return those of some names that are nodes, and vectors whose products are the diffusion kernel.

        Parameters
        ----------
        names
            Nodes.

        Returns
        -------
        tuple
            P names, in the order given, and float32 [P, D].
        """
        place = {name: number for number, name in enumerate(self.names)}
        known = [name for name in dict.fromkeys(names) if name in place]
        return known, factor(diffusion(self.edges, np.array([place[name] for name in known], dtype=int)))


def diffusion(edges: sparse.csr_matrix, nodes: np.ndarray, time: float = TIME) -> np.ndarray:
    """Return the diffusion kernel among some nodes, float32 [P, P], computed on the whole graph.

    Parameters
    ----------
    edges
        Symmetric [N, N] with weights of at least 0.
    nodes
        P numbers.
    time
        The t of exp(-t L).
    """
    degree = np.asarray(edges.sum(axis=1)).ravel()
    scale = sparse.diags(np.divide(1.0, np.sqrt(degree), out=np.zeros_like(degree), where=degree > 0))
    step = (scale @ edges @ scale).astype(np.float32).tocsr()
    kernel = np.zeros((len(nodes), len(nodes)), dtype=np.float32)
    for start in range(0, len(nodes), BLOCK):
        part = nodes[start : start + BLOCK]
        unit = np.zeros((len(degree), len(part)), dtype=np.float32)
        unit[part, np.arange(len(part))] = 1.0
        kernel[:, start : start + len(part)] = _spread(step, unit, time)[nodes]
    return (kernel + kernel.T) / 2


def _spread(step: sparse.csr_matrix, start: np.ndarray, time: float) -> np.ndarray:
    """Return exp(t S - t) applied to columns [N, B], S symmetric with eigenvalues in [-1, 1]: its Chebyshev series.

    The coefficients are modified Bessel functions, which fall faster than any power (Abramowitz and Stegun 9.6.34).
    """
    before, now = start, step @ start
    total = ive(0, time) * before + 2 * ive(1, time) * now
    order = 2
    while (size := 2 * float(ive(order, time))) > SMALL:
        before, now = now, 2 * (step @ now) - before
        total += np.float32(size) * now
        order += 1
    return np.asarray(total)


def read_graph(path: Path) -> Graph:
    """Read an edge list: two names a line and perhaps a weight, parted by tabs, commas or spaces (`.gz` too).

    Proteins that STRING numbers are called by the preferred names of its `protein.info` file, which has to lie beside
    the links.

    Parameters
    ----------
    path
        The file. `.sif` files have the kind of an edge between the names.

    Raises
    ------
    StateRagError
        If it is no edge list, damaged, has no edge, or STRING's names are not at hand.
    """
    simple = ".sif" in path.name.lower()
    first, second, weights = parse_edges(text_lines(path), str(path), interaction_between=simple)
    if any(STRING_ID.fullmatch(name) for name in first[:10]):
        called = _string_names(path)
        first, second = ([called.get(name, name) for name in side] for side in (first, second))
    return graph_of(first, second, weights, str(path))


def parse_edges(
    lines: Iterable[str], source: str, *, interaction_between: bool = False
) -> tuple[list[str], list[str], list[float]]:
    """Return the two ends and the weight of each edge in the lines of a file.

    The weight is the third field, or the one that a header calls `combined_score`, `score` or `weight`; edges weigh 1
    where no line has a third field, or all have a word there, the kind of the edge. A first line is a header where it
    names a weight or both ends (`source`, `target`), or has a word where the second has a number. Comments begin with
    `#`.

    Parameters
    ----------
    lines
        Without their ends.
    source
        The file, for messages.
    interaction_between
        The second field is the kind of an edge, as in `.sif` files, and further ones are more second ends.

    Raises
    ------
    StateRagError
        If a line has no two names, or a weight is missing, no number, negative or not finite; with the line.

    Examples
    --------
    >>> parse_edges(["protein1 protein2 combined_score", "COPB1 COPZ1 999", "AARS1 HARS1 700"], "example")
    (['COPB1', 'AARS1'], ['COPZ1', 'HARS1'], [999.0, 700.0])
    """
    first: list[str] = []
    second: list[str] = []
    weights: list[float] = []
    numbered: dict[str, _Place] = {}  # the first line of each sort
    place, named, started = 2, False, False
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        fields = fields_of(line)
        if len(fields) < 2 or not fields[0] or not fields[1]:
            raise StateRagError(
                f"{source}: line {number} has no two names of an edge, parted by a tab, a comma or blanks; found "
                f"{line[:60]!r}"
            )
        if interaction_between:
            first += [fields[0]] * len(fields[2:])
            second += fields[2:]
            weights += [1.0] * len(fields[2:])
            continue
        if not started:
            started, place = True, _weight_column(fields)
            named = any(field.lower() in WEIGHTS for field in fields[2:])
            if named or _names_ends(fields):
                continue
        text = fields[place] if len(fields) > place else ""
        weight = number_in(text)
        if weight is not None and list(numbered) == [WORD] and len(first) == 1:
            first, second, weights, numbered = [], [], [], {}  # the line before was a header
        if weight is not None and not 0 <= weight < np.inf:
            raise StateRagError(f"{source}: line {number} has an edge that weighs {text}; weights are at least 0")
        numbered.setdefault(_sort_of(text, weight), _Place(number, text))
        first.append(fields[0])
        second.append(fields[1])
        weights.append(1.0 if weight is None else weight)
    _refuse_mixed(numbered, source, named)
    return first, second, weights


def _refuse_mixed(numbered: Mapping[str, _Place], source: str, named: bool) -> None:
    """Refuse edges some of which weigh something, and others nothing that can be read."""
    sorts = set(numbered)
    if not numbered or sorts == {NUMBER} or (sorts in ({WORD}, {NOTHING}) and not named):
        return
    found = next(place for sort, place in numbered.items() if sort != NUMBER)
    what = f"the weight {found.text!r}, which is no number" if found.text else "no weight"
    raise StateRagError(
        f"{source}: line {found.line} has {what}. Give every edge a number of at least 0 (a point before decimals), or "
        "leave the column out, so that each weighs 1."
    )


def graph_of(first: Sequence[str], second: Sequence[str], weights: Sequence[float], source: str) -> Graph:
    """Return the graph of some edges: the heavier one of two between the same nodes counts, loops do not.

    A node without an edge to another is none: nothing is known of it.

    Parameters
    ----------
    first, second, weights
        Of each edge.
    source
        The file, for messages.

    Raises
    ------
    StateRagError
        If no edge is left.
    """
    sizes = np.asarray(weights, dtype=float)
    kept = np.array([one != other for one, other in zip(first, second, strict=True)], dtype=bool) & (sizes > 0)
    if not kept.any():
        raise StateRagError(f"{source}: has no edge between two different names.")
    left_out = int((~kept).sum())
    first, second = ([name for name, yes in zip(side, kept.tolist(), strict=True) if yes] for side in (first, second))
    sizes = sizes[kept]
    names = tuple(dict.fromkeys([*first, *second]))
    place = {name: number for number, name in enumerate(names)}
    rows, columns = (np.array([place[name] for name in side], dtype=int) for side in (first, second))
    low, high = np.minimum(rows, columns), np.maximum(rows, columns)
    order = np.lexsort((-sizes, high, low))
    low, high, sizes = low[order], high[order], sizes[order]
    heaviest = np.ones(len(low), dtype=bool)
    heaviest[1:] = (low[1:] != low[:-1]) | (high[1:] != high[:-1])
    half = sparse.csr_matrix((sizes[heaviest], (low[heaviest], high[heaviest])), shape=(len(names), len(names)))
    return Graph(names, (half + half.T).tocsr(), bool(sizes.min() < sizes.max()), left_out)


def fields_of(line: str) -> list[str]:
    """Return the fields of a line, parted by tabs, else by commas, else by spaces."""
    separator = next((one for one in "\t," if one in line), None)
    return [field.strip().strip('"') for field in line.split(separator)]


def _sort_of(text: str, weight: float | None) -> str:
    if weight is not None:
        return NUMBER
    if not text:
        return NOTHING
    return WORD if text[0].isalpha() and text.lower() not in MISSING else ELSE


def _names_ends(fields: Sequence[str]) -> bool:
    """Tell whether a first line calls its first two columns what headers call the ends of edges."""
    end = re.compile(rf"{'|'.join(ENDS)}|({'|'.join(ENDS_BEGIN)})[ _]?(\d|[ab])?", re.IGNORECASE)
    return all(end.fullmatch(name) for name in fields[:2])


def _weight_column(fields: Sequence[str]) -> int:
    lower = [field.lower() for field in fields]
    return next((lower.index(name) for name in WEIGHTS if name in lower[2:]), 2)


def _string_names(path: Path) -> dict[str, str]:
    """Return STRING's protein to its preferred name, from the file that lies beside the links."""
    beside = sorted(path.parent.glob("*protein.info*.txt*"))
    species = path.name.partition(".")[0]
    chosen = next((file for file in beside if file.name.startswith(species)), beside[0] if beside else None)
    if chosen is None:
        raise StateRagError(
            f"{path}: calls proteins by STRING's numbers. Put the file {species}.protein.info.v*.txt.gz of the same "
            "release, which has their names, beside it."
        )
    rows = (fields_of(line) for line in text_lines(chosen) if not line.startswith("#"))
    return {row[0]: row[1] for row in rows if len(row) > 1}
