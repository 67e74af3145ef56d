"""Signatures (effects or cells of other screens, h5ad) as a source: perturbations are alike that did alike elsewhere.

In each context of the file the profiles are centred over its perturbations, so that what all have in common (a control,
a batch) tells nothing; cells serve as well as effects. Their first principal directions, at unit length, are compared;
contexts lie side by side.
"""

import logging
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from state_rag.errors import StateRagError
from state_rag.h5ad import label_of_each, obs_columns, open_h5ad, read_column

logger = logging.getLogger(__name__)

COMPONENTS = 60
"""Directions of a profile that are compared; further ones are mostly noise."""
PERTURBATIONS = ("perturbation", "gene", "target_gene", "condition", "pert", "drug")
CONTEXTS = ("context", "cell_line", "cell_type", "celltype", "cell_name")
"""Columns of obs, the first that is there. Without the one, the index has the names; without the other, there is one
context."""
BLOCK = 4096
"""Rows in memory at a time."""


@dataclass(frozen=True)
class Signatures:
    """Vectors of perturbations from what they did.

    Attributes
    ----------
    names
        P perturbations.
    vectors
        float32 [P, D], unit rows.
    facts
        What was taken, in words.
    """

    names: tuple[str, ...]
    vectors: np.ndarray
    facts: str

    def embedded(self, names: Collection[str]) -> tuple[list[str], np.ndarray]:
        """Return those of some names that have a signature, in the order given, and their vectors float32 [., D]."""
        row = {name: number for number, name in enumerate(self.names)}
        known = [name for name in dict.fromkeys(names) if name in row]
        return known, self.vectors[[row[name] for name in known]]


def read_signatures(path: Path) -> Signatures:
    """Read an h5ad file of effects, as `state_rag.effects.write` makes it, or of other profiles or cells.

    Parameters
    ----------
    path
        The file. `obs` has the perturbation in one of `PERTURBATIONS` (else the index does) and perhaps the context
        in one of `CONTEXTS`; rows of the same are averaged. `X` has numbers; rows with NaN or infinity are left out.

    Raises
    ------
    StateRagError
        If it cannot be read, or no context has three perturbations.
    """
    import anndata

    with open_h5ad(path) as file:
        columns = obs_columns(file)
        labels, used = _labels(file, columns)
        context_column = next((name for name in CONTEXTS if name in columns), None)
        contexts = np.zeros(len(labels), dtype=int)
        if context_column is not None:
            contexts = read_column(file, context_column, "obs")[1]
    distinct, number = np.unique(labels, return_inverse=True)
    keys, place = np.unique(np.stack([contexts, number.ravel()]), axis=1, return_inverse=True)
    place = np.where((contexts < 0) | (labels == ""), -1, place.ravel())
    adata = anndata.read_h5ad(path, backed="r")
    try:
        profiles, dropped = _means(adata.X, place, keys.shape[1])
    finally:
        adata.file.close()
    if dropped:
        logger.warning("%s: %d rows without labels, or with NaN or infinity, are left out.", path, dropped)
    names, vectors = _side_by_side(keys, profiles, distinct)
    if not names:
        raise StateRagError(
            f"{path}: no context has three perturbations whose profiles differ, so nothing can be compared. "
            f"Perturbations are taken from {used}."
        )
    where = f", {len(np.unique(keys[0]))} contexts ({context_column})" if context_column else ""
    return Signatures(names, vectors, f"{len(names)} perturbations ({used}){where}")


def side_by_side(profiles: dict[int, tuple[np.ndarray, np.ndarray]], count: int) -> np.ndarray:
    """Return vectors of perturbations, float32 [count, D], of length 1 or 0.

    Parameters
    ----------
    profiles
        Context -> numbers of the perturbations [M], and their profiles [M, G].
    count
        Perturbations in all.
    """
    blocks = []
    for members, values in profiles.values():
        centred = values - values.mean(axis=0)
        left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
        real = sizes > 1e-8 * max(float(sizes[0]), 1e-300)
        scores = (left * sizes)[:, real][:, :COMPONENTS]
        length = np.linalg.norm(scores, axis=1, keepdims=True)
        block = np.zeros((count, scores.shape[1]))
        block[members] = np.divide(scores, length, out=np.zeros_like(scores), where=length > 0)
        blocks.append(block)
    vectors = np.concatenate(blocks, axis=1) if blocks else np.zeros((count, 0))
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 0).astype(np.float32)


def _side_by_side(keys: np.ndarray, profiles: np.ndarray, distinct: np.ndarray) -> tuple[tuple[str, ...], np.ndarray]:
    usable = np.isfinite(profiles).all(axis=1)
    parts = {}
    for context in np.unique(keys[0]):
        rows = np.flatnonzero((keys[0] == context) & usable)
        if len(rows) >= 3:
            parts[int(context)] = keys[1][rows], profiles[rows]
    vectors = side_by_side(parts, len(distinct))
    known = vectors.any(axis=1)
    return tuple(str(name) for name in distinct[known]), vectors[known]


def _labels(file: Any, columns: list[str]) -> tuple[np.ndarray, str]:
    """Return the perturbation of each row, empty where there is none, and where that was found."""
    column = next((name for name in PERTURBATIONS if name in columns), None)
    if column is not None:
        return label_of_each(*read_column(file, column, "obs")), f"obs column {column}"
    index = file["obs"].attrs.get("_index", "_index")
    return np.asarray(file["obs"][index].asstr()[:]).astype(str), "the index of obs"


def _means(matrix: Any, place: np.ndarray, groups: int) -> tuple[np.ndarray, int]:
    """Return the mean profile of each group, NaN for one without a usable row, and how many rows were left out."""
    from scipy import sparse

    totals, counts, dropped = np.zeros((groups, matrix.shape[1])), np.zeros(groups), 0
    for start in range(0, matrix.shape[0], BLOCK):
        rows = matrix[start : start + BLOCK]
        values = (rows.toarray() if sparse.issparse(rows) else np.asarray(rows)).astype(np.float64)
        at = place[start : start + BLOCK]
        usable = np.isfinite(values).all(axis=1) & (at >= 0)
        dropped += int((~usable).sum())
        at = at[usable]
        member = sparse.csr_matrix((np.ones(len(at)), (at, np.arange(len(at)))), shape=(groups, len(at)))
        totals += member @ values[usable]
        counts += np.bincount(at, minlength=groups)
    return totals / np.where(counts > 0, counts, np.nan)[:, None], dropped
