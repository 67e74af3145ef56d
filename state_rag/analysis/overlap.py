"""What a retrieval model retrieves and selects, and whether that makes biological sense."""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from state_rag.analysis.records import Retrieved
from state_rag.metrics.profile import pearson
from state_rag.metrics.significance import paired_wilcoxon

EffectOf = Callable[[str, str], np.ndarray | None]


@dataclass
class LineOverlap:
    """How alike the choices for one perturbation are in two cell lines; tables of lines x lines.

    Attributes
    ----------
    sets
        Mean Jaccard index of the selected sets (`Retrieved.selected`), over the perturbations that both lines have.
        NaN where nothing is selected in either line for any of them.
    n_sets
        Number of perturbations that `sets` is over.
    weighted
        Mean weighted Jaccard index of the mean inclusions, which needs no threshold.
    n_weighted
        Number of perturbations that `weighted` is over.
    shared
        Number of perturbations that both lines have.
    """

    sets: pd.DataFrame
    n_sets: pd.DataFrame
    weighted: pd.DataFrame
    n_weighted: pd.DataFrame
    shared: pd.DataFrame


@dataclass
class RetrievalAnalysis:
    """Result of `analyse`.

    Attributes
    ----------
    neighbours
        One row per condition and candidate: `cell_line`, `perturbation`, `rank` (1 is nearest), `neighbour`,
        `inclusion`, `selected`, and where known `similarity` (cosine of embeddings), `agreement` (Pearson
        correlation of the two true effects) and `relation` (on a simulated screen: module mate, misleading, other).
    overlap
        Overlap of what is chosen between cell lines.
    summary
        Headline numbers.
    """

    neighbours: pd.DataFrame
    overlap: LineOverlap
    summary: dict[str, Any]


def analyse(
    records: Sequence[Retrieved],
    *,
    vectors: Mapping[str, np.ndarray] | None = None,
    effect_of: EffectOf | None = None,
    truth: Mapping[str, Any] | None = None,
) -> RetrievalAnalysis:
    """Analyse what was retrieved.

    Parameters
    ----------
    records
        From `read_retrieval`, of one or more runs.
    vectors
        Perturbation embeddings, for similarities.
    effect_of
        `(perturbation, cell line) -> effect [G]` or None where it is unknown.
    truth
        `truth.json` of a simulated screen: `mates` and `misleading` of each perturbation.

    Returns
    -------
    RetrievalAnalysis
        Tables and headline numbers.
    """
    table = pd.DataFrame(
        [
            (record.cell_line, record.perturbation, rank, name, float(weight), name in record.selected)
            for record in records
            for rank, (name, weight) in enumerate(zip(record.neighbours, record.inclusion, strict=True), start=1)
        ],
        columns=["cell_line", "perturbation", "rank", "neighbour", "inclusion", "selected"],
    )
    if any(record.sources for record in records):
        said = (record.sources or ("none",) * len(record.neighbours) for record in records)
        table["source"] = list(itertools.chain.from_iterable(said))
    if vectors:
        table["similarity"] = [
            _cosine(vectors.get(query), vectors.get(name))
            for query, name in zip(table["perturbation"], table["neighbour"], strict=True)
        ]
    if effect_of is not None:
        table["agreement"] = [
            _correlation(effect_of(query, line), effect_of(name, line))
            for query, name, line in zip(table["perturbation"], table["neighbour"], table["cell_line"], strict=True)
        ]
    if truth is not None:
        table["relation"] = [
            _relation(truth, query, name) for query, name in zip(table["perturbation"], table["neighbour"], strict=True)
        ]
    overlap = overlap_between_lines(records)
    return RetrievalAnalysis(table, overlap, _summary(table, records, overlap))


def overlap_between_lines(records: Sequence[Retrieved]) -> LineOverlap:
    r"""Return how alike the choices for the same perturbation are in each pair of cell lines, in two ways.

    .. math:: J(A, B) = |A \cap B| / |A \cup B|, \quad J_w(u, v) = \sum_k \min(u_k, v_k) / \sum_k \max(u_k, v_k)

    J is of the selected sets (paper, section 5); two empty sets have no index and are left out. J_w (Ruzicka's
    similarity) is of the mean inclusions themselves, over the union of the candidates, an absent one having
    inclusion 0; it equals J where every inclusion is 0 or 1.
    """
    lines = sorted({record.cell_line for record in records})
    found = {(record.cell_line, record.perturbation): record for record in records}
    values = {name: pd.DataFrame(np.nan, index=lines, columns=lines) for name in ("sets", "weighted")}
    counts = {name: pd.DataFrame(0, index=lines, columns=lines) for name in ("sets", "weighted", "shared")}
    for first, second in itertools.combinations_with_replacement(lines, 2):
        pairs = [
            (record, found[second, perturbation])
            for (line, perturbation), record in found.items()
            if line == first and (second, perturbation) in found
        ]
        indices = {
            "sets": [jaccard(a.selected, b.selected) for a, b in pairs],
            "weighted": [weighted_jaccard(_by_name(a), _by_name(b)) for a, b in pairs],
        }
        counts["shared"].loc[first, second] = counts["shared"].loc[second, first] = len(pairs)
        for name, each in indices.items():
            known = [value for value in each if value is not None]
            counts[name].loc[first, second] = counts[name].loc[second, first] = len(known)
            if known:
                values[name].loc[first, second] = values[name].loc[second, first] = float(np.mean(known))
    return LineOverlap(values["sets"], counts["sets"], values["weighted"], counts["weighted"], counts["shared"])


def jaccard(a: frozenset[str], b: frozenset[str]) -> float | None:
    """Return the Jaccard index of two sets; None for two empty ones."""
    return len(a & b) / len(a | b) if a | b else None


def weighted_jaccard(u: Mapping[str, float], v: Mapping[str, float]) -> float | None:
    """Return the weighted Jaccard index of two non-negative weightings; None where all weights are 0.

    Examples
    --------
    >>> weighted_jaccard({"A": 0.4, "B": 0.1}, {"A": 0.2, "C": 0.5})
    0.2
    """
    names = sorted(u.keys() | v.keys())
    largest = sum(max(u.get(name, 0.0), v.get(name, 0.0)) for name in names)
    return sum(min(u.get(name, 0.0), v.get(name, 0.0)) for name in names) / largest if largest else None


def _by_name(record: Retrieved) -> dict[str, float]:
    return dict(zip(record.neighbours, map(float, record.inclusion), strict=True))


def case_study(analysis: RetrievalAnalysis, gene: str) -> pd.DataFrame:
    """Return which neighbours each cell line includes for one perturbation: neighbours x lines, mean inclusion.

    Raises
    ------
    StateRagError
        If nothing was retrieved for the gene; the message lists close spellings.
    """
    refuse_unknown_genes([gene], analysis.neighbours["perturbation"])
    chosen = analysis.neighbours[analysis.neighbours["perturbation"] == gene]
    order = chosen.groupby("neighbour")["rank"].mean().sort_values(kind="stable").index
    return chosen.pivot(index="neighbour", columns="cell_line", values="inclusion").loc[order]


def refuse_unknown_genes(genes: Iterable[str], retrieved_for: Iterable[str]) -> None:
    """Refuse a perturbation that nothing was retrieved for.

    Raises
    ------
    StateRagError
        With close spellings among those that something was retrieved for.
    """
    from state_rag.errors import StateRagError
    from state_rag.names import listing, suggest

    known = sorted(set(retrieved_for))
    for gene in genes:
        if gene not in known:
            raise StateRagError(
                f"--gene: nothing was retrieved for '{gene}'{suggest([gene], known)}; predicted are {listing(known)}"
            )


def _summary(table: pd.DataFrame, records: Sequence[Retrieved], overlap: LineOverlap) -> dict[str, Any]:
    upper = {name: each.to_numpy()[np.triu_indices(len(each), 1)] for name, each in vars(overlap).items()}
    pairs, defined = int(upper["shared"].sum()), int(upper["n_sets"].sum())
    summary: dict[str, Any] = {
        "conditions": len(records),
        "cell_lines": sorted(set(table["cell_line"])),
        "mean_inclusion": float(table["inclusion"].mean()),
        "mean_number_selected": float(np.mean([len(record.selected) for record in records])),
        "mean_number_retrieved": float(np.mean([len(record.neighbours) for record in records])),
        "mean_pairwise_jaccard": _mean(pd.Series(upper["sets"], dtype=float)),
        "mean_pairwise_weighted_jaccard": _mean(pd.Series(upper["weighted"], dtype=float)),
        "pairs_of_conditions_between_lines": pairs,
        "pairs_of_two_empty_sets": pairs - defined,
        "inclusion_by_rank": table.groupby("rank")["inclusion"].mean().round(4).tolist(),
    }
    for column in ("similarity", "agreement"):
        if column in table:
            summary[f"inclusion_against_{column}"] = _within_queries(table, column)
    if "agreement" in table:
        summary["agreement_of_selected_and_not"] = _selected_against_not(table)
    if "source" in table:
        by = table.assign(source=table["source"].str.split("+")).explode("source").groupby("source")["inclusion"]
        summary["inclusion_by_source"] = {
            str(name): {"mean": float(rows.mean()), "candidates": len(rows)} for name, rows in by
        }
    if "relation" in table:
        means = table.groupby("relation")["inclusion"].agg(["mean", "size"])
        summary["inclusion_by_relation"] = {
            str(name): {"mean": float(row["mean"]), "candidates": int(row["size"])} for name, row in means.iterrows()
        }
    return summary


def _within_queries(table: pd.DataFrame, column: str) -> dict[str, Any]:
    """Correlate inclusion with a column within each condition, so that conditions do not stand in for it."""
    values = spearman_within_conditions(table, "inclusion", column)
    return {
        "mean_spearman_within_conditions": float(np.mean(values)) if values else None,
        "conditions": len(values),
        "p_wilcoxon_against_zero": paired_wilcoxon(np.array(values), np.zeros(len(values))) if values else None,
    }


def spearman_within_conditions(table: pd.DataFrame, first: str, second: str) -> list[float]:
    """Return Spearman's correlation of two columns in each condition where both vary over at least three rows."""
    return [
        float(stats.spearmanr(rows[first], rows[second])[0])
        for _, rows in table.dropna(subset=[first, second]).groupby(["cell_line", "perturbation"])
        if len(rows) >= 3 and rows[first].nunique() > 1 and rows[second].nunique() > 1
    ]


def _selected_against_not(table: pd.DataFrame) -> dict[str, Any]:
    """Compare the agreement of selected neighbours with that of the others, paired by condition."""
    means = table.dropna(subset=["agreement"]).groupby(["cell_line", "perturbation", "selected"])["agreement"].mean()
    wide = means.unstack("selected").reindex(columns=[True, False])
    both = wide.dropna()
    return {
        "mean_of_selected": _mean(wide[True]),
        "mean_of_not_selected": _mean(wide[False]),
        "conditions_with_both": len(both),
        "p_wilcoxon": paired_wilcoxon(both[True].to_numpy(), both[False].to_numpy()) if len(both) else None,
    }


def _mean(values: pd.Series) -> float | None:
    return float(values.mean()) if values.notna().any() else None


def _cosine(a: np.ndarray | None, b: np.ndarray | None) -> float:
    if a is None or b is None:
        return float("nan")
    norm = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(np.dot(a, b)) / norm if norm else float("nan")


def _correlation(a: np.ndarray | None, b: np.ndarray | None) -> float:
    return float("nan") if a is None or b is None else float(pearson(a[None], b[None])[0])


def _relation(truth: Mapping[str, Any], query: str, name: str) -> str:
    if name in truth["mates"].get(query, ()):
        return "module mate"
    return "misleading" if name in truth["misleading"].get(query, ()) else "other"
