"""Gene sets (GMT: Reactome, GO, complexes) as a source: genes are alike that are in the same small sets.

The kernel is the cosine of set membership, each set weighted by 1 / sqrt(its size): a pathway of five says more about
two genes than one of two hundred.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import sparse

from state_rag.embeddings.factor import factor
from state_rag.errors import StateRagError
from state_rag.text_lines import text_lines

SMALLEST, LARGEST = 2, 300
"""Genes of a set that counts; one gene is like no other, and a set of a thousand says little."""


@dataclass(frozen=True)
class GeneSets:
    """Sets of genes, those of a size that counts.

    Attributes
    ----------
    sets
        Genes of each set, distinct, in the file's order.
    left_out
        How many sets of the file were smaller or larger.
    """

    sets: tuple[tuple[str, ...], ...]
    left_out: int = 0

    @property
    def names(self) -> tuple[str, ...]:
        """Return all genes, in the order of their first set."""
        return tuple(dict.fromkeys(gene for members in self.sets for gene in members))

    @property
    def facts(self) -> str:
        """Return what was taken, in words."""
        rest = f", {self.left_out} others left out" if self.left_out else ""
        count = len(self.sets)
        return f"{count} set{'s' * (count > 1)} of {SMALLEST} to {LARGEST} genes{rest}"

    def embedded(self, names: Collection[str]) -> tuple[list[str], np.ndarray]:
        """Return those of some names that are in a set, and vectors whose cosines are the kernel.

        Parameters
        ----------
        names
            Genes.

        Returns
        -------
        tuple
            P names, in the order given, and float32 [P, D].
        """
        inside = set(self.names)
        known = [name for name in dict.fromkeys(names) if name in inside]
        row = {name: number for number, name in enumerate(known)}
        places = [
            (row[gene], column, len(members) ** -0.5)
            for column, members in enumerate(self.sets)
            for gene in members
            if gene in row
        ]
        rows, columns, weights = (np.array(part) for part in zip(*places, strict=True)) if places else ([], [], [])
        matrix = sparse.csr_matrix((weights, (rows, columns)), shape=(len(known), max(1, len(self.sets))))
        return known, factor((matrix @ matrix.T).toarray())


def read_gmt(path: Path) -> GeneSets:
    """Read a GMT file: a set a line, its name, a description, and its genes, parted by tabs (`.gz` too).

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    StateRagError
        If it is no GMT file, damaged, or has no set of a size that counts.
    """
    found = parse_gmt(text_lines(path), str(path))
    if not found.sets:
        raise StateRagError(
            f"{path}: none of its {found.left_out} sets has {SMALLEST} to {LARGEST} genes, so it tells no genes apart."
        )
    return found


def parse_gmt(lines: Iterable[str], source: str) -> GeneSets:
    r"""Return the sets of a GMT file's lines.

    A gene may carry a weight after a comma, as in files of Enrichr, which is not looked at.

    Parameters
    ----------
    lines
        Without their ends; empty ones are skipped.
    source
        The file, for messages.

    Raises
    ------
    StateRagError
        If a line has no third field.

    Examples
    --------
    >>> parse_gmt(["coat\thttp://...\tCOPB1\tCOPZ1", "alone\t\tAARS1"], "example")
    GeneSets(sets=(('COPB1', 'COPZ1'),), left_out=1)
    """
    sets, left_out = [], 0
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        fields = line.split("\t")
        if len(fields) < 3:
            raise StateRagError(
                f"{source}: line {number} is none of a GMT file, which has a set's name, a description and its genes, "
                f"parted by tabs; found {line[:60]!r}"
            )
        members = tuple(dict.fromkeys(gene for field in fields[2:] if (gene := field.partition(",")[0].strip())))
        if SMALLEST <= len(members) <= LARGEST:
            sets.append(members)
        else:
            left_out += 1
    return GeneSets(tuple(sets), left_out)
