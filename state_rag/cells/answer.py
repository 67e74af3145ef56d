"""Predicted cells as a person looks for them: gene names on every column, nothing of the cells that were perturbed."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from state_rag.contract.feature_names import is_expression

if TYPE_CHECKING:
    import anndata


def answer(
    predicted: np.ndarray,
    obs: pd.DataFrame,
    *,
    key: str,
    names: Sequence[str] | None,
    var: pd.DataFrame | None = None,
    spaces: Mapping[str, np.ndarray] | None = None,
    record: Mapping[str, Any],
) -> "anndata.AnnData":
    """Return predicted cells.

    Parameters
    ----------
    predicted
        `[cells, columns]`, float32.
    obs
        The cells' labels.
    key
        The space that was predicted: `X` or `obsm/NAME`.
    names
        Of its columns; None where they are unknown.
    var
        Further facts of genes, by their names; used if it has all of them.
    spaces
        Other predicted spaces, by their name in `obsm`.
    record
        What goes into `uns["state_rag"]`.

    Returns
    -------
    anndata.AnnData
        Where genes were predicted they are `X`, and `var_names` their names (`X_hvg_0`, ... where unknown); in
        `obsm["X_hvg"]` they are too if they are the highly variable ones, where `state tx infer` leaves them. Where an
        embedding was predicted it is in `obsm`, and there is no `X`: `uns["state_rag"]["space"]` says which.
    """
    import anndata

    others = dict(spaces or {})
    name = key.removeprefix("obsm/")
    if names is not None or is_expression(key):
        index = pd.Index(list(names) if names is not None else _numbered(name, predicted.shape[1]), dtype=str)
    else:
        index = pd.Index([], dtype=str)
    known = var is not None and var.index.is_unique and index.is_unique and index.isin(var.index).all()
    table = var.loc[index].copy() if known and var is not None else pd.DataFrame(index=index)
    cells = anndata.AnnData(predicted if len(index) else None, obs=obs, var=table)
    if key != "X":
        others.setdefault(name, predicted)
    for other, values in others.items():
        cells.obsm[other] = values
    cells.uns["state_rag"] = {**record, "space": key, "names_known": names is not None}
    return cells


def _numbered(name: str, width: int) -> list[str]:
    return [f"{name}_{number}" for number in range(width)]
