"""Accuracy for combinations `A+B`: each left out in turn, beside the sum of its members and other naive predictors.

    python benchmarks/combination_accuracy.py cells.h5ad --context k562 --pert-col condition --cell-type-key cell_type \
        --control control --embeddings gene_summaries.json

A file of cells with single perturbations and combinations. Of each combination of the context the effect (mean of its
cells minus that of the controls) is predicted from all other conditions, and its Pearson correlation over all genes
with the measured one is the score; the same for the combinations whose members were both measured alone. A row a
method and seed of the engine: mean over combinations, mean squared error, the engine's gain with a 95 % bootstrap
interval over combinations, and Wilcoxon's p-value.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import anndata
import numpy as np
from evidence_accuracy import write
from rich.console import Console
from rich.table import Table
from scipy.stats import wilcoxon

import state_rag as sr
from state_rag.effects.mean_effects import MeanEffects
from state_rag.engine.bank import responses_in
from state_rag.evaluation.baselines.naive import MeanEffect, Members
from state_rag.evidence.combinations.answers import USE
from state_rag.evidence.estimator import Evidence
from state_rag.evidence.responses import Responses
from state_rag.evidence.training import Settings
from state_rag.names.combinations import parts_of, with_members

ENGINE = "engine"
COLUMNS = ["seed", "which", "n", "method", "pearson", "mse", "engine_gain", "low", "high", "wilcoxon_p"]


def main() -> None:
    """Leave out every combination and print the tables."""
    options = parse()
    cells = anndata.read_h5ad(options.cells)
    effects = sr.effects.from_anndata(
        cells, perturbation=options.pert_col, context=options.cell_type_key, control=options.control
    )
    responses = responses_in(effects)
    embeddings = {}
    if options.embeddings:
        table = sr.embeddings.read(options.embeddings, names=with_members(responses.perturbation_names))
        embeddings = {"text": (table.names, table.vectors)}
    rows = []
    for seed in options.seeds:
        rows += judged(list(left_out(responses, embeddings, options.context, seed)), seed)
    show(f"{options.cells.name}, {options.context}: combinations, each left out in turn", rows)
    if options.output:
        write(options.output, rows)


def parse() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cells", type=Path)
    parser.add_argument("--context", required=True)
    parser.add_argument("--pert-col", default="gene")
    parser.add_argument("--cell-type-key", default="cell_line")
    parser.add_argument("--control", default="non-targeting")
    parser.add_argument("--embeddings", type=Path)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("-o", "--output", type=Path, help="CSV file for the table")
    return parser.parse_args()


def left_out(
    responses: Responses, embeddings: dict[str, Any], context: str, seed: int
) -> Iterator[tuple[bool, np.ndarray, dict[str, np.ndarray]]]:
    """Yield, for each combination of the context, whether both members were measured there, the truth, predictions."""
    here = {name for line, name in responses.conditions if line == context}
    for row, (line, name) in enumerate(responses.conditions):
        members = parts_of(name)
        if line != context or len(members) < 2:
            continue
        known = responses.take([one for one in range(len(responses)) if one != row])
        training: dict[str, dict[str, np.ndarray]] = {}
        for number, (where, what) in enumerate(known.conditions):
            training.setdefault(where, {})[what] = known.effects[number].astype(float)
        naive = MeanEffects(training)
        engine = Evidence(Settings(seed=seed, calibrating=0)).fit(known, embeddings)
        found = engine.predict(context, [name], trust=False)
        assert found.uses == (USE,)
        yield (
            set(members) <= here,
            responses.effects[row].astype(float),
            {
                "mean effect": MeanEffect(naive).effect(name, context),
                "stronger member": Members(naive, stronger=True).effect(name, context),
                "additive": Members(naive).effect(name, context),
                ENGINE: found.mean[0],
            },
        )


def judged(cases: list[tuple[bool, np.ndarray, dict[str, np.ndarray]]], seed: int) -> list[dict[str, Any]]:
    """Return a row for each method, over all combinations and over those whose members were all measured."""
    rows = []
    for which, chosen in (("all", cases), ("members measured", [case for case in cases if case[0]])):
        rows += compared([(truth, found) for _, truth, found in chosen], seed=seed, which=which) if chosen else []
    return rows


def compared(
    cases: Sequence[tuple[np.ndarray, dict[str, np.ndarray]]], *, against: str = ENGINE, **about: Any
) -> list[dict[str, Any]]:
    """Return a row for each method: mean score, mean squared error, and how `against` compares with it, paired.

    Parameters
    ----------
    cases
        Measured effect [G], and method -> predicted effect [G].
    against
        The method that is compared with all.
    about
        What else goes into each row.
    """
    score = {name: np.array([correlation(truth, found[name]) for truth, found in cases]) for name in cases[0][1]}
    error = {name: np.array([np.square(truth - found[name]).mean() for truth, found in cases]) for name in score}
    return compared_scores(score, error, against=against, **about)


def compared_scores(
    score: dict[str, np.ndarray], error: dict[str, np.ndarray], *, against: str = ENGINE, **about: Any
) -> list[dict[str, Any]]:
    """Return the same from scores and squared errors [n] of each method."""
    rows = []
    for method in score:
        gain = score[against] - score[method]
        draws = np.random.default_rng(0).choice(gain, (10_000, len(gain))).mean(1)
        rows.append(
            {
                **about,
                "n": len(gain),
                "method": method,
                "pearson": float(score[method].mean()),
                "mse": float(error[method].mean()),
                "engine_gain": float(gain.mean()),
                "low": float(np.quantile(draws, 0.025)),
                "high": float(np.quantile(draws, 0.975)),
                "wilcoxon_p": float(wilcoxon(gain).pvalue) if gain.any() else 1.0,
            }
        )
    return rows


def show(title: str, rows: list[dict[str, Any]]) -> None:
    """Print rows as a table."""
    shown = Table(title=title)
    for column in COLUMNS:
        shown.add_column(column, justify="left" if column in ("which", "method") else "right")
    for row in rows:
        shown.add_row(*(f"{row[c]:.3g}" if isinstance(row[c], float) else str(row[c]) for c in COLUMNS))
    Console(width=140).print(shown)


def correlation(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Return Pearson's correlation; 0 for a constant prediction."""
    return float(np.corrcoef(truth, predicted)[0, 1]) if np.ptp(predicted) > 0 else 0.0


if __name__ == "__main__":
    main()
