"""Which names belong to one gene: approved symbols, those of before, aliases, Ensembl's ids."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from state_rag.names.gene_ids import unversioned

APPROVED, PREVIOUS, ALIAS, ENSEMBL = "approved", "previous", "alias", "Ensembl id"
KINDS = (APPROVED, ENSEMBL, PREVIOUS, ALIAS)
"""Kinds of name; one that is of an earlier kind for a gene is that gene's, whatever else it is of a later kind for."""


class Named(NamedTuple):
    """A name of a gene.

    Attributes
    ----------
    name
        As it is written.
    gene
        Its approved symbol.
    kind
        One of `KINDS`.
    """

    name: str
    gene: str
    kind: str


@dataclass(frozen=True)
class Meaning:
    """What a name stands for.

    Attributes
    ----------
    genes
        Approved symbols; several where it is ambiguous, none where it is unknown.
    kind
        What the name is for them; empty where it is unknown.
    """

    genes: tuple[str, ...] = ()
    kind: str = ""

    @property
    def gene(self) -> str | None:
        """Return the only gene, or None."""
        return self.genes[0] if len(self.genes) == 1 else None


@dataclass(frozen=True)
class Symbols:
    """Names of genes.

    Attributes
    ----------
    source
        Where they come from, for messages.
    by_name
        Name -> gene -> kind.

    Examples
    --------
    >>> symbols = Symbols.of([Named("AARS1", "AARS1", "approved"), Named("AARS", "AARS1", "previous")], "example")
    >>> symbols.meaning("AARS"), symbols.meaning("aars1").gene
    (Meaning(genes=('AARS1',), kind='previous'), 'AARS1')
    """

    source: str
    by_name: dict[str, dict[str, str]] = field(repr=False)

    @classmethod
    def of(cls, named: Iterable[Named], source: str) -> "Symbols":
        """Return the table of some names; of several kinds for the same gene the first of `KINDS` counts.

        Parameters
        ----------
        named
            Names; empty ones are skipped. A gene's approved symbol is a name of it in any case, and no other name is
            approved.
        source
            Where they come from.
        """
        by_name: dict[str, dict[str, str]] = {}
        for written, gene, kind in named:
            name = unversioned(written)
            if not name or not gene:
                continue
            by_name.setdefault(gene, {})[gene] = APPROVED
            if name == gene:
                continue
            kind = ALIAS if kind == APPROVED else kind
            kinds = by_name.setdefault(name, {})
            if gene not in kinds or KINDS.index(kind) < KINDS.index(kinds[gene]):
                kinds[gene] = kind
        return cls(source, by_name)

    def __len__(self) -> int:
        return len(self.by_name)

    def meaning(self, name: str) -> Meaning:
        """Return what a name stands for: as it is written, else without an Ensembl id's version, else in any case."""
        found = self._meaning(name)
        if not found.genes and (plain := unversioned(name)) != name:
            found = self._meaning(plain)
        if not found.genes:
            meanings = [self._meaning(other) for other in self._any_case.get(name.upper(), ())]
            genes = tuple(dict.fromkeys(gene for one in meanings for gene in one.genes))
            found = Meaning(genes, meanings[0].kind) if meanings else found
        return found

    def names_of(self, gene: str) -> Iterator[Named]:
        """Yield the other names that stand for a gene alone, by kind and then as the table has them."""
        names = [(name, self._meaning(name)) for name in self._of_gene.get(gene, ())]
        known = [Named(name, gene, found.kind) for name, found in names if found.gene == gene]
        yield from sorted(known, key=lambda one: KINDS.index(one.kind))

    def _meaning(self, name: str) -> Meaning:
        kinds = self.by_name.get(name)
        if not kinds:
            return Meaning()
        best = min(kinds.values(), key=KINDS.index)
        return Meaning(tuple(gene for gene, kind in kinds.items() if kind == best), best)

    @cached_property
    def _of_gene(self) -> dict[str, list[str]]:
        names: dict[str, list[str]] = {}
        for name, genes in self.by_name.items():
            for gene in genes:
                names.setdefault(gene, []).append(name)
        return names

    @cached_property
    def _any_case(self) -> dict[str, list[str]]:
        names: dict[str, list[str]] = {}
        for name in self.by_name:
            names.setdefault(name.upper(), []).append(name)
        return names
