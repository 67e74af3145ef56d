"""Read embedding tables from array files: NumPy, torch and safetensors."""

import json
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from state_rag.embeddings.mapped import NAMES_KEY, mapped_tensor, taken, unpacked_names
from state_rag.errors import StateRagError

METADATA_KEY = "state_rag_embeddings"
VECTORS_KEY = "vectors"
NEWEST = 2
"""Format of our files that is read last: 1 has names in the metadata, 2 in a tensor, for the header has a limit."""

Table = tuple[list[Any], Any, dict[str, str]]


def read_npz(path: Path, names: Collection[str] | None, progress: bool) -> Table:
    """Read `names` + `embeddings` (or `vectors`), or one array a name; never pickled objects.

    Returns
    -------
    tuple
        Names, their vectors (``[P, D]`` or a list of P) and no provenance.

    Raises
    ------
    StateRagError
        Object arrays, or `names` beside a matrix of another length.
    """
    opened = np.load(path, allow_pickle=False)
    if isinstance(opened, np.ndarray):
        raise StateRagError(f"{path}: expected an .npz archive, found a single .npy array; call it .npy")
    with opened as archive:
        matrices = [key for key in ("embeddings", "vectors") if key in archive.files]
        if "names" in archive.files and matrices:
            labels = _array(archive, "names", path)
            if labels.dtype.kind not in "US" or labels.ndim != 1:
                raise StateRagError(
                    f"{path}: 'names' must be a list of text, found {labels.dtype} of shape {list(labels.shape)}"
                )
            stored = [label.decode() if isinstance(label, bytes) else str(label) for label in labels]
            matrix = _array(archive, matrices[0], path)
            if matrix.ndim != 2 or len(matrix) != len(stored):
                raise StateRagError(
                    f"{path}: '{matrices[0]}' has shape {list(matrix.shape)}, expected one row for each of the "
                    f"{len(stored)} 'names'"
                )
            return (*taken(stored, matrix, names), {})
        kept = [key for key in archive.files if names is None or key in names]
        return kept, [_array(archive, key, path) for key in kept], {}


def _array(archive: Any, key: str, path: Path) -> np.ndarray:
    try:
        return archive[key]
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise
        raise StateRagError(
            f"{path}: array '{key}' holds pickled Python objects, which are not loaded. Save it as plain numbers or "
            "text (names as dtype=str)"
        ) from error


def read_torch(path: Path, names: Collection[str] | None, progress: bool) -> Table:
    """Read a `torch.save`d dict name -> vector with `weights_only=True`.

    Returns
    -------
    tuple
        Names, a list of vectors, and no provenance.

    Raises
    ------
    StateRagError
        The file holds something other than a dict of tensors, or asks for a global that torch refuses (it is named).
    """
    import pickle

    import torch

    try:
        table = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        if found is None:
            raise StateRagError(
                f"{path}: no file of torch.save, or a damaged one. Download or write it again"
            ) from error
        what = f"the pickled global {found.group(1)}"
        raise StateRagError(
            f"{path}: refused {what}. Expected a torch.save'd dict of name -> tensor, loadable with weights_only=True"
        ) from error
    if not isinstance(table, dict):
        raise StateRagError(f"{path}: expected a torch.save'd dict of name -> vector, found {type(table).__name__}")
    kept = [name for name in table if names is None or name in names]
    return kept, [_numpy(table[name]) for name in kept], {}


def _numpy(value: Any) -> Any:
    import torch

    if not isinstance(value, torch.Tensor):
        return value
    dense = value.detach().to_dense() if value.layout != torch.strided else value.detach()
    return dense.float().numpy() if dense.is_floating_point() else dense.numpy()


def read_safetensors(path: Path, names: Collection[str] | None, progress: bool) -> Table:
    """Read a file of `writers.write_embeddings`, or one tensor a name.

    Returns
    -------
    tuple
        Names, their vectors (``[P, D]`` or a list of P) and the provenance the file carries.

    Raises
    ------
    StateRagError
        The metadata does not fit the matrix, or a matrix comes without names.
    """
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as archive:
        metadata = archive.metadata() or {}
        if METADATA_KEY in metadata:
            return _own_format(archive, metadata[METADATA_KEY], names, path)
        keys = list(archive.keys())
    with safe_open(path, framework="pt") as archive:
        kept = [key for key in keys if names is None or key in names]
        return kept, [_numpy(archive.get_tensor(key)) for key in kept], {}


def _own_format(archive: Any, text: str, names: Collection[str] | None, path: Path) -> Table:
    try:
        metadata = json.loads(text)
        version = metadata.get("format", 1)
        if version not in range(1, NEWEST + 1):
            raise StateRagError(
                f"{path}: embeddings in format {version}, this version of state-rag reads up to {NEWEST}. Update "
                "state-rag, or convert the source again"
            )
        stored = list(metadata["names"]) if version == 1 else unpacked_names(archive.get_tensor(NAMES_KEY))
        provenance = dict(metadata["provenance"])
        shape = archive.get_slice(VECTORS_KEY).get_shape()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StateRagError(
            f"{path}: damaged metadata '{METADATA_KEY}' ({error!r}); convert the source again"
        ) from error
    if len(shape) != 2 or shape[0] != len(stored):
        raise StateRagError(f"{path}: '{VECTORS_KEY}' has shape {shape}, but there are {len(stored)} names")
    matrix = mapped_tensor(path, VECTORS_KEY) if len(stored) else None
    kept, vectors = taken(stored, archive.get_tensor(VECTORS_KEY) if matrix is None else matrix, names)
    return kept, vectors, {str(key): str(value) for key, value in provenance.items()}
