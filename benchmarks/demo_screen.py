"""The main job on a simulated screen: train, predict and compare with naive baselines.

    python benchmarks/demo_screen.py                # STATE+GenePT and PT-RAG, one seed, 600 steps: a few minutes
    python benchmarks/demo_screen.py --seeds 3 --steps 2000 --methods none genept vanilla published ptrag

Every step is one of the commands a user would type; their output goes to log files beside the results. The
screen has modules of perturbations that share effects, cell lines that differ, and text neighbours that
mislead (see `state-rag data simulate`); hepg2 is held out with 30 % of its perturbations for few-shot training. With
`--unseen X` a share X of the perturbations is held out in every line instead.

    python benchmarks/demo_screen.py --unseen 0.2 --seeds 3 --steps 2000 --methods genept engine

`ptrag` is the preset `rag=ptrag`; `published` is PT-RAG as published (`training.rag=true` alone), but for K = 10, since
the base has only 60 perturbations. The screen is the default of `simulate`. The small model, sets of 16 cells, the
loader process and the number of steps are what the time allows. Each process computes in one thread unless
`OMP_NUM_THREADS` says otherwise: with a model this small more threads mostly wait for each other, above all where the
cores have other work.

The second table gives the mean inclusion of true module mates and of misleading neighbours among the candidates of
the test perturbations, the mean text similarity of either kind in brackets, and the difference within a query with
its standard error. Within a query, text similarity does not tell the two kinds apart.
"""

import argparse
import csv
import json
import logging
import os
import subprocess
import sys
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from state_rag.embeddings.readers import read_embeddings
from state_rag.errors import StateRagError

TITLES = {
    "none": "STATE",
    "genept": "STATE+GenePT",
    "vanilla": "vanilla RAG",
    "published": "PT-RAG as published",
    "ptrag": "PT-RAG",
    "anchored": "STATE+GenePT, anchored",
    "anchored_train": "STATE+GenePT, anchored in training",
    "ptrag_anchored": "PT-RAG, anchored",
    "engine": "evidence engine",
}

PRESETS = {
    "published": ["training.rag=true"],
    "anchored": ["rag=evidence"],
    "anchored_train": ["rag=evidence", "training.rag_evidence=train"],
    "ptrag_anchored": ["rag=ptrag", "training.rag_evidence=predict"],
}
"""Overrides of a method, where they are not `rag=METHOD`."""

SELECTING = ("published", "ptrag", "ptrag_anchored")
"""Methods with a selector."""

SMALL = ["model=rag_small", "training=small"]
"""A model that trains on a laptop: two layers of width 64 on sets of 16 cells."""

LOOK_AT = """\
Look first at the table: does a model beat "same pert., other lines", which only repeats what a perturbation did in
the other lines? Then at "Retrieval": the neighbours that PT-RAG weighs most should be module mates."""
"""Said at the end, about the report."""

TESTED = "pearson_delta"
METRICS = {
    "pearson_delta": "Pearson\ndelta ↑",
    "pearson_delta_deg": "Pearson\ndelta\n(DEG) ↑",
    "pearson_deg": "Pearson\n(DEG) ↑",
    "mse": "MSE ↓",
    "energy_pca50": "energy\nPCA-50 ↓",
}
"""Metrics of the table and their headings."""


def main() -> None:
    """Run every seed and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", choices=list(TITLES), default=["genept", "ptrag", "engine"])
    parser.add_argument("--seeds", type=int, default=1, help="number of screens, seeds 0, 1, ...")
    parser.add_argument("--steps", type=int, default=600, help="training steps of each run (%(default)s)")
    parser.add_argument("--unseen", type=float, metavar="X", help="hold out a share of perturbations in every line")
    parser.add_argument("--output", type=Path, default=Path("demo"), help="folder for everything that is written")
    args = parser.parse_args()
    console = Console()
    console.print(
        f"A simulated screen (60 perturbations, 4 cell lines, {held_out(args.unseen)}), and a model of two layers of "
        f"width 64 trained for {args.steps:,} steps: what the commands do and how to read their results, not how well "
        f"they do on real data. Logs of every command: {args.output}/seed*/*.log",
        style="dim",
        soft_wrap=True,
    )
    started = time.monotonic()
    values: dict[tuple[str, str], list[float]] = defaultdict(list)
    chances: dict[str, list[str]] = defaultdict(list)
    told_apart: dict[str, list[Inclusion]] = defaultdict(list)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("starting")

        def say(step: str) -> None:
            progress.update(task, description=step)
            if not console.is_terminal:  # a log shows no spinner
                console.print(f"{time.monotonic() - started:4.0f} s  {step}", markup=False, soft_wrap=True)

        for seed in range(args.seeds):
            screen = Screen(args.output / f"seed{seed}", seed, args.unseen)
            screen.prepare(say)
            for method in args.methods:
                screen.run(method, args.steps, say)
            say(f"seed {seed}: comparing")
            for predictor, metric, mean, p in screen.compare(args.methods):
                values[predictor, metric].append(mean)
                if metric == TESTED:
                    chances[predictor].append(p)
            for method in filter(args.methods.__contains__, SELECTING):
                told_apart[method].append(screen.inclusion(method))
        say("drawing the report of seed 0")
        page = Screen(args.output / "seed0", 0, args.unseen).report(args.methods)
    print_table(console, values, chances, args)
    for method, found in told_apart.items():
        print_inclusion(console, TITLES[method], found)
    console.print(f"{time.monotonic() - started:.0f} s. Runs, logs and comparisons: {args.output}", markup=False)
    console.print(f"Open in a browser: {page}", markup=False, soft_wrap=True)
    console.print(LOOK_AT, markup=False, soft_wrap=True)


class Screen:
    """One simulated screen with its split and runs.

    Parameters
    ----------
    folder
        Where everything goes.
    seed
        Of the simulation, the split and the training.
    unseen
        Share of perturbations held out in every line; None to hold out most of hepg2.
    """

    def __init__(self, folder: Path, seed: int, unseen: float | None = None) -> None:
        self.folder = folder.resolve()
        self.seed = seed
        self.unseen = unseen
        self.split = self.folder / "split.toml"

    def prepare(self, say) -> None:
        """Simulate the screen and write its split."""
        say(f"seed {self.seed}: simulating the screen")
        self._command("simulate", "state_rag.cli", "data", "simulate", str(self.folder), "--seed", str(self.seed))
        held = ["--held-out", "hepg2", "--few-shot", "0.3"]
        if self.unseen is not None:
            held = ["--held-out-perturbations", str(self.unseen), "--seed", str(self.seed)]
        screen = str(self.folder / "screen.h5ad")
        self._command("split", "state_rag.cli", "data", "split", screen, *held, "-o", str(self.split))

    def run(self, method: str, steps: int, say) -> None:
        """Train and predict; the engine is fitted, without a network."""
        if method == "engine":
            say(f"seed {self.seed}: fitting the {TITLES[method]}")
            self._command(
                "fit_engine", "state_rag.cli", "evidence", "fit", str(self.split), "--embeddings",
                str(self.folder / "embeddings.safetensors"), "--seed", str(self.seed), "--overwrite", "--quiet", "-o",
                str(self.folder / "runs" / method),
            )  # fmt: skip
        else:
            self.train(method, steps, say)
        say(f"seed {self.seed}: predicting with {TITLES[method]}")
        self._command(
            f"predict_{method}", "state_rag", "tx", "predict", "--output-dir", str(self.folder / "runs" / method),
            "--predict-only", "--checkpoint", "last.ckpt",
        )  # fmt: skip

    def train(self, method: str, steps: int, say) -> None:
        """Train a network."""
        say(f"seed {self.seed}: training {TITLES[method]}, {steps} steps")
        chosen = PRESETS.get(method, [f"rag={method}"])
        self._command(
            f"train_{method}", "state_rag", "tx", "train", *chosen, *SMALL, "data=replogle",
            "data.kwargs.num_workers=1", f"data.kwargs.toml_config_path={self.split}", "use_wandb=false",
            f"training.genept_path={self.folder / 'embeddings.safetensors'}", "training.topk_rag=10",
            f"training.max_steps={steps}", f"training.val_freq={max(steps // 4, 1)}",
            f"training.train_seed={self.seed}",
            f"output_dir={self.folder / 'runs'}", f"name={method}", "overwrite=true",
        )  # fmt: skip

    def compare(self, methods: list[str]) -> list[tuple[str, str, float, str]]:
        """Return (predictor, metric, mean over the test conditions, p) of every run and naive baseline.

        p is of the paired Wilcoxon test against the last method; empty for that.
        """
        runs = [str(self.folder / "runs" / method) for method in methods]
        self._command(
            "compare", "state_rag.cli", "compare", *runs, "--names", *(TITLES[method] for method in methods),
            "--reference", runs[-1], "--metrics", *METRICS, "--embeddings", str(self.folder / "embeddings.safetensors"),
            "-o", str(self.folder), "--force", "--quiet",
        )  # fmt: skip
        with open(self.folder / "comparison.csv", newline="") as stream:
            return [
                (row["predictor"], row["metric"], float(row["mean"] or "nan"), row["p_wilcoxon"])
                for row in csv.DictReader(stream)
            ]

    def report(self, methods: list[str]) -> Path:
        """Make the report page of all runs and return its path."""
        runs = [str(self.folder / "runs" / method) for method in methods]
        self._command(
            "report", "state_rag.cli", "report", *runs, "--names", *(TITLES[method] for method in methods),
            "--reference", runs[-1], "--truth", str(self.folder / "truth.json"), "--embeddings",
            str(self.folder / "embeddings.safetensors"), "-o", str(self.folder.parent / "report"), "--quiet",
        )  # fmt: skip
        return self.folder.parent / "report" / "index.html"

    def inclusion(self, method: str) -> "Inclusion":
        """Return how much the selector included of either kind of candidate, over the test perturbations."""
        truth = json.loads((self.folder / "truth.json").read_text())
        embeddings = read_embeddings(self.folder / "embeddings.safetensors", progress=False)
        weights: dict[tuple[str, str], list[float]] = defaultdict(list)
        with open(self.folder / "runs" / method / "eval_last.ckpt" / "retrieval_info.csv", newline="") as stream:
            for row in csv.DictReader(stream):
                for part in filter(None, row["retrieved_perturbations"].split("|")):
                    name, _, weight = part.removesuffix(")").rpartition("(w=")
                    weights[row["pert_name"], name].append(float(weight))
        pairs: dict[str, dict[str, list[tuple[float, float]]]] = defaultdict(lambda: {"mates": [], "misleading": []})
        for (query, name), values in weights.items():
            for kind in ("mates", "misleading"):
                if name in truth[kind].get(query, ()):
                    cosine = _cosine(embeddings.row(query), embeddings.row(name))
                    pairs[query][kind].append((float(np.mean(values)), cosine))
        return Inclusion.of(list(pairs.values()))

    def _command(self, name: str, module: str, *arguments: str) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        log = self.folder / f"{name}.log"
        command = [sys.executable, "-m", module, *arguments]
        environment = {"OMP_NUM_THREADS": "1", **os.environ}
        with open(log, "w") as stream:
            done = subprocess.run(command, stdout=stream, stderr=subprocess.STDOUT, env=environment)
        if done.returncode:
            tail = "\n".join(log.read_text().splitlines()[-5:])
            raise StateRagError(f"`python -m {module} {' '.join(arguments)}` failed. The end of {log}:\n{tail}")


@dataclass(frozen=True)
class Inclusion:
    """Mean inclusion and text similarity of module mates and misleading neighbours among the candidates.

    Attributes
    ----------
    mates, misleading
        (mean inclusion, mean cosine similarity to the query) over pairs of query and candidate.
    difference, error
        Mean over the queries that have both kinds of mates less misleading, and its standard error.
    """

    mates: tuple[float, float]
    misleading: tuple[float, float]
    difference: float
    error: float

    @classmethod
    def of(cls, queries: list[dict[str, list[tuple[float, float]]]]) -> "Inclusion":
        """Summarise (inclusion, cosine) of the candidates of each query."""
        means = []
        for kind in ("mates", "misleading"):
            values = [pair for query in queries for pair in query[kind]] or [(np.nan, np.nan)]
            inclusion, cosine = np.mean(values, axis=0)
            means.append((float(inclusion), float(cosine)))
        both = [query for query in queries if query["mates"] and query["misleading"]]
        paired = [np.mean(query["mates"], axis=0)[0] - np.mean(query["misleading"], axis=0)[0] for query in both]
        if len(paired) < 2:
            return cls(means[0], means[1], float("nan"), float("nan"))
        return cls(means[0], means[1], float(np.mean(paired)), float(np.std(paired, ddof=1) / np.sqrt(len(paired))))


def _cosine(first: np.ndarray, second: np.ndarray) -> float:
    return float(first @ second / (np.linalg.norm(first) * np.linalg.norm(second)))


def held_out(unseen: float | None) -> str:
    """Return what the split holds out, in words."""
    return "hepg2 held out" if unseen is None else f"{unseen:.0%} of perturbations held out in all lines"


def print_table(
    console: Console,
    values: dict[tuple[str, str], list[float]],
    chances: dict[str, list[str]],
    args: argparse.Namespace,
) -> None:
    """Print predictors by metrics, means over the seeds, and each seed's paired test against the last method."""
    many = "s" if args.seeds > 1 else ""
    table = Table(title=f"{held_out(args.unseen)}, test perturbations; mean over {args.seeds} screen{many}")
    table.add_column("predictor", no_wrap=True)
    for heading in METRICS.values():
        table.add_column(heading, justify="right", vertical="bottom", no_wrap=True)
    for predictor in dict.fromkeys(name for name, _ in values):
        cells = [values[predictor, metric] for metric in METRICS]
        row = [f"{sum(cell) / len(cell):.3f}" if cell else "-" for cell in cells]
        table.add_row(predictor, *row)
    console.print(table)
    tests = Table(title=f"p of each screen, {TITLES[args.methods[-1]]} against the row: Pearson delta, paired Wilcoxon")
    tests.add_column("predictor", no_wrap=True)
    tests.add_column("p", no_wrap=True)
    for predictor, found in chances.items():
        if any(found):
            tests.add_row(predictor, " ".join(f"{float(p):.0e}" for p in found if p))
    console.print(tests)


def print_inclusion(console: Console, method: str, told_apart: list[Inclusion]) -> None:
    """Print, for every seed, what the selector made of module mates and misleading neighbours."""
    table = Table(title=f"{method}: mean inclusion (text similarity to the query)")
    for heading in ("seed", "module mates", "misleading neighbours", "difference ± s.e."):
        table.add_column(heading, justify="right", no_wrap=True)
    for seed, found in enumerate(told_apart):
        kinds = (f"{inclusion:.3f} ({cosine:.2f})" for inclusion, cosine in (found.mates, found.misleading))
        table.add_row(str(seed), *kinds, f"{found.difference:+.3f} ± {found.error:.3f}")
    console.print(table)


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    try:
        main()
    except StateRagError as error:
        sys.exit(f"demo: error: {error}")
