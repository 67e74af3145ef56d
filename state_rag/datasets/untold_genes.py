"""Genes that are named otherwise than perturbations, so that nothing tells which gene one is named after."""

from collections.abc import Collection
from pathlib import Path

import pandas as pd

from state_rag.contract.feature_names import FileMatrices, gene_names
from state_rag.h5ad import open_cells
from state_rag.names.treatments import single_labels

FROM = 0.3
"""Share of the perturbations that a column of `var` has to name."""


def genes_named_otherwise(path: Path, perturbations: Collection[str]) -> str:
    """Return that no perturbation is named as the genes are, and which column of `var` names them; else nothing.

    Parameters
    ----------
    path
        A file of cells.
    perturbations
        Names of perturbations, without what labels tell of doses; of a combination its members count.
    """
    asked = set(single_labels(perturbations))
    with open_cells(path) as file:
        var = FileMatrices(file).var
    genes = gene_names(var)
    if not asked or asked & set(genes):
        return ""
    columns = _texts(var)
    known = {where: len(asked & set(names)) for where, names in columns.items()}
    best = max(known, key=known.__getitem__)
    if known[best] < FROM * len(asked):
        return ""
    # `gene_names` reads no column that names two genes alike
    alone = "" if len(set(columns[best])) == len(columns[best]) else ", made unique,"
    return (
        f"no perturbation is among the {len(genes):,} genes, which are called such as {genes[0]}; {known[best]} of "
        f"{len(asked)} are in {best}. What a perturbation does to its own gene is not told apart then. "
        f"Set var['gene_name'] to {best}{alone} in all files."
    )


def _texts(var: pd.DataFrame) -> dict[str, list[str]]:
    """Return the columns that are text, and the index, by how a user writes them."""
    columns = {f"var[{name!r}]": var[name] for name in var.columns if not pd.api.types.is_numeric_dtype(var[name])}
    texts = {where: values.astype(str).tolist() for where, values in columns.items()}
    return {**texts, "var.index": var.index.astype(str).tolist()}
