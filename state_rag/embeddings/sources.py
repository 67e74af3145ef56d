"""Knowledge sources of a screen: any file that tells perturbations apart, as vectors of those that the screen has.

=============  =======================================================  ==============================================
kind           files                                                    similarity
=============  =======================================================  ==============================================
`embeddings`   all that `readers.read_embeddings` takes                 cosine
`gene sets`    `.gmt`; `.txt` of the same form                          cosine of membership (`gene_sets`)
`graph`        an edge list, `.sif`, STRING's links                     diffusion kernel (`graphs`)
`signatures`   `.h5ad` of effects or cells                              cosine of centred responses (`signatures`)
`molecules`    `.smi`; a table with a column of SMILES                  Tanimoto coefficient (`molecules`)
=============  =======================================================  ==============================================

Text files may be packed (`.gz`).
"""

import logging
import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from state_rag.embeddings.gene_ids import in_file
from state_rag.embeddings.gene_sets import read_gmt
from state_rag.embeddings.graphs import fields_of, read_graph
from state_rag.embeddings.molecules import read_smiles, smiles_column
from state_rag.embeddings.readers import READERS, read_embeddings
from state_rag.embeddings.signatures import read_signatures
from state_rag.embeddings.table import Embeddings
from state_rag.errors import StateRagError
from state_rag.files import existing_file, sha256
from state_rag.names import listing
from state_rag.text_lines import number_in, text_lines

logger = logging.getLogger(__name__)


class Knowledge(Protocol):
    """What a file that is no plain table of vectors says."""

    @property
    def names(self) -> tuple[str, ...]:
        """Return all names that the file has."""

    @property
    def facts(self) -> str:
        """Return what was taken, in words."""

    def embedded(self, names: Collection[str]) -> tuple[list[str], np.ndarray]:
        """Return those of some names that are known, and their vectors."""


KINDS: dict[str, Callable[[Path], Knowledge]] = {
    "gene sets": read_gmt,
    "graph": read_graph,
    "signatures": read_signatures,
    "molecules": read_smiles,
}
EMBEDDINGS = "embeddings"
_ENDINGS = {
    ".gmt": "gene sets",
    ".sif": "graph",
    ".edges": "graph",
    ".edgelist": "graph",
    ".smi": "molecules",
    ".h5ad": "signatures",
}
_TABLES = (".csv", ".tsv", ".txt")
_LOOKED_AT = 20
_DECIMAL = re.compile(r"[+-]?\d+,\d+")


@dataclass(frozen=True)
class SourceTable:
    """One source, for the perturbations of a screen.

    Attributes
    ----------
    kind
        One of `KINDS`, or `embeddings`.
    table
        Vectors of those perturbations that the source knows.
    asked
        How many perturbations it was asked for.
    facts
        What was taken from the file, in words.
    by_name
        Labels with modes, doses or times that it knows by the names in them.
    """

    kind: str
    table: Embeddings
    asked: int
    facts: str
    by_name: tuple[str, ...] = ()

    @property
    def known(self) -> str:
        """Return how many perturbations it knows, in words."""
        return f"{len(self.table)} of {self.asked}"


def named_sources(given: Iterable[str]) -> dict[str, str]:
    """Return the name and file of each `NAME=FILE`.

    Raises
    ------
    StateRagError
        If there is no name or no file, or a name is given twice.

    Examples
    --------
    >>> named_sources(["go=go.gmt", "string=links.txt.gz"])
    {'go': 'go.gmt', 'string': 'links.txt.gz'}
    """
    found: dict[str, str] = {}
    for text in given:
        name, is_there, path = (part.strip() for part in text.partition("="))
        if not (name and is_there and path):
            raise StateRagError(f"--source {text}: expected NAME=FILE, such as --source reactome=reactome.gmt.gz")
        if name in found:
            raise StateRagError(f"--source {text}: the name {name!r} is given twice; each source has its own.")
        found[name] = path
    return found


def files_of_sources(
    given: Mapping[str, str | os.PathLike[str]], own: Collection[str], option: str = ""
) -> dict[str, Path]:
    """Return the files that a user names for sources of a run.

    Parameters
    ----------
    given
        Source -> file.
    own
        The run's sources.
    option
        With which they were named, for errors.

    Raises
    ------
    StateRagError
        If the run has no such source, or there is no such file.
    """
    found = {}
    for source, file in given.items():
        named = f"{option} {source}={file}".strip()
        if source not in own:
            raise StateRagError(f"{named}: the run has no such source; it has {listing(own) or 'none'}.")
        found[source] = Path(file).expanduser()
        if not found[source].is_file():
            raise StateRagError(f"{named}: the file does not exist (looked from {Path.cwd()}).")
    return found


def read_source(
    path: str | os.PathLike[str], names: Collection[str], text_width: int = 256, *, other_names: Collection[str] = ()
) -> SourceTable:
    """Read what a file knows of some perturbations; its kind follows from its ending and content.

    Parameters
    ----------
    path
        The file.
    names
        Perturbations. Similarity does not hang on which others are asked for, but a source's vectors may differ in
        width.
    text_width
        Width of the embedding of summary texts.
    other_names
        Further names to look for, which the perturbations go by too.

    Raises
    ------
    StateRagError
        If the file cannot be read, or knows none of the names; examples of both are shown.
    """
    path = existing_file(path, "a source of knowledge (vectors, .gmt, an edge list, .h5ad, SMILES)")
    kind = kind_of(path)
    wanted = list(dict.fromkeys(names))
    sought = list(dict.fromkeys((*wanted, *other_names)))
    if kind == EMBEDDINGS:
        table = read_embeddings(path, names=sought, text_width=text_width, zeros="drop" if other_names else None)
        if not len(table):
            whole = read_embeddings(path, text_width=text_width)
            raise StateRagError(_knows_none(path, kind, whole.names, wanted))
        facts = table.provenance.get("embedding", f"{table.width} wide")
        return SourceTable(kind, table, len(wanted), facts)
    knowledge = KINDS[kind](path)
    called = in_file(sought, knowledge.names, str(path))
    known, vectors = knowledge.embedded(list(dict.fromkeys(called.values())))
    place = {name: number for number, name in enumerate(known)}
    known = [name for name, own in called.items() if own in place]
    vectors = vectors[[place[called[name]] for name in known]]
    some = np.flatnonzero(vectors.any(axis=1)).tolist()
    known, vectors = [known[row] for row in some], vectors[some]
    if not known:
        raise StateRagError(_knows_none(path, kind, knowledge.names, wanted))
    provenance = {"source_file": path.name, "source_sha256": sha256(path), "source_format": kind}
    table = Embeddings(tuple(known), vectors, str(path), {**provenance, "embedding": knowledge.facts})
    return SourceTable(kind, table, len(wanted), knowledge.facts)


def kind_of(path: Path) -> str:
    """Return what kind of knowledge a file has, one of `KINDS` or `embeddings`.

    Raises
    ------
    StateRagError
        If a text file is none of them.
    """
    name = path.name.lower().removesuffix(".gz")
    ending = next((kind for end, kind in _ENDINGS.items() if name.endswith(end)), None)
    if ending is not None:
        return ending
    if name.endswith(_TABLES):
        return _kind_of_lines(path)
    if any(path.name.lower().endswith(end) for end in READERS):
        return EMBEDDINGS
    raise StateRagError(
        f"{path}: cannot tell what kind of source this is. Vectors end in {' '.join(READERS)}, gene sets in .gmt, edge "
        "lists in .sif, .tsv, .csv or .txt, signatures in .h5ad, molecules in .smi or a table with a column of SMILES "
        "(text files may be packed, .gz)"
    )


def _kind_of_lines(path: Path) -> str:
    lines = [line for line in islice(text_lines(path), _LOOKED_AT) if line.strip() and not line.startswith("#")]
    if not lines:
        raise StateRagError(f"{path}: has no line to read; expected a source of knowledge.")
    if smiles_column(lines[0]) is not None:
        return "molecules"
    rows = [fields_of(line) for line in (lines[1:] or lines)]
    if all(len(row) > 1 and all(map(_is_number, row[1:])) for row in rows):
        # a graph of numbered nodes looks the same, and is not guessed at
        return EMBEDDINGS
    decimal = next((field for row in rows if len(row) > 1 for field in row[1:] if _DECIMAL.fullmatch(field)), None)
    if decimal is not None:
        raise StateRagError(f"{path}: has {decimal!r}, a number with a comma before decimals; write a point there.")
    if all(_looks_like_set(line) for line in lines):
        return "gene sets"
    if len({len(row) for row in rows}) == 1 and all(len(row) > 1 and not _is_number(row[1]) for row in rows):
        return "graph"
    raise StateRagError(
        f"{path}: is neither a table of numbers, nor a list of edges (two names a line and a weight), nor gene sets, "
        f"nor molecules, all of them parted by tabs or commas; it begins {lines[0][:60]!r}"
    )


def _looks_like_set(line: str) -> bool:
    fields = line.split("\t")
    return len(fields) > 2 and not any(_is_number(field) for field in fields[2:])


def _is_number(text: str) -> bool:
    return text.strip() == "" or number_in(text) is not None


def _knows_none(path: Path, kind: str, has: tuple[str, ...], wanted: list[Any]) -> str:
    return (
        f"{path} ({kind}) knows none of the {len(wanted)} perturbations of the data. It has names such as "
        f"{listing(has)}, the data have {listing(sorted(wanted))}. Both must use the same kind of names, as a rule "
        "gene symbols."
    )
