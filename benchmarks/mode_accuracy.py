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
from combination_accuracy import compared_scores, correlation, show
from evidence_accuracy import write

import state_rag as sr
from state_rag.effects.mean_effects import MeanEffects
from state_rag.engine.bank import responses_in
from state_rag.errors import StateRagError
from state_rag.evaluation.baselines import MeanEffect, OtherLines
from state_rag.evidence.estimator import Evidence
from state_rag.evidence.responses import Responses
from state_rag.evidence.training import Settings
from state_rag.names.combinations import parts_of, with_members
from state_rag.names.treatments import Treatment, label_of
from state_rag.progress import track

TOLD, NAMES = "modes told apart", "names alone"
Scores = dict[str, np.ndarray]


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
    lines = np.array([responses.contexts[row] for row in asked])
    rows: list[dict[str, Any]] = []
    by_seed = []
    for seed in options.seeds:
        score, error, learned = left_out(responses, modes, embeddings, asked, seed)
        by_seed.append((score, error))
        rows += compared_scores(score, error, against=TOLD, seed=seed, which="all")
        print(f"seed {seed}: correlation of modes, mean over fits {learned}")
    score, error = (
        {name: np.mean([one[part][name] for one in by_seed], 0) for name in by_seed[0][0]} for part in (0, 1)
    )
    for which in ("all", *dict.fromkeys(lines.tolist())):
        here = lines == which if which != "all" else np.ones(len(lines), dtype=bool)
        parts = ({name: values[here] for name, values in one.items()} for one in (score, error))
        rows += compared_scores(*parts, against=TOLD, seed="all", which=which)
    show(f"{options.cells.name}: each of {len(asked)} conditions left out in turn", rows)
    if options.output:
        write(options.output, rows)


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
    responses: Responses, modes: dict[str, str], embeddings: dict[str, Any], asked: list[int], seed: int
) -> tuple[Scores, Scores, np.ndarray]:
    """Return scores and squared errors of each method [asked], and the mean learned correlation of modes."""
    score: dict[str, list[float]] = {}
    error: dict[str, list[float]] = {}
    learned = []
    for row in track(asked, f"seed {seed}"):
        line, name = responses.conditions[row]
        known = responses.take([one for one in range(len(responses)) if one != row])
        training: dict[str, dict[str, np.ndarray]] = {}
        for number, (where, what) in enumerate(known.conditions):
            training.setdefault(where, {})[what] = known.effects[number].astype(float)
        naive, settings = MeanEffects(training), Settings(seed=seed, calibrating=0)
        truth, found = responses.effects[row].astype(float), {}
        label = label_of(name, Treatment(modes[line]))
        for method, given, called in ((TOLD, told(known, modes), label), (NAMES, known, name)):
            engine = Evidence(settings).fit(given, embeddings, uses=["few-shot"])
            found[method] = engine.predict(line, [called], trust=False).mean[0]
            if engine.bank.treatments is not None:
                weights = engine.trained["few-shot"].weights.treatments
                assert weights is not None
                learned.append(weights.correlation().detach().numpy())
        mean = MeanEffect(naive)
        found |= {
            "mean effect": mean.effect(name, line),
            "same perturbation elsewhere": OtherLines(naive, mean).effect(name, line),
        }
        for method, predicted in found.items():
            score.setdefault(method, []).append(correlation(truth, predicted))
            error.setdefault(method, []).append(float(np.square(truth - predicted).mean()))
    both = ({name: np.array(values) for name, values in one.items()} for one in (score, error))
    return *both, np.mean(learned, 0).round(2)  # type: ignore[return-value]


if __name__ == "__main__":
    main()
