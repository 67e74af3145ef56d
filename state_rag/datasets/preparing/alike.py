"""Give a file the genes of another, or of a run: the same ones, in the same order, to the same total."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from state_rag.contract.align import Alignment, align
from state_rag.contract.feature_names import HVG, FileMatrices, gene_names
from state_rag.contract.identity import FILE, Identity
from state_rag.contract.matrices import ArrayRows
from state_rag.contract.scale import BASES, TOTAL_RATIO, Scale
from state_rag.contract.space import Space, expressed_share, read_space, usual_total
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
        What each cell comes to over these genes (of counts: will, once they are prepared); None where that cannot be
        told.
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
    places = list({Path(place).resolve(): place for place in places}.values())
    found = [_spaces(Path(place)) for place in places]
    genes, hvgs = (_names(found, key, common) for key in ("X", HVG))
    total = _total(Path(places[0]), found[0]["X"], genes) if "X" in found[0] else None
    return Model(genes, hvgs, total, " and ".join(str(place) for place in places))


def _total(place: Path, space: Space, genes: tuple[str, ...] | None) -> float | None:
    """Return what each cell of a model comes to over the genes that are taken of it."""
    scale = space.scale
    if scale.total is None and scale.kind != "counts":
        return None
    columns = None if genes is None or genes == space.names else align(genes, space.names or ()).places
    if columns is None and scale.total is not None:
        return scale.total
    if place.is_dir():  # a run has no cells, but the mean of the controls
        share = None if columns is None else expressed_share(space, columns)
        return scale.total if scale.total is None or share is None else scale.total * share
    with open_h5ad(place) as file:
        rows = FileMatrices(file).rows("X")
        assert rows is not None
        return usual_total(rows, scale, columns)


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


def kept_scale(matrix: Any, scale: Scale, before: Scale | None) -> Scale:
    """Return the scale of a matrix that genes were taken out of, whose cells need no longer have one total.

    Parameters
    ----------
    matrix
        `[cells, genes]`, of the genes that were kept.
    scale
        As measured of it.
    before
        As measured of all genes; None where none was taken out.
    """
    if before is None or before.kind != "log1p" or before.total is None or scale.kind != "log1p":
        return scale
    return replace(scale, base=before.base, total=usual_total(ArrayRows(matrix), before) or scale.total)


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
