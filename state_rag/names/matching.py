"""Finding a gene under another name than the one that is asked for, and keeping what was taken for what."""

import csv
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from state_rag.files import atomic_path
from state_rag.names.spelling import listing
from state_rag.names.symbols import Symbols

CASE = "other case"
FILE = "names.csv"
"""In a run folder: other names of its perturbations, where they were used, and what is ambiguous."""
COLUMNS = ("perturbation", "other_name", "kind", "used_for")
AMBIGUOUS = "ambiguous"


class OtherName(NamedTuple):
    """Another name of a perturbation.

    Attributes
    ----------
    perturbation, name
        As the data call it, and otherwise.
    kind
        What the other name is: one of `symbols.KINDS`, `other case`, or `ambiguous`; then `name` lists the genes.
    used_for
        Sources in which the perturbation was found by it, separated by spaces.
    """

    perturbation: str
    name: str
    kind: str
    used_for: str = ""


class Substitution(NamedTuple):
    """A perturbation that a source knows by another name."""

    perturbation: str
    found: str
    kind: str


@dataclass
class OtherNames:
    """Other names of perturbations, and what was found by them.

    Parameters
    ----------
    perturbations
        As the data call them.
    symbols
        What is known of genes' names; None for names as they are.

    Attributes
    ----------
    of
        Perturbation -> other names, best first, each with its kind.
    ambiguous
        Perturbation -> the genes that it may be.
    used
        Source -> what was found in it by another name.
    """

    perturbations: Sequence[str]
    symbols: Symbols | None = None
    of: dict[str, list[tuple[str, str]]] = field(init=False, default_factory=dict)
    ambiguous: dict[str, tuple[str, ...]] = field(init=False, default_factory=dict)
    used: dict[str, list[Substitution]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        symbols = self.symbols
        if symbols is None:
            return
        for name in dict.fromkeys(self.perturbations):
            meaning = symbols.meaning(name)
            if len(meaning.genes) > 1:
                self.ambiguous[name] = meaning.genes
            if meaning.gene is not None:
                others = [one for one in symbols.names_of(meaning.gene) if one.name != name]
                kinds = {one.name: one.kind for one in others}
                cased = {other: CASE for one in (name, *kinds) for other in _cases(one) if other not in kinds}
                self.of[name] = [*kinds.items(), *((other, kind) for other, kind in cased.items() if other != name)]

    def wanted(self) -> list[str]:
        """Return all names to look for in a source."""
        others = (other for names in self.of.values() for other, _ in names)
        return list(dict.fromkeys((*self.perturbations, *others)))

    def matched(self, found: Collection[str], source: str) -> dict[str, str]:
        """Return perturbation -> its name in a source, for those that the source knows, and keep what was substituted.

        Parameters
        ----------
        found
            Names that the source has, of those wanted.
        source
            Its name.
        """
        known = set(found)
        chosen: dict[str, str] = {}
        used = []
        for name in dict.fromkeys(self.perturbations):
            if name in known:
                chosen[name] = name
                continue
            other = next(((other, kind) for other, kind in self.of.get(name, ()) if other in known), None)
            if other is not None:
                chosen[name] = other[0]
                used.append(Substitution(name, *other))
        self.used[source] = used
        return chosen

    def told(self, source: str) -> str:
        """Return what was found in a source by another name, in words; empty where nothing was.

        Examples
        --------
        >>> from state_rag.names.symbols import Named
        >>> names = OtherNames(["AARS"], Symbols.of([Named("AARS", "AARS1", "previous")], "example"))
        >>> names.matched(["AARS1"], "go"), names.told("go")
        ({'AARS': 'AARS1'}, '1 by another name: AARS = AARS1')
        """
        used = self.used.get(source, [])
        if not used:
            return ""
        pairs = listing([f"{one.perturbation} = {one.found}" for one in used], 4)
        return f"{len(used)} by another name: {pairs}"

    def unclear(self, sources: Mapping[str, Collection[str]]) -> dict[str, tuple[str, ...]]:
        """Return the ambiguous perturbations that some source does not know as they are written.

        Parameters
        ----------
        sources
            Source -> perturbations that it knows.
        """
        return {
            name: genes for name, genes in self.ambiguous.items() if not all(name in own for own in sources.values())
        }

    def rows(self, sources: Mapping[str, Collection[str]] | None = None) -> tuple[OtherName, ...]:
        """Return every other name of the perturbations, where each was used, and the ambiguous ones."""
        used: dict[tuple[str, str], list[str]] = {}
        for source, substitutions in self.used.items():
            for one in substitutions:
                used.setdefault((one.perturbation, one.found), []).append(source)
        known = [
            OtherName(name, other, kind, " ".join(used.get((name, other), ())))
            for name, others in self.of.items()
            for other, kind in others
            if kind != CASE or (name, other) in used
        ]
        unclear = self.unclear(sources or {})
        return (*known, *(OtherName(name, " ".join(genes), AMBIGUOUS) for name, genes in unclear.items()))


def other_name_of(rows: Iterable[OtherName], perturbations: Collection[str]) -> dict[str, str]:
    """Return other name -> perturbation, where that is clear: neither a perturbation itself nor another's name too.

    Parameters
    ----------
    rows
        As of `OtherNames.rows`.
    perturbations
        As the data call them.

    Examples
    --------
    >>> rows = [OtherName("AARS", "AARS1", "approved"), OtherName("AARS", "X", "alias"), OtherName("B", "X", "alias")]
    >>> other_name_of(rows, ["AARS", "B"])
    {'AARS1': 'AARS'}
    """
    own = set(perturbations)
    meant: dict[str, set[str]] = {}
    for row in rows:
        if row.kind != AMBIGUOUS and row.perturbation in own and row.name not in own:
            meant.setdefault(row.name, set()).add(row.perturbation)
    return {other: next(iter(names)) for other, names in meant.items() if len(names) == 1}


def write_other_names(rows: Sequence[OtherName], folder: Path) -> None:
    """Write `names.csv` into a run folder; none where there are no rows."""
    if not rows:
        (folder / FILE).unlink(missing_ok=True)
        return
    with atomic_path(folder / FILE) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(rows)


def _cases(name: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys((name.upper(), name.capitalize(), name.lower())))
