"""Accuracy with and without telling modes (CRISPRa, CRISPRi, ...) apart: each condition left out in turn.

    python benchmarks/mode_accuracy.py cells.h5ad --modes k562=CRISPRa A172=CRISPRi T98G=CRISPRi U87MG=CRISPRi \
        --pert-col condition --cell-type-key cell_type --control control --embeddings gene_summaries.json

A file of cells whose lines were perturbed by different modes. Asked are the perturbations that are measured in all
lines. Of each in each line the effect (mean of its cells minus that of the controls) is predicted from all other
conditions, by the engine with labels that tell the mode and by the engine with names alone, of the same settings and
seed; the score is the Pearson correlation over all genes with the measured effect. A row a method and seed, and of
seeds together (scores of a condition averaged): the gain of telling modes with a 95 % bootstrap interval over
conditions, and Wilcoxon's p-value.
"""

import argparse
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
from combination_accuracy import compared_scores, correlation, show
from evidence_accuracy import write

import state_rag as sr
from state_rag.effects.mean_effects import MeanEffects
from state_rag.engine.bank import responses_in
from state_rag.errors import StateRagError
from state_rag.evaluation.baselines.naive import MeanEffect, OtherLines
from state_rag.evidence.estimator import Evidence
from state_rag.evidence.responses import Responses
from state_rag.evidence.training import Settings
from state_rag.names.combinations import parts_of, with_members
from state_rag.names.treatments import Treatment, label_of
from state_rag.progress import track

TOLD, NAMES, MEAN, ELSEWHERE = METHODS = (
    "modes told apart",
    "names alone",
    "mean effect",
    "same perturbation elsewhere",
)
LEARNED = "correlation of modes"


def main() -> None:
    """Leave out every condition and print the tables."""
    options = parse()
    cells = anndata.read_h5ad(options.cells)
    effects = sr.effects.from_anndata(
        cells, perturbation=options.pert_col, context=options.cell_type_key, control=options.control
    )
    responses = responses_in(effects)
    modes = dict(one.split("=", 1) for one in options.modes)
    if lacking := set(responses.context_names) - set(modes):
        raise StateRagError(f"--modes: none given for {', '.join(sorted(lacking))}; write LINE=MODE for each line.")
    embeddings = {}
    if options.embeddings:
        table = sr.embeddings.read(options.embeddings, names=with_members(responses.perturbation_names))
        embeddings = {"text": (table.names, table.vectors)}
    asked = [row for row in range(len(responses)) if everywhere(responses, responses.perturbations[row])]
    scores = pd.read_csv(options.scores) if options.scores and options.scores.is_file() else pd.DataFrame()
    for seed in options.seeds:
        for row in track(asked, f"seed {seed}"):
            line, name = responses.conditions[row]
            if len(scores) and ((scores["seed"] == seed) & (scores["line"] == line) & (scores["name"] == name)).any():
                continue
            found = left_out(responses, modes, embeddings, row, seed)
            scores = pd.concat([scores, pd.DataFrame([{"seed": seed, "line": line, "name": name, **found}])])
            if options.scores:
                scores.to_csv(options.scores, index=False)
    scores = scores[scores["seed"].isin(options.seeds)]
    rows: list[dict[str, Any]] = []
    for seed, part in scores.groupby("seed"):
        rows += table_of(part, seed=seed, which="all")
    together = scores.groupby(["line", "name"], sort=False).mean(numeric_only=True).reset_index()
    for which in ("all", *dict.fromkeys(together["line"])):
        part = together if which == "all" else together[together["line"] == which]
        rows += table_of(part, seed="all", which=which)
    show(f"{options.cells.name}: each of {len(asked)} conditions left out in turn", rows)
    print(f"correlation of the first and last mode over fits: {scores[LEARNED].describe().round(2).to_dict()}")
    if options.output:
        write(options.output, rows)


def table_of(scores: pd.DataFrame, **about: Any) -> list[dict[str, Any]]:
    """Return rows of scores, a column a method."""
    parts = ({method: scores[f"{kind} {method}"].to_numpy() for method in METHODS} for kind in ("pearson", "mse"))
    return compared_scores(*parts, against=TOLD, **about)


def parse() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cells", type=Path)
    parser.add_argument("--modes", nargs="+", required=True, metavar="LINE=MODE")
    parser.add_argument("--pert-col", default="gene")
    parser.add_argument("--cell-type-key", default="cell_line")
    parser.add_argument("--control", default="non-targeting")
    parser.add_argument("--embeddings", type=Path)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--scores", type=Path, help="CSV file that keeps the scores; a second call goes on")
    parser.add_argument("-o", "--output", type=Path, help="CSV file for the table")
    return parser.parse_args()


def everywhere(responses: Responses, name: str) -> bool:
    """Tell whether a single perturbation was measured in all lines."""
    there = sum(name == other for other in responses.perturbations)
    return len(parts_of(name)) == 1 and there == len(responses.context_names)


def told(responses: Responses, modes: dict[str, str]) -> Responses:
    """Return the same responses with labels that tell the mode of their line."""
    return Responses(
        responses.effects,
        responses.contexts,
        [label_of(name, Treatment(modes[line])) for line, name in responses.conditions],
        responses.genes,
        cells=responses.cells,
        controls=responses.controls,
        treated=True,
    )


def left_out(
    responses: Responses, modes: dict[str, str], embeddings: dict[str, Any], row: int, seed: int
) -> dict[str, float]:
    """Return score and squared error of each method for one condition, and the learned correlation of two modes."""
    line, name = responses.conditions[row]
    known = responses.take([one for one in range(len(responses)) if one != row])
    training: dict[str, dict[str, np.ndarray]] = {}
    for (where, what), effect in zip(known.conditions, known.effects, strict=True):
        training.setdefault(where, {})[what] = effect.astype(float)
    naive = MeanEffects(training)
    mean = MeanEffect(naive)
    predicted = {MEAN: mean.effect(name, line), ELSEWHERE: OtherLines(naive, mean).effect(name, line)}
    learned = np.nan
    label = label_of(name, Treatment(modes[line]))
    for method, given, called in ((TOLD, told(known, modes), label), (NAMES, known, name)):
        engine = Evidence(Settings(seed=seed, calibrating=0)).fit(given, embeddings, uses=["few-shot"])
        predicted[method] = engine.predict(line, [called], trust=False).mean[0]
        weights = engine.trained["few-shot"].weights.treatments
        if weights is not None and weights.modes is not None:
            learned = float(weights.correlation()[0, -1])
    truth = responses.effects[row].astype(float)
    found = {f"pearson {method}": correlation(truth, one) for method, one in predicted.items()}
    found |= {f"mse {method}": float(np.square(truth - one).mean()) for method, one in predicted.items()}
    return {**found, LEARNED: learned}


if __name__ == "__main__":
    main()
