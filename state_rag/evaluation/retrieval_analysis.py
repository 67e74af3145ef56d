"""What a retrieval model retrieves and selects, and whether that makes biological sense."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from state_rag.evaluation.metrics.profile import pearson
from state_rag.evaluation.retrieval_records import Retrieved
from state_rag.evaluation.significance import paired_wilcoxon

EffectOf = Callable[[str, str], np.ndarray | None]


@dataclass
class RetrievalAnalysis:
    """Result of `analyse`.

    Attributes
    ----------
    neighbours
        One row per condition and candidate: `cell_line`, `perturbation`, `rank` (1 is nearest), `neighbour`,
        `inclusion`, `selected`, and where known `similarity` (cosine of embeddings), `agreement` (Pearson
        correlation of the two true effects) and `relation` (on a simulated screen: module mate, misleading, other).
    jaccard
        Mean Jaccard index of selected sets for each pair of cell lines, over the perturbations that both have.
    shared
        Number of those perturbations for each pair.
    summary
        Headline numbers.
    """

    neighbours: pd.DataFrame
    jaccard: pd.DataFrame
    shared: pd.DataFrame
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
    jaccard, shared = jaccard_between_lines(records)
    return RetrievalAnalysis(table, jaccard, shared, _summary(table, records, jaccard))


def jaccard_between_lines(records: Sequence[Retrieved]) -> tuple[pd.DataFrame, pd.DataFrame]:
    r"""Return mean Jaccard indices of the selected sets, and the number of shared perturbations, lines x lines.

    .. math:: J = |A \cap B| / |A \cup B|

    for the sets selected for one perturbation in two cell lines (paper, section 5). Two empty sets have no index and
    are left out.
    """
    lines = sorted({record.cell_line for record in records})
    selected = {(record.cell_line, record.perturbation): record.selected for record in records}
    mean = pd.DataFrame(np.nan, index=lines, columns=lines)
    count = pd.DataFrame(0, index=lines, columns=lines)
    for first, second in itertools.combinations_with_replacement(lines, 2):
        pairs = [
            (chosen, selected[second, perturbation])
            for (line, perturbation), chosen in selected.items()
            if line == first and (second, perturbation) in selected
        ]
        indices = [len(a & b) / len(a | b) for a, b in pairs if a | b]
        count.loc[first, second] = count.loc[second, first] = len(indices)
        if indices:
            mean.loc[first, second] = mean.loc[second, first] = float(np.mean(indices))
    return mean, count


def case_study(analysis: RetrievalAnalysis, gene: str) -> pd.DataFrame:
    """Return which neighbours each cell line includes for one perturbation: neighbours x lines, mean inclusion.

    Raises
    ------
    StateRagError
        If nothing was retrieved for the gene; the message lists close spellings.
    """
    from state_rag.errors import StateRagError
    from state_rag.names import close_spellings

    chosen = analysis.neighbours[analysis.neighbours["perturbation"] == gene]
    if chosen.empty:
        known = sorted(set(analysis.neighbours["perturbation"]))
        close = close_spellings(gene, known) or known[:5]
        raise StateRagError(f"--gene: nothing was retrieved for '{gene}'; predicted are {', '.join(close)}, ...")
    order = chosen.groupby("neighbour")["rank"].mean().sort_values(kind="stable").index
    return chosen.pivot(index="neighbour", columns="cell_line", values="inclusion").loc[order]


def _summary(table: pd.DataFrame, records: Sequence[Retrieved], jaccard: pd.DataFrame) -> dict[str, Any]:
    upper = jaccard.to_numpy()[np.triu_indices(len(jaccard), 1)]
    summary: dict[str, Any] = {
        "conditions": len(records),
        "cell_lines": sorted(set(table["cell_line"])),
        "mean_inclusion": float(table["inclusion"].mean()),
        "mean_number_selected": float(np.mean([len(record.selected) for record in records])),
        "mean_number_retrieved": float(np.mean([len(record.neighbours) for record in records])),
        "mean_pairwise_jaccard": float(np.nanmean(upper)) if np.isfinite(upper).any() else None,
        "inclusion_by_rank": table.groupby("rank")["inclusion"].mean().round(4).tolist(),
    }
    for column in ("similarity", "agreement"):
        if column in table:
            summary[f"inclusion_against_{column}"] = _within_queries(table, column)
    if "agreement" in table:
        summary["agreement_of_selected_and_not"] = _selected_against_not(table)
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
