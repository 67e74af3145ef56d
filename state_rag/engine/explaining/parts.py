"""An explanation as tables: a row a part of the prediction, and a row a gene."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from state_rag.errors import StateRagError
from state_rag.evidence.explanation import SAME, Explanation
from state_rag.evidence.similarity import RESPONSES
from state_rag.names import listing, suggest
from state_rag.names.gene_ids import unversioned

MEAN, CONDITION, CORRECTION = "context mean", "condition", "correction"
"""Kinds of part."""
OFFSETS = "offsets others"
"""Why a condition has a weight that is like the query by nothing: it corrects what others that it is like add."""
GENES_NAMED = 5

_BLOCK = 512


def parts_table(found: Explanation, genes: Sequence[str] | None = None) -> pd.DataFrame:
    """Return a row for each part of a predicted effect: the context's mean effect, each condition, the correction.

    Parameters
    ----------
    found
        From `explain`.
    genes
        Genes to add a column for, with what each part adds; each such column adds up to the prediction.

    Returns
    -------
    pandas.DataFrame
        `part` (`context mean`, `condition`, `correction`); `context` and `perturbation` of a condition; `weight`
        (signed; what a condition's deviation from its context's mean effect is multiplied by); `why` (what makes it
        like the query most: a source of embeddings by name, `response similarity`, `same perturbation elsewhere`, or
        `offsets others`); `cells` behind it; `share` of the predicted effect, which adds up to 1 (a part that
        pulls the other way has one below 0); `genes`, those that it moves most, with how far; `by_<source>`, the share
        of its likeness that comes from each source. Conditions are ordered by size of weight.

    Raises
    ------
    StateRagError
        If a gene is not among those predicted.
    """
    prior, shares, correction = found.shares()
    count = len(found.conditions)
    nothing = [float("nan")]
    table = pd.DataFrame(
        {
            "part": [MEAN, *[CONDITION] * count, CORRECTION],
            "context": [found.context, *(context for context, _ in found.conditions), ""],
            "perturbation": ["", *(name for _, name in found.conditions), ""],
            "weight": [*nothing, *found.weights.tolist(), *nothing],
            "why": ["", *reasons(found), ""],
            "cells": [*nothing, *found.cells.tolist(), *nothing],
            "share": [prior, *shares.tolist(), correction],
            "genes": [driven(found.genes, found.prior), *_driven_by(found), driven(found.genes, found.correction)],
        }
    )
    for source, values in found.reasons.items():
        table[f"by_{'same' if source == SAME else source}"] = [*nothing, *values.tolist(), *nothing]
    if genes is None:
        return table
    places = gene_places(found.genes, genes)
    rows = [found.prior[places], *found.contributions[:, places], found.correction[places]]
    added = pd.DataFrame(np.stack(rows), columns=[found.genes[place] for place in places])
    return pd.concat([table, added], axis=1)


def genes_table(
    found: Explanation, genes: Sequence[str] | None = None, at_most: int = 50, conditions: int = 15
) -> pd.DataFrame:
    """Return a row a gene: the predicted effect, then what adds up to it.

    Parameters
    ----------
    found
        From `explain`.
    genes
        Which; by default those with the largest predicted effect.
    at_most
        How many of these.
    conditions
        How many conditions have a column of their own; what the others add is one column.

    Returns
    -------
    pandas.DataFrame
        Index `gene`; `predicted`; `mean of CONTEXT`; `PERTURBATION in CONTEXT` for each condition; `other conditions`;
        `correction`. All columns after the first add up to it.

    Raises
    ------
    StateRagError
        If a gene is not among those predicted.
    """
    places = largest(found.prediction, at_most) if genes is None else gene_places(found.genes, genes)
    shown = min(conditions, len(found.conditions))
    columns = {"predicted": found.prediction[places], f"mean of {found.context}": found.prior[places]}
    for place in range(shown):
        columns[label(found.conditions[place])] = found.contributions[place, places]
    columns["other conditions"] = found.contributions[shown:, places].sum(0)
    columns["correction"] = found.correction[places]
    index = pd.Index([found.genes[place] for place in places], name="gene")
    return pd.DataFrame({name: np.asarray(values) for name, values in columns.items()}, index=index)


def label(condition: tuple[str, str]) -> str:
    """Return `PERTURBATION in CONTEXT`."""
    return f"{condition[1]} in {condition[0]}"


def reasons(found: Explanation) -> list[str]:
    """Return why each condition contributes, in words."""
    if found.of_combination:
        return list(found.why)  # of a combination, whose conditions are like it by their members
    said = {RESPONSES: "response similarity"}
    alike = np.sum([np.zeros(len(found.conditions)), *found.reasons.values()], axis=0) > 0
    return [said.get(why, why) if any_ else OFFSETS for why, any_ in zip(found.why, alike.tolist(), strict=True)]


def largest(values: np.ndarray, count: int) -> np.ndarray:
    """Return the places of the values furthest from 0, furthest first."""
    return np.argsort(-np.abs(values), kind="stable")[:count]


def driven(genes: Sequence[str], values: np.ndarray, count: int = GENES_NAMED) -> str:
    """Return the genes with the values furthest from 0, and these; nothing where all are 0.

    Examples
    --------
    >>> driven(["A", "B", "C"], np.array([0.1, -0.5, 0.0]))
    'B -0.5, A +0.1'
    """
    return ", ".join(f"{genes[place]} {values[place]:+.2g}" for place in largest(values, count) if values[place])


def gene_places(genes: Sequence[str], wanted: Sequence[str]) -> list[int]:
    """Return where some genes stand, each once; Ensembl's ids with a version too.

    Raises
    ------
    StateRagError
        If one is not there, with close spellings.
    """
    place = {name: number for number, name in enumerate(genes)}
    wanted = list(map(unversioned, wanted))
    if missing := [name for name in wanted if name not in place]:
        raise StateRagError(
            f"gene {missing[0]!r} is not among the {len(genes)} that the run predicts ({listing(genes, 3)})"
            f"{suggest(missing[:1], genes)}"
        )
    return [place[name] for name in dict.fromkeys(wanted)]


def _driven_by(found: Explanation) -> list[str]:
    """Return `driven` for each condition, in blocks, so that no array of all contributions is made."""
    texts = []
    for start in range(0, len(found.conditions), _BLOCK):
        part = slice(start, start + _BLOCK)
        added = found.contributions[part]
        few = np.argpartition(-np.abs(added), min(GENES_NAMED, added.shape[1]) - 1, axis=1)[:, :GENES_NAMED]
        few.sort(axis=1)
        for places, row in zip(few, added, strict=True):
            texts.append(driven([found.genes[place] for place in places], row[places]))
    return texts
