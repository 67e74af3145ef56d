"""Signatures of a wanted state: genes with how far they are to go, from a table, an h5ad file or a few words."""

import csv
import logging
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from state_rag.contract.feature_names import gene_names
from state_rag.errors import StateRagError
from state_rag.files import read_text
from state_rag.h5ad import open_h5ad
from state_rag.names import listing, suggest
from state_rag.names.gene_ids import unversioned
from state_rag.text_lines import number_in

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

GENES = ("gene", "genes", "gene_name", "gene_symbol", "symbol", "names", "feature")
"""Columns of a table that name genes; the first of these that is there."""

VALUES = (
    "weight",
    "value",
    "effect",
    "logfoldchange",
    "logfoldchanges",
    "log2foldchange",
    "logfc",
    "log2fc",
    "avg_log2fc",
    "score",
    "scores",
)
"""Columns that say how far a gene goes; case does not matter."""

TABLES = (".csv", ".tsv", ".txt")
ENDINGS = (*TABLES, ".h5ad", ".h5")
MISSING = ("", "na", "nan", "null", "none")

UNLISTED = ("unchanged", "unknown")
"""What genes that a signature does not name do: nothing, or nobody knows."""


def read_signature(source: str | os.PathLike[str], flag: str, row: str | None = None) -> dict[str, float]:
    """Return gene -> value.

    Parameters
    ----------
    source
        `GENE1:+,GENE2:-` (or numbers for signs); a table with a column of genes (`GENES`) and one of values
        (`VALUES`), or of these two columns alone; or an h5ad file with a row a signature.
    flag
        How the user names it; goes into errors.
    row
        Of an h5ad file with several, the name of the one that is meant.

    Raises
    ------
    StateRagError
        If it is none of these, a gene stands twice or a value is no number.
    """
    text, path = str(source), Path(source)
    is_file = path.suffix.lower() in ENDINGS or path.exists()
    if is_file and path.suffix.lower() in (".h5ad", ".h5"):
        return _row_of(path, flag, row)
    if row is not None:
        raise StateRagError(f"--row names a row of an h5ad file, and {flag} {text} is none; leave --row out.")
    if is_file:
        return _table(path, flag)
    if ":" in text:
        return _words(text, flag)
    raise StateRagError(
        f"{flag} {text}: neither a file nor a list of genes. Give a .csv with the columns gene,value, an .h5ad with a "
        "row a signature, or genes with their direction, such as GENE1:+,GENE2:-"
    )


def given_signature(values: "Mapping[str, float] | pd.Series", where: str) -> dict[str, float]:
    """Return gene -> value of what was given in memory; values that are NaN stay.

    Parameters
    ----------
    values
        Gene -> value.
    where
        How the user names it; goes into errors.

    Raises
    ------
    StateRagError
        If a gene stands twice, as it may in a Series, a value is no number or infinite, or genes are not named.
    """
    if not hasattr(values, "items"):
        raise StateRagError(
            f"{where}: genes have to be named: give a dict or a Series of gene and value, not {type(values).__name__}."
        )
    pairs = []
    for gene, value in values.items():
        number = number_in(str(value))
        if number is None:
            raise StateRagError(f"{where}: the value of {gene} is {value!r}, not a number.")
        pairs.append((str(gene), number))
    return _once(pairs, where)


def tell_one_sided(target: np.ndarray) -> None:
    """Warn of a target [G] that moves at least half of the genes, all in one direction, as no response does."""
    moved = target[np.nan_to_num(target) != 0]
    if 2 * len(moved) >= len(target) and len(set(np.sign(moved).tolist())) == 1:
        logger.warning(
            "The target moves %d genes, all in one direction. A response is a difference from controls or the "
            "logarithm of a ratio, some of it below 0; means, ratios and p-values are none.",
            len(moved),
        )


def target_of(
    genes: Sequence[str],
    signature: Mapping[str, float],
    *,
    reverse: bool = False,
    unlisted: str | None = None,
) -> np.ndarray:
    """Return what a signature wants of the genes of a run, float64 [G]; genes that the run lacks are named in the log.

    Parameters
    ----------
    genes
        G names.
    signature
        Gene -> value; those that are NaN are not known.
    reverse
        Turn all values round.
    unlisted
        What genes that it does not name do, one of `UNLISTED`: `unchanged` is 0, `unknown` is NaN. By default unknown
        where the signature names most of the run's genes, as a measured response does, and unchanged where it names
        fewer, as a list of changed genes does.

    Raises
    ------
    StateRagError
        If none of its genes is among the run's, or `unlisted` is none of the two.
    """
    if unlisted is not None and unlisted not in UNLISTED:
        raise StateRagError(f"search: unlisted genes are {' or '.join(UNLISTED)}, not {unlisted!r}.")
    place = {name: number for number, name in enumerate(genes)}
    missing = [name for name in signature if name not in place]
    if len(missing) == len(signature):
        hint = suggest(missing, genes)
        raise StateRagError(
            f"none of the {len(signature)} genes of the signature is among the {len(genes)} of the run{hint}. Give "
            f"gene names as the run has them, such as {listing(genes, 3)}."
        )
    if missing:
        logger.warning(
            "%d of %d genes are not among the run's, and left out: %s%s.",
            len(missing),
            len(signature),
            listing(missing),
            suggest(missing, genes),
        )
    named = len(signature) - len(missing)
    chosen = unlisted or ("unknown" if 2 * named >= len(genes) else "unchanged")
    target = np.full(len(genes), 0.0 if chosen == "unchanged" else np.nan)
    for name, value in signature.items():
        if name in place:
            target[place[name]] = -value if reverse else value
    return target


def _words(text: str, flag: str) -> dict[str, float]:
    pairs = []
    for word in filter(None, (part.strip() for part in text.split(","))):
        name, colon, sign = (part.strip() for part in word.rpartition(":"))
        value = {"+": 1.0, "-": -1.0, "up": 1.0, "down": -1.0}.get(sign.lower(), number_in(sign))
        if not (colon and name) or value is None or math.isnan(value):
            raise StateRagError(f"{flag}: {word!r} is no gene with a direction; write GENE:+ or GENE:-, or a number.")
        pairs.append((name, value))
    return _once(pairs, flag)


def _table(path: Path, flag: str) -> dict[str, float]:
    lines = read_text(path, "a table of genes and values", TABLES, flag).splitlines()
    delimiter = "\t" if lines and "\t" in lines[0] else ","
    rows = [row for row in csv.reader(lines, delimiter=delimiter) if any(cell.strip() for cell in row)]
    if not rows:
        raise StateRagError(f"{flag} {path}: nothing in it; expected the columns gene,value.")
    head = [name.strip().lower() for name in rows[0]]
    columns = [next((head.index(name) for name in names if name in head), None) for names in (GENES, VALUES)]
    start = 1
    if columns[0] is None and not head[0]:
        columns[0] = 0  # the names of rows, as R writes them
    if len(head) == 2 and None in columns:
        # two columns leave no doubt about which is which, and a number is no heading
        columns, start = [0, 1], 0 if number_in(head[1]) is not None else 1
    if None in columns:
        raise StateRagError(
            f"{flag} {path}: expected a column of genes ({', '.join(GENES)}) and one of values ({', '.join(VALUES)}), "
            f"with commas or tabs between; found {', '.join(name or '(no name)' for name in rows[0])}."
        )
    gene, value = columns
    assert gene is not None
    assert value is not None
    if len(head) > 2:
        logger.info("%s: genes are from column %r, values from %r.", path, head[gene] or "(no name)", head[value])
    pairs = []
    for row in rows[start:]:
        if len(row) <= max(gene, value) or any(row[at].strip().lower() in MISSING for at in (gene, value)):
            continue
        number = number_in(row[value])
        if number is None:
            raise StateRagError(f"{flag} {path}: the value of {row[gene]} is {row[value]!r}, not a number.")
        pairs.append((row[gene].strip(), number))
    return _once(pairs, f"{flag} {path}")


def _row_of(path: Path, flag: str, row: str | None) -> dict[str, float]:
    open_h5ad(path).close()  # says what is wrong with the file
    import anndata

    adata = anndata.read_h5ad(path, backed="r")
    try:
        names = adata.obs_names.astype(str).tolist()
        if row is None and len(names) != 1:
            raise StateRagError(
                f"{flag} {path} has {len(names)} rows, and a target is one: name it with --row, of {listing(names)}. "
                "Of cells, make responses first (`sr.effects.from_anndata`): their mean minus that of controls."
            )
        if row is not None and row not in names:
            hint = suggest([row], names) or f"; it has {listing(names)}"
            raise StateRagError(f"{flag} {path}: no row {row!r}{hint}.")
        if row is not None and names.count(row) > 1:
            raise StateRagError(f"{flag} {path}: {names.count(row)} rows are called {row}; give each its own name.")
        place = 0 if row is None else names.index(row)
        values: Any = adata.X[place : place + 1]
        values = values.toarray() if hasattr(values, "toarray") else values
        genes = gene_names(adata.var)
        found = np.asarray(values, dtype=np.float64).ravel().tolist()
    finally:
        adata.file.close()
    return _once(((g, v) for g, v in zip(genes, found, strict=True) if not math.isnan(v)), f"{flag} {path}")


def _once(pairs: Iterable[tuple[str, float]], where: str) -> dict[str, float]:
    """Return gene -> value, Ensembl's ids without their version, as those of a run are."""
    values: dict[str, float] = {}
    for written, value in pairs:
        name = unversioned(written)
        if name in values:
            raise StateRagError(f"{where}: {name} stands twice; give it once.")
        if math.isinf(value):
            raise StateRagError(f"{where}: the value of {name} is infinite; give a number, or leave the gene out.")
        values[name] = value
    if not values:
        raise StateRagError(f"{where}: no gene with a value in it.")
    return values
