"""The files that `state-rag explain` writes."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

import numpy as np

from state_rag.engine.called import LAYER
from state_rag.engine.explaining.parts import genes_table, parts_table
from state_rag.evidence.explanation import Explanation
from state_rag.files import atomic_path
from state_rag.plot.evidence_map import evidence_figure
from state_rag.plot.style import save_figure

LONGEST = 120
"""Characters of a file name, before its ending."""
DRAWN = 10
"""Conditions in the picture at most; more do not fit a page."""


def write_explanation(
    found: Explanation,
    folder: Path,
    *,
    measured: np.ndarray | None = None,
    genes: Sequence[str] | None = None,
    conditions: int = 15,
) -> list[Path]:
    """Write an explanation: all its parts and what they add to genes as CSV, and the picture as PNG and SVG.

    Parameters
    ----------
    found
        From `explain`.
    folder
        Where to; files of the same condition are replaced.
    measured
        Measured effect [G], where it is known.
    genes
        Genes to write and draw; by default those with the largest predicted effect.
    conditions
        How many have columns of their own.

    Returns
    -------
    list of pathlib.Path
        What was written.
    """
    name = file_name(found.context, found.perturbation)
    by_gene = genes_table(found, genes, conditions=conditions)
    if measured is not None:
        values = dict(zip(found.genes, measured.tolist(), strict=True))
        by_gene.insert(1, "measured", [values[gene] for gene in by_gene.index])
    if found.calls is not None:
        of_genes = zip(found.genes, found.calls.probability[0].tolist(), found.calls.fdr[0].tolist(), strict=True)
        told = {gene: values for gene, *values in of_genes}
        for number, column in enumerate((LAYER, "fdr")):
            by_gene.insert(1 + number, column, [told[gene][number] for gene in by_gene.index])
    written = []
    for suffix, table, index in (("", parts_table(found), False), ("_genes", by_gene, True)):
        with atomic_path(folder / f"{name}{suffix}.csv") as path:
            table.to_csv(path, index=index)
        written.append(folder / f"{name}{suffix}.csv")
    shown = 20 if genes is None else list(dict.fromkeys(genes))
    save_figure(evidence_figure(found, measured, shown, min(conditions, DRAWN)), folder, name)
    return [*written, folder / f"{name}.png", folder / f"{name}.svg"]


def file_name(context: str, perturbation: str) -> str:
    """Return `CONTEXT_PERTURBATION` as a name that every system takes; other names give other files.

    Examples
    --------
    >>> file_name("hepg2", "AHR+KLF1"), file_name("A549", "drug/5 uM")
    ('hepg2_AHR+KLF1', 'A549_drug%2F5 uM')
    """
    name = quote(f"{context}_{perturbation}", safe=" +,()[]'=@")
    if len(name) <= LONGEST:
        return name
    return f"{name[:LONGEST]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
