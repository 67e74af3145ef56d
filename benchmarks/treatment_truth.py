"""Modes and doses where the truth is known: activation is minus knock-down, and drugs have a dose-response curve.

    python benchmarks/treatment_truth.py

Two simulations, some seeds each. Modes: 24 perturbations of 6 modules in four lines, two activated, two knocked down;
half of one line's are hidden and predicted, by the engine with labels that tell the mode and with names alone: Pearson
correlation over genes, and the learned correlation of the modes. Doses: 16 drugs at 7 doses in two lines, a Hill curve
each with a half-effect dose of its own; of half of the drugs two doses are hidden in one line: mean squared error of
the engine, of the nearest measured dose (by logarithm) and of the mean of the two nearest.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from combination_accuracy import correlation
from evidence_accuracy import write
from rich.console import Console
from rich.table import Table

from state_rag.evidence.estimator import Evidence
from state_rag.evidence.responses import Responses
from state_rag.evidence.training import Settings
from state_rag.names.treatments import Treatment, label_of

DOSES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
HIDDEN_DOSES = (0.1, 1.0)
HILL = 1.2
Effects = dict[tuple[str, str, Any], np.ndarray]
"""(line, name, mode or dose) -> effect [G]."""


def main() -> None:
    """Run both for some seeds and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3, metavar="N")
    parser.add_argument("-o", "--output", type=Path, help="CSV file for the table")
    options = parser.parse_args()
    rows = [{"seed": seed, **modes(seed), **doses(seed)} for seed in range(options.seeds)]
    shown = Table(*rows[0], title="planted truth")
    for row in rows:
        shown.add_row(*(f"{value:.3g}" for value in row.values()))
    Console(width=160).print(shown)
    if options.output:
        write(options.output, rows)


def fitted(effects: Effects, seed: int, *, told: bool, axis: str, embeddings: dict[str, Any] | None = None) -> Evidence:
    """Return an engine fitted on effects."""
    labels = [label(name, value, axis) if told else name for _, name, value in effects]
    lines = [line for line, _, _ in effects]
    responses = Responses(np.stack([*effects.values()]), lines, labels, treated=told)
    return Evidence(Settings(seed=seed, calibrating=0)).fit(responses, embeddings, uses=["few-shot"])


def label(name: str, value: Any, axis: str) -> str:
    """Return a label with a mode or a dose."""
    return label_of(name, Treatment(mode=value) if axis == "mode" else Treatment(dose=value))


def modes(seed: int, perturbations: int = 24, genes: int = 40) -> dict[str, float]:
    """Return the accuracy for hidden conditions of an activated line."""
    rng = np.random.default_rng(seed)
    module = np.arange(perturbations) % 6
    shared, single = rng.normal(size=(6, genes)), 0.6 * rng.normal(size=(perturbations, genes))
    effects: Effects = {}
    for line, mode, sign in (("a", "CRISPRa", 1), ("b", "CRISPRa", 1), ("c", "CRISPRi", -1), ("d", "CRISPRi", -1)):
        own = 0.4 * rng.normal(size=(6, genes))
        for p in range(perturbations):
            effect = sign * (shared[module[p]] + own[module[p]] + single[p])
            effects[line, f"P{p}", mode] = effect + 0.3 * rng.normal(size=genes)
    names = [f"P{p}" for p in range(perturbations)]
    embeddings = {"text": (names, np.eye(6)[module] + 0.1 * rng.normal(size=(perturbations, 6)))}
    hidden = {("a", name, "CRISPRa") for name in names[::2]}
    known = {key: effect for key, effect in effects.items() if key not in hidden}
    found = {}
    for method, told in (("modes told apart", True), ("names alone", False)):
        engine = fitted(known, seed, told=told, axis="mode", embeddings=embeddings)
        asked = [label(name, mode, "mode") if told else name for _, name, mode in sorted(hidden)]
        means = engine.predict("a", asked, trust=False).mean
        truth = [effects[key] for key in sorted(hidden)]
        found[f"Pearson, {method}"] = float(np.mean([correlation(*pair) for pair in zip(truth, means, strict=True)]))
        weights = engine.trained["few-shot"].weights.treatments
        if weights is not None:
            found["correlation of modes"] = float(weights.correlation()[0, 1])
    return found


def doses(seed: int, drugs: int = 16, genes: int = 40, noise: float = 0.1) -> dict[str, float]:
    """Return squared errors for hidden doses between measured ones."""
    rng = np.random.default_rng(seed)
    profile, half = rng.normal(size=(drugs, genes)), 10 ** rng.uniform(-1.5, 0.5, size=drugs)
    measured: Effects = {}
    truth: Effects = {}
    for line in "ab":
        own = 0.4 * rng.normal(size=(drugs, genes))
        for drug in range(drugs):
            for dose in DOSES:
                share = dose**HILL / (dose**HILL + half[drug] ** HILL)
                key = line, f"D{drug}", dose
                truth[key] = share * (profile[drug] + own[drug])
                if not (line == "a" and drug % 2 == 0 and dose in HIDDEN_DOSES):
                    measured[key] = truth[key] + noise * rng.normal(size=genes)
    engine = fitted(measured, seed, told=True, axis="dose")
    hidden = [key for key in truth if key not in measured]
    means = engine.predict("a", [label(name, dose, "dose") for _, name, dose in hidden], trust=False).mean
    errors: dict[str, list[float]] = {"MSE, engine": [], "MSE, nearest dose": [], "MSE, mean of two nearest": []}
    for (line, name, dose), mean in zip(hidden, means, strict=True):
        there = sorted((one for one in measured if one[:2] == (line, name)), key=lambda one: abs(np.log(one[2] / dose)))
        near = [measured[one] for one in there[:2]]
        for method, predicted in zip(errors, (mean, near[0], np.mean(near, 0)), strict=True):
            errors[method].append(float(np.square(predicted - truth[line, name, dose]).mean()))
    return {method: float(np.mean(values)) for method, values in errors.items()}


if __name__ == "__main__":
    main()
