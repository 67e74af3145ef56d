"""Read perturbation embeddings from any supported file into one checked table."""

import json
import logging
import os
import re
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from state_rag.embeddings.gene_ids import read_asked
from state_rag.embeddings.mapped import read_npy
from state_rag.embeddings.restricted_pickle import read_pickled_table
from state_rag.embeddings.table import (
    Embeddings,
    ZeroRows,
    check_finite,
    check_names,
    stack_rows,
    zero_rows,
)
from state_rag.embeddings.tabular import read_delimited, read_parquet
from state_rag.embeddings.tensors import Table, read_npz, read_safetensors, read_torch
from state_rag.embeddings.text import DEFAULT_WIDTH, embed_texts
from state_rag.errors import StateRagError
from state_rag.files import existing_file, sha256
from state_rag.names import listing

logger = logging.getLogger(__name__)


def read_embeddings(
    path: str | os.PathLike[str],
    names: Iterable[str] | None = None,
    *,
    text_width: int = DEFAULT_WIDTH,
    progress: bool = True,
    zeros: ZeroRows | None = None,
) -> Embeddings:
    """Read a table of perturbation embeddings; the format follows from the file name.

    =====================================  ===========================================================================
    `.pickle` `.pkl` `.pickle.`            a dict name -> numbers (GenePT), through a restricted unpickler
    `.pt` `.pth` `.torch`                  a `torch.save`d dict name -> vector, loaded weights-only
    `.npz`                                 `names` + `embeddings` (or `vectors`), or one array a name; no objects
    `.npy`                                 a matrix; names beside it, of `base.npy` in `base.names.txt`, one a line
    `.safetensors`                         what `state-rag embeddings convert` writes, or one tensor a name
    `.csv` `.tsv` (also `.gz`)             a name, then D numbers
    `.parquet`                             text index or text column, then numeric columns or one column of lists
    `.json`                                name -> summary text, embedded here; or name -> list of numbers
    =====================================  ===========================================================================

    Parameters
    ----------
    path
        The file.
    names
        Keep these perturbations only (None: all). Names the file lacks are left out: what to do about them is for the
        caller to say. Spelling is exact, but for versions of Ensembl ids.
    text_width
        Width of the embedding of summary texts (`state_rag.embeddings.text`).
    progress
        Show a bar on a terminal while a large file is read.
    zeros
        What to do about all-zero vectors and empty texts, which have no direction: `error` lists the names, `drop`
        leaves them out with a warning. None means `error` if `names` are given and `drop` for a whole table, since
        published tables hold zeros for the control.

    Returns
    -------
    Embeddings
        In the order of the file. Rows that are not asked for are not checked.

    Raises
    ------
    StateRagError
        Missing, truncated, corrupt or unsupported file; NaN, infinite, ragged or zero vectors, duplicate names or wrong
        types, by name.
    """
    path = Path(path)
    source = str(path)
    existing_file(path, "an embedding file (.pickle, .csv, .npz, .safetensors, ...)", tuple(READERS))
    suffix, reader = _reader_for(path)
    if isinstance(names, str):
        names = [names]
    wanted = None if names is None else frozenset(names)
    logger.info("reading embeddings from %s (%.1f MB)", path, path.stat().st_size / 1e6)
    provenance: dict[str, str] = {}

    def read(some: Collection[str] | None) -> tuple[list[Any], Any]:
        nonlocal provenance
        chosen = None if some is None else frozenset(some)
        labels, vectors, provenance = _guarded(reader, path, chosen, progress, text_width)
        return labels, vectors

    labels, vectors = read(None) if wanted is None else read_asked(read, wanted, source)
    check_names(labels, source)
    if wanted is not None and any(label not in wanted for label in labels):  # a reader keeps what is asked for
        raise AssertionError(f"reader of {suffix} returned names that were not asked for")
    matrix = _matrix(labels, vectors, source)
    if not len(labels) and wanted is None:
        raise StateRagError(f"{path}: the table is empty, expected a name and a vector for each perturbation")
    check_finite(labels, matrix, source)
    if zeros is None:
        zeros = "drop" if wanted is None else "error"
    labels, matrix = _without_zeros(labels, matrix, source, zeros)
    if "source_sha256" not in provenance:
        origin = {"source_file": path.name, "source_sha256": sha256(path), "source_format": suffix.strip(".")}
        provenance = {**origin, **provenance}
    return Embeddings(tuple(labels), matrix, source, provenance)


def _reader_for(path: Path) -> tuple[str, "Reader"]:
    for suffix, reader in READERS.items():
        if path.name.lower().endswith(suffix):
            return suffix, reader
    found = f"'{''.join(path.suffixes[-2:])}'" if path.suffix else "no suffix"
    raise StateRagError(
        f"{path}: cannot tell the format of an embedding file with {found}; supported are {' '.join(READERS)}. Gene "
        "sets, graphs, signatures and molecules are made one for a screen by `state-rag embeddings convert FILE --h5ad "
        "SCREEN -o OUT.safetensors`"
    )


def _guarded(reader: "Reader", path: Path, wanted: frozenset[str] | None, progress: bool, width: int) -> Table:
    """Call a reader; whatever a damaged file makes the libraries say becomes one clear error."""
    import zipfile
    import zlib

    damaged: tuple[type[Exception], ...] = (EOFError, OSError, ValueError, LookupError, ArithmeticError, RuntimeError)
    damaged += (zipfile.BadZipFile, zlib.error, *_library_errors())
    try:
        return reader(path, wanted, progress, width)
    except damaged as error:
        said = (str(error).strip().splitlines() or [""])[0][:200]
        # What libraries advise for files that they refuse is to run the code in them.
        why = "" if re.search("pickle|weights_only", said) else f" ({type(error).__name__}: {said})"
        if isinstance(error, UnicodeDecodeError):
            why = " (no text in UTF-8)"
        raise StateRagError(
            f"{path}: cannot be read, it is truncated, corrupt or not what its suffix says{why}. "
            "Download or write it again"
        ) from error


def _library_errors() -> tuple[type[Exception], ...]:
    import csv

    from safetensors import SafetensorError

    return (csv.Error, SafetensorError)


def _matrix(labels: list[Any], vectors: Any, source: str) -> np.ndarray:
    if isinstance(vectors, np.ndarray):
        if vectors.dtype.kind not in "iuf":
            raise StateRagError(f"{source}: expected a matrix of numbers, found {vectors.dtype} values")
        with np.errstate(over="ignore"):
            return vectors.astype(np.float32, copy=False)
    return stack_rows(dict(zip(labels, vectors, strict=True)), source)


def _without_zeros(labels: list[Any], matrix: np.ndarray, source: str, zeros: ZeroRows) -> tuple[list[Any], np.ndarray]:
    zero = zero_rows(matrix)
    if not zero.any():
        return labels, matrix
    dropped = [label for label, is_zero in zip(labels, zero, strict=True) if is_zero]
    what = "an empty text, or one without usable words" if source.lower().endswith(".json") else "a vector of zeros"
    if zeros == "error" or len(dropped) == len(labels):
        raise StateRagError(
            f"{source}: {what} for {listing(dropped)}. It has no direction and so no neighbours; give these "
            "perturbations a real one, or leave them out (a control needs none)"
        )
    logger.warning("%s: left out %s: %s, which has no direction", source, listing(dropped), what)
    return [label for label, is_zero in zip(labels, zero, strict=True) if not is_zero], matrix[~zero]


def _read_pickle(path: Path, wanted: Collection[str] | None, progress: bool, width: int) -> Table:
    rows = read_pickled_table(path, wanted, progress=progress)
    return list(rows), list(rows.values()), {}


def _read_delimited(path: Path, wanted: Collection[str] | None, progress: bool, width: int) -> Table:
    rows = read_delimited(path, wanted, progress)
    return list(rows), list(rows.values()), {}


def _read_parquet(path: Path, wanted: Collection[str] | None, progress: bool, width: int) -> Table:
    return (*read_parquet(path, wanted, progress), {})


def _read_npy(path: Path, wanted: Collection[str] | None, progress: bool, width: int) -> Table:
    return (*read_npy(path, wanted), {})


def _without_width(read: Callable[[Path, Collection[str] | None, bool], Table]) -> "Reader":
    def reader(path: Path, wanted: Collection[str] | None, progress: bool, width: int) -> Table:
        return read(path, wanted, progress)

    return reader


def _read_json(path: Path, wanted: Collection[str] | None, progress: bool, width: int) -> Table:
    texts = read_summaries(path)
    is_text = {name: isinstance(value, str) for name, value in texts.items()}
    if texts and not any(is_text.values()):
        kept = [name for name in texts if wanted is None or name in wanted]
        return kept, [texts[name] for name in kept], {}
    vectors = embed_texts(texts, width, source=str(path))
    kept = [name for name in vectors if wanted is None or name in wanted]
    embedded = len(next(iter(vectors.values())))
    provenance = {"embedding": f"TF-IDF of {len(texts)} texts + truncated SVD, width {embedded}"}
    if not kept:
        return [], np.zeros((0, embedded), dtype=np.float32), provenance
    return kept, np.stack([vectors[name] for name in kept]), provenance


def read_summaries(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return a JSON object name -> text (or numbers), with duplicate names refused.

    Raises
    ------
    StateRagError
        No JSON object, or a name occurs twice.
    """

    def distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) != len(pairs):
            check_names([name for name, _ in pairs], str(path))
        return dict(pairs)

    with open(path, encoding="utf-8-sig") as file:
        table = json.load(file, object_pairs_hook=distinct)
    if not isinstance(table, dict):
        raise StateRagError(
            f"{path}: expected a JSON object of name -> text or name -> list of numbers, found a {type(table).__name__}"
        )
    if not table:
        raise StateRagError(f"{path}: the table is empty, expected a text or a list of numbers for each name")
    return table


Reader = Callable[[Path, Collection[str] | None, bool, int], Table]

READERS: dict[str, Reader] = {
    ".pickle": _read_pickle,
    ".pkl": _read_pickle,
    ".pickle.": _read_pickle,
    ".pt": _without_width(read_torch),
    ".pth": _without_width(read_torch),
    ".torch": _without_width(read_torch),
    ".npy": _read_npy,
    ".npz": _without_width(read_npz),
    ".safetensors": _without_width(read_safetensors),
    ".csv": _read_delimited,
    ".csv.gz": _read_delimited,
    ".tsv": _read_delimited,
    ".tsv.gz": _read_delimited,
    ".parquet": _read_parquet,
    ".json": _read_json,
}
