"""Doses between measured ones, by a network, by the evidence engine and by naive rules, where the truth is known.

    python benchmarks/dose_accuracy.py [--seeds 0 1 2] [--steps 1000]

A screen of cells: 16 drugs of 6 modules at 7 doses in three lines, a Hill curve each with a half-effect dose of its
own.
Of each drug one dose between others is in no training cell of any line. Its effect in each line is predicted by STATE
with an embedding of the drug and the log dose beside it (`rag=genept`, small), by the engine from the same cells' mean
effects, by the nearest measured dose of the drug in the line (by logarithm), by linear interpolation in the log dose
between its two neighbours, and by the line's mean effect. Scored against the true effect: Pearson correlation over
genes and mean squared error. A row a method, of seeds together, a drug's mean over the three lines counted as one:
means, of how many drugs network and engine have the smaller squared error, and Wilcoxon's p-value of that.
"""

import argparse
import contextlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from combination_accuracy import correlation
from evidence_accuracy import write
from rich.console import Console
from rich.table import Table
from scipy.stats import wilcoxon
from source_trust import BACKBONE, CELLS, GENES, MODEL, WIDTH
from treatment_truth import DOSES, HILL, label

from state_rag.embeddings.treated import Coordinates
from state_rag.evidence.estimator import Evidence
from state_rag.evidence.responses import Responses
from state_rag.evidence.training import Settings
from state_rag.model import RagStateTransition
from state_rag.retrieval.knowledge import Knowledge

LINES, DRUGS, MODULES, CONTROL = ("a", "b", "c"), 16, 6, MODEL["control_pert"]
PER_CONDITION, CONTROLS, NOISE = 32, 64, 0.25
SETS, HIDDEN, RATE = 32, 128, 2e-3  # chosen on seed 10
NETWORK, ENGINE, LINEAR, NEAREST, MEAN = METHODS = (
    "STATE, rag=genept",
    "engine",
    "linear in log dose",
    "nearest dose",
    "mean effect of the line",
)


class Screen:
    """Cells by condition (line, drug, dose), their true effects, and which conditions train."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.drugs = [f"D{number}" for number in range(DRUGS)]
        module = np.arange(DRUGS) % MODULES
        shared = 0.5 * rng.normal(size=(MODULES, GENES))[module] + 0.25 * rng.normal(size=(DRUGS, GENES))
        half = 10 ** rng.uniform(-1.5, 0.5, size=DRUGS)
        base = rng.uniform(2.5, 4.0, size=GENES)
        hidden = {drug: DOSES[2 + rng.integers(3)] for drug in self.drugs}
        self.vectors = np.zeros((DRUGS, WIDTH), dtype=np.float32)
        self.vectors[np.arange(DRUGS), module] = 1
        self.vectors += 0.15 * rng.normal(size=self.vectors.shape)
        self.cells: dict[tuple[str, str, float], np.ndarray] = {}
        self.truth: dict[tuple[str, str, float], np.ndarray] = {}
        self.controls: dict[str, np.ndarray] = {}
        for line in LINES:
            here = base + 0.3 * rng.normal(size=GENES)
            own = 0.2 * rng.normal(size=(DRUGS, GENES))
            self.controls[line] = self._drawn(rng, here, CONTROLS)
            for number, drug in enumerate(self.drugs):
                for dose in DOSES:
                    share = dose**HILL / (dose**HILL + half[number] ** HILL)
                    effect = share * (shared[number] + own[number])
                    self.truth[line, drug, dose] = effect
                    self.cells[line, drug, dose] = self._drawn(rng, here + effect, PER_CONDITION)
        self.asked = [key for key in self.truth if hidden[key[1]] == key[2]]
        self.trained = [key for key in self.truth if hidden[key[1]] != key[2]]
        mean = {line: cells.mean(0) for line, cells in self.controls.items()}
        self.effects = {key: self.cells[key].mean(0) - mean[key[0]] for key in self.trained}

    @staticmethod
    def _drawn(rng: np.random.Generator, mean: np.ndarray, count: int) -> np.ndarray:
        return (mean + NOISE * rng.normal(size=(count, GENES))).astype(np.float32)

    def batch(self, conditions: list[tuple[str, str, float]], rng: np.random.Generator) -> dict[str, Any]:
        """Return a set of cells of each condition, with controls of its line."""
        control = np.concatenate([rng.choice(self.controls[line], CELLS, replace=False) for line, _, _ in conditions])
        cells = np.concatenate([rng.choice(self.cells[one], CELLS, replace=False) for one in conditions])
        return {
            "pert_name": [name(one) for one in conditions for _ in range(CELLS)],
            "cell_type": [line for line, _, _ in conditions for _ in range(CELLS)],
            "pert_emb": torch.zeros(len(cells), 1),
            "ctrl_cell_emb": torch.from_numpy(control),
            "pert_cell_emb": torch.from_numpy(cells),
            "batch": torch.zeros(len(cells), dtype=torch.long),
        }


def name(condition: tuple[str, str, float]) -> str:
    """Return the label of a condition."""
    return label(condition[1], condition[2], "dose")


def main() -> None:
    """Predict the hidden doses of some seeds and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("-o", "--output", type=Path, help="CSV file for the table")
    given = parser.parse_args()
    torch.set_num_threads(1)
    errors: dict[str, list[float]] = {method: [] for method in METHODS}
    scores: dict[str, list[float]] = {method: [] for method in METHODS}
    for seed in given.seeds:
        screen = Screen(seed)
        found = {NETWORK: by_network(screen, seed, given.steps), ENGINE: by_engine(screen, seed), **naive(screen)}
        for method, predicted in found.items():
            for drug in screen.drugs:
                own = [key for key in screen.asked if key[1] == drug]
                pairs = [(screen.truth[key], predicted[key]) for key in own]
                errors[method].append(float(np.mean([np.square(a - b).mean() for a, b in pairs])))
                scores[method].append(float(np.mean([correlation(a, b) for a, b in pairs])))
    rows = []
    for method in METHODS:
        row: dict[str, Any] = {
            "method": method,
            "drugs": len(errors[method]),
            "pearson": float(np.mean(scores[method])),
            "mse": float(np.mean(errors[method])),
        }
        for who, other in (("network", NETWORK), ("engine", ENGINE)):
            gain = np.subtract(errors[method], errors[other])
            row[f"{who} better"] = "-" if method == other else f"{np.mean(gain > 0):.2f}"
            row[f"{who} p"] = 1.0 if method == other else float(wilcoxon(gain).pvalue)
        rows.append(row)
    shown = Table(*rows[0], title=f"hidden doses between measured ones, seeds {', '.join(map(str, given.seeds))}")
    for row in rows:
        shown.add_row(*(f"{value:.3g}" if isinstance(value, float) else str(value) for value in row.values()))
    Console(width=140).print(shown)
    if given.output:
        write(given.output, rows)


def by_network(screen: Screen, seed: int, steps: int) -> dict[tuple[str, str, float], np.ndarray]:
    """Return what STATE predicts that knows a drug by its embedding, and the dose by a coordinate beside it."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    trained, asked = (list(dict.fromkeys(map(name, part))) for part in (screen.trained, screen.asked))
    coordinates = Coordinates.of(trained)

    def rows(labels: list[str]) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        known = [screen.drugs.index(one.partition(":")[0]) for one in labels]
        return {"text": torch.from_numpy(screen.vectors[known])}, torch.from_numpy(coordinates(labels))

    blocks, beside = rows(trained)
    knowledge = Knowledge(trained, blocks, None, beside, coordinates.to_state()).with_queries(asked, *rows(asked))
    with contextlib.redirect_stdout(io.StringIO()):
        model = RagStateTransition.bound_to(knowledge)(
            **{**MODEL, "pert_dim": knowledge.width(), "hidden_dim": HIDDEN},
            use_genept=True,
            transformer_backbone_kwargs={
                **BACKBONE,
                "hidden_size": HIDDEN,
                "intermediate_size": 2 * HIDDEN,
                "head_dim": HIDDEN // 2,
            },
        )
    # STATE ends in a ReLU: a gene whose output starts below 0 has no gradient, and in a short training stays there
    last = [layer for layer in model.project_out.modules() if isinstance(layer, torch.nn.Linear)][-1]
    last.bias.data.copy_(torch.from_numpy(np.mean([cells.mean(0) for cells in screen.controls.values()], axis=0)))
    model.log = lambda *_, **__: None
    optimiser = torch.optim.Adam(model.train().parameters(), lr=RATE)
    for step in range(steps):
        conditions = [screen.trained[number] for number in rng.integers(len(screen.trained), size=SETS)]
        optimiser.zero_grad()
        model.training_step(screen.batch(conditions, rng), step).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimiser.step()
    model.eval()
    total = {key: np.zeros(GENES) for key in screen.asked}
    draws = 4
    with torch.no_grad():
        for _ in range(draws):
            batch = screen.batch(screen.asked, rng)
            change = (model(batch).reshape(-1, CELLS, GENES) - batch["ctrl_cell_emb"].reshape(-1, CELLS, GENES)).mean(1)
            for key, effect in zip(screen.asked, change.numpy(), strict=True):
                total[key] += effect / draws
    return total


def by_engine(screen: Screen, seed: int) -> dict[tuple[str, str, float], np.ndarray]:
    """Return what the engine predicts from the mean effects of the training cells."""
    keys = list(screen.effects)
    responses = Responses(
        np.stack([screen.effects[key] for key in keys]),
        [line for line, _, _ in keys],
        [name(key) for key in keys],
        cells=[PER_CONDITION] * len(keys),
        treated=True,
    )
    embeddings = {"text": (screen.drugs, screen.vectors)}
    engine = Evidence(Settings(seed=seed, calibrating=0)).fit(responses, embeddings, uses=["few-shot"])
    found = {}
    for line in LINES:
        asked = [key for key in screen.asked if key[0] == line]
        means = engine.predict(line, [name(key) for key in asked], trust=False).mean
        found.update(zip(asked, means, strict=True))
    return found


def naive(screen: Screen) -> dict[str, dict[tuple[str, str, float], np.ndarray]]:
    """Return what the rules predict from the same mean effects."""
    found: dict[str, dict[tuple[str, str, float], np.ndarray]] = {method: {} for method in (LINEAR, NEAREST, MEAN)}
    for key in screen.asked:
        line, drug, dose = key
        own = {one[2]: effect for one, effect in screen.effects.items() if one[:2] == (line, drug)}
        below, above = max(one for one in own if one < dose), min(one for one in own if one > dose)
        share = np.log(dose / below) / np.log(above / below)
        found[LINEAR][key] = (1 - share) * own[below] + share * own[above]
        found[NEAREST][key] = own[min(own, key=lambda one: abs(np.log(one / dose)))]
        found[MEAN][key] = np.mean([effect for one, effect in screen.effects.items() if one[0] == line], axis=0)
    return found


if __name__ == "__main__":
    main()
