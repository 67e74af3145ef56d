"""Write a table of embeddings: safetensors with the names and where they came from."""

import json
import os
from pathlib import Path
from typing import Any

from state_rag.embeddings.mapped import NAMES_KEY, packed_names
from state_rag.embeddings.table import Embeddings
from state_rag.embeddings.tensors import METADATA_KEY, VECTORS_KEY
from state_rag.errors import StateRagError
from state_rag.files import atomic_path, keep_other

LONGEST_NAMES = 4_000_000
"""Bytes of names that go into the metadata; more, and they are a tensor, since safetensors limits its header."""


def check_target(path: str | os.PathLike[str]) -> Path:
    """Return the path to write to.

    Raises
    ------
    StateRagError
        Its name does not end in `.safetensors`, or it is a folder.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise StateRagError(f"{path}: embeddings are written as safetensors; give a name that ends in .safetensors")
    if path.is_dir():
        raise StateRagError(f"{path}: expected a file to write, found a folder")
    return path


def write_embeddings(path: str | os.PathLike[str], embeddings: Embeddings) -> None:
    """Write `embeddings` so that `read_embeddings` gives the same table back.

    One float32 tensor `vectors` ``[P, D]``; names and provenance lie in the metadata as JSON, many names (more than
    `LONGEST_NAMES` bytes) in a tensor `names`. A table of any size is read without loading it. Equal tables make equal
    files, byte for byte: there is no date, and one metadata key only (safetensors does not keep the order of several).

    Parameters
    ----------
    path
        Ends in `.safetensors`. An existing file is replaced once the new one is whole; one that says something else is
        kept, with `.before` at the end of its name.
    embeddings
        The table.

    Raises
    ------
    StateRagError
        The name has another suffix, or the file cannot be written (disk full, no permission).
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    path = check_target(path)
    tensors = {VECTORS_KEY: embeddings.vectors}
    content: dict[str, Any] = {"format": 1, "provenance": dict(sorted(embeddings.provenance.items()))}
    packed = packed_names(embeddings.names)
    if len(packed) > LONGEST_NAMES:
        content["format"] = 2
        tensors[NAMES_KEY] = packed
    else:
        content["names"] = list(embeddings.names)
    try:
        with atomic_path(path) as temporary:
            save_file(tensors, temporary, metadata={METADATA_KEY: json.dumps(content)})
            keep_other(path, temporary)
    except (OSError, SafetensorError) as error:
        raise StateRagError(
            f"{path}: cannot be written ({error}); nothing was left behind. Check free space and permissions"
        ) from error
