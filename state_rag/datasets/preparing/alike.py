"""Give a file the genes of another, or of a run: the same ones, in the same order, to the same total."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from state_rag.contract.align import Alignment, align
from state_rag.contract.feature_names import HVG, FileMatrices, gene_names
from state_rag.contract.identity import FILE, Identity
from state_rag.contract.scale import BASES, TOTAL_RATIO, Scale
from state_rag.contract.space import Space, read_space
from state_rag.errors import StateRagError
from state_rag.h5ad import open_h5ad
from state_rag.names import listing

if TYPE_CHECKING:
    import anndata


@dataclass(frozen=True)
class Model:
    """What a file is to be like.

    Attributes
    ----------
    genes
        Of `X`, in order; None to keep the file's own.
    hvgs
        Of `X_hvg`, in order; None where the model has none, or none with names.
    total
        What each cell is normalised to; None where that cannot be told.
    source
        Where this comes from.
    """

    genes: tuple[str, ...] | None
    hvgs: tuple[str, ...] | None
    total: float | None
    source: str


def read_model(places: Sequence[str | os.PathLike[str]], common: bool) -> Model:
    """Read what a file is to be like.

    Parameters
    ----------
    places
        h5ad files, or run folders of `state tx train`.
    common
        Take the genes that all of them have, in the order of the first; else those of the first.

    Raises
    ------
    StateRagError
        If nothing is known of the genes of a place.
    """
    found = [_spaces(Path(place)) for place in places]
    genes, hvgs = (_names(found, key, common) for key in ("X", HVG))
    scale = found[0]["X"].scale if "X" in found[0] else None
    return Model(genes, hvgs, None if scale is None else scale.total, " and ".join(str(place) for place in places))


def _names(found: Sequence[dict[str, Space]], key: str, common: bool) -> tuple[str, ...] | None:
    named = [spaces[key].names for spaces in found if key in spaces]
    if not named or named[0] is None:
        return None
    kept = set(named[0])
    if common:
        kept.intersection_update(*(set(names) for names in named[1:] if names is not None))
    return tuple(name for name in named[0] if name in kept)


def _spaces(place: Path) -> dict[str, Space]:
    if place.is_dir():
        identity = Identity.read(place)
        if identity is None:
            raise StateRagError(
                f"--like {place}: no {FILE} in it. Name an h5ad file, or the folder of a run that state-rag trained."
            )
        return identity.spaces
    with open_h5ad(place) as file:
        matrices = FileMatrices(file)
        return {key: read_space(matrices, key) for key in ("X", HVG) if matrices.rows(key) is not None}


def take_genes(adata: "anndata.AnnData", model: Model, common: bool, changes: list[str]) -> "anndata.AnnData":
    """Bring the genes of `X` into the model's order, and cut those that it lacks.

    Raises
    ------
    StateRagError
        If genes of the model are missing, unless only `common` ones are asked for.
    """
    if model.genes is None:
        return adata
    wanted, alignment = _find(adata, model.genes, common, f"genes of {model.source}")
    if alignment.is_identity:
        return adata
    if lacking := len(model.genes) - len(wanted):
        changes.append(f"left {lacking} genes of {model.source} out, which the file lacks: prepare the others alike")
    changes.append(f"took the genes of {model.source} ({alignment.words})")
    return adata[:, alignment.places].copy()


def _find(adata: "anndata.AnnData", names: Sequence[str], common: bool, what: str) -> tuple[list[str], Alignment]:
    """Return the genes that are wanted, and where they lie in `X`; with `common`, those of them that are there."""
    own = gene_names(adata.var)
    there = set(own)
    wanted = [name for name in names if name in there] if common else list(names)
    alignment = align(wanted, own)
    if alignment.missing:
        raise StateRagError(
            f"{len(alignment.missing)} of the {len(wanted)} {what} are not among the {len(own)} of the file "
            f"({listing(alignment.missing)}). Add --common to keep the genes that all have."
        )
    return wanted, alignment


def take_hvgs(adata: "anndata.AnnData", model: Model, common: bool, changes: list[str]) -> bool:
    """Make `obsm["X_hvg"]` of the model's genes, from `X`; return whether the model has such genes."""
    if model.hvgs is None:
        return False
    wanted, alignment = _find(adata, model.hvgs, common, f"highly variable genes of {model.source}")
    chosen: Any = adata.X[:, alignment.places]  # type: ignore[index]
    adata.obsm["X_hvg"] = (chosen.toarray() if sparse.issparse(chosen) else np.array(chosen)).astype(np.float32)
    in_order = bool((np.diff(alignment.places) > 0).all())
    mask = np.zeros(adata.n_vars, dtype=bool)
    mask[alignment.places] = True
    if in_order:
        adata.var["highly_variable"] = mask
    else:  # STATE takes the mask before the names, and the mask has no order
        adata.var = adata.var.drop(columns="highly_variable", errors="ignore")
        adata.uns["hvg_names"] = np.array(wanted, dtype=object)
    changes.append(f"made obsm['X_hvg'] from the {len(wanted):,} genes of X_hvg in {model.source}")
    return True


def rescale(values: Any, scale: Scale, total: float | None, changes: list[str]) -> Any:
    """Return log-normalised values with the natural logarithm and, where it is known, the model's total."""
    base = scale.base or "e"
    own, wanted = scale.total, total
    ratio = 1.0 if own is None or wanted is None else wanted / own
    if base == "e" and 1 / TOTAL_RATIO <= ratio <= TOTAL_RATIO:
        return values
    data = values.data if sparse.issparse(values) else values
    linear = np.expm1(data.astype(np.float64) * BASES[base])
    if max(ratio, 1 / ratio) > TOTAL_RATIO:
        linear *= ratio
        changes.append(f"scaled each cell from {own:,.0f} to {wanted:,.0f}")
    if base != "e":
        changes.append(f"turned the logarithm of X to base {base} into the natural one")
    data = np.log1p(linear).astype(np.float32)
    if not sparse.issparse(values):
        return data
    values = values.copy()
    values.data = data
    return values
