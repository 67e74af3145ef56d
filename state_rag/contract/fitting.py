"""Bring cells in memory into a space that is known: columns by name, missing ones refused or filled, scale checked."""

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse

from state_rag.contract.align import Alignment
from state_rag.contract.feature_names import HVG, MemoryMatrices
from state_rag.contract.space import Fit, Space, fit, read_space
from state_rag.errors import StateRagError
from state_rag.names import listing

if TYPE_CHECKING:
    import anndata

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fitted:
    """A matrix in a known space.

    Attributes
    ----------
    values
        `[cells, columns]`, dense float32, or CSR where the cells' own matrix is sparse.
    filled
        Names of the columns that the cells lack, which hold the known controls' mean.
    """

    values: Any
    filled: tuple[str, ...] = ()


def fitted(
    adata: "anndata.AnnData",
    known: Space,
    *,
    key: str | None = None,
    controls: np.ndarray | None = None,
    lines: np.ndarray | None = None,
    fill_missing: bool = False,
    refuse: bool = True,
) -> Fitted:
    """Return the cells' values in a known space.

    Parameters
    ----------
    adata
        Cells, in memory.
    known
        The space.
    key
        Where the cells hold it (`X` or `obsm/NAME`); by default where `known` says. Where `obsm["X_hvg"]` is missing,
        its genes are taken from `X`.
    controls
        Rows of control cells, int, to compare with the known controls.
    lines
        Line of each of them, str, so that it is compared with the same line's; None where it is not known.
    fill_missing
        Fill missing genes with the mean of the known controls.
    refuse
        Whether what makes results wrong is an error; else it is a warning.

    Raises
    ------
    StateRagError
        If `refuse` and genes are missing, the scale is another, or values are no numbers.
    """
    key = key or known.key
    matrices = MemoryMatrices(adata)
    if matrices.rows(key) is None:
        if key != HVG or known.names is None or matrices.rows("X") is None:
            have = ["X", *(f"obsm/{name}" for name in adata.obsm)]
            raise StateRagError(f"there is no {key}, which the run was trained on; there is {', '.join(have)}.")
        logger.info("The cells have no obsm['X_hvg']; its %d genes are taken from X.", known.width)
        key = "X"
    given = read_space(matrices, key, controls, lines=lines)
    found = fit(known, given, fill_missing=fill_missing)
    _tell(found, known, given, fill_missing=fill_missing, refuse=refuse)
    values = adata.X if key == "X" else adata.obsm[key.removeprefix("obsm/")]
    values = values.to_numpy() if isinstance(values, pd.DataFrame) else values
    if found.alignment is None:
        return Fitted(_float32(values))
    return _aligned(values, found.alignment, known, fill_missing)


def _tell(found: Fit, known: Space, given: Space, *, fill_missing: bool, refuse: bool) -> None:
    errors = list(found.errors)
    missing = () if found.alignment is None else found.alignment.missing
    if missing and not fill_missing and known.control_mean is not None:
        errors[0] += " Use cells that have them, or fill them with the training controls' mean by --fill-missing."
    for text in found.warnings:
        logger.warning("%s", text[:1].upper() + text[1:])
    if given.note and given.names is not None:
        logger.warning("%s; by their values they are others, and are taken as those.", given.note)
    if errors and refuse:
        raise StateRagError(" ".join(errors))
    for text in errors:
        logger.warning("%s", text)
    if found.alignment is not None and not found.alignment.is_identity and not errors:
        logger.info("The genes of %s were brought into the run's order (%s).", given.title, found.alignment.words)


def _aligned(values: Any, alignment: Alignment, known: Space, fill_missing: bool) -> Fitted:
    if alignment.is_identity:
        return Fitted(_float32(values))
    if not alignment.missing:
        chosen = values.tocsc()[:, alignment.places].tocsr() if sparse.issparse(values) else values[:, alignment.places]
        return Fitted(_float32(chosen))
    if not fill_missing or known.control_mean is None:
        raise StateRagError(
            f"{len(alignment.missing)} of {known.width} genes are missing ({listing(alignment.missing)}), and nothing "
            "is known to fill them with."
        )
    dense = np.tile(np.asarray(known.control_mean, dtype=np.float32), (values.shape[0], 1))
    there = alignment.places >= 0
    part = values[:, alignment.places[there]]
    dense[:, there] = part.toarray() if sparse.issparse(part) else part
    logger.warning(
        "%d genes that the cells lack hold the mean of the training controls: %s",
        len(alignment.missing),
        listing(alignment.missing, 20),
    )
    return Fitted(dense, alignment.missing)


def _float32(values: Any) -> Any:
    if sparse.issparse(values):
        return values.tocsr().astype(np.float32)
    return np.asarray(values, dtype=np.float32)


def differences(adata: "anndata.AnnData", known: Space) -> list[str]:
    """Return how cells differ from a known space, a sentence each, for a model that takes columns by position."""
    matrices = MemoryMatrices(adata)
    if matrices.rows(known.key) is None:
        return []
    given = read_space(matrices, known.key)
    found = fit(known, given)
    texts = list(found.errors)
    if found.alignment is not None and not found.alignment.is_identity and not found.alignment.missing:
        texts.append(f"The genes of {given.title} are not those that it was trained on: {found.alignment.words}.")
    return texts
