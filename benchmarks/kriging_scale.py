"""What the evidence engine costs with many measured conditions, and what keeping the nearest supports alone loses.

    python benchmarks/kriging_scale.py --contexts 4 --perturbations 2500 --limits 10000 5000 2000
    python benchmarks/kriging_scale.py --contexts 10 --perturbations 10000

Simulated effects: each perturbation has a vector that its text shows with noise; genes answer it linearly, in part the
same in all contexts, in part in each its own way, and measuring adds noise. In the last context a tenth of the
perturbations is asked, none of them measured there. A row a limit of supports: seconds of work (CPU) of the fit and of
the prediction, largest memory, and the mean Pearson correlation with the true effects, beside the same perturbation's
mean response elsewhere. The largest limit is the exact answer where it is no less than the number of conditions.
"""

import argparse
import resource
import time

import numpy as np
from rich.console import Console
from rich.table import Table

from state_rag.evidence.estimator import Evidence
from state_rag.evidence.responses import Responses
from state_rag.evidence.training import Settings


def main() -> None:
    """Simulate, fit once, predict with each limit."""
    options = parse()
    rng = np.random.default_rng(options.seed)
    responses, vectors, asked, truth, elsewhere = simulated(options, rng)
    names = [f"P{number}" for number in range(options.perturbations)]
    start = time.process_time()
    settings = Settings(seed=options.seed, final_supports=options.limits[0], calibrating=options.calibrating)
    engine = Evidence(settings).fit(responses, {"text": (names, vectors)}, uses=("few-shot",))
    fitting = time.process_time() - start
    shown = Table(title=f"{len(responses)} conditions of {options.genes} genes, {len(asked)} asked")
    for column in ("supports", "fit CPU s", "predict CPU s", "largest RSS GiB", "pearson", "elsewhere", "fusion"):
        shown.add_column(column, justify="right")
    for limit in options.limits:
        engine.settings = Settings(seed=options.seed, final_supports=limit, calibrating=options.calibrating)
        start = time.process_time()
        found = engine.predict(f"c{options.contexts - 1}", [names[one] for one in asked], trust=False).mean
        took = time.process_time() - start
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        fused = engine.learned_for("few-shot").fusion is not None
        cells = [f"{min(limit, len(responses))}", f"{fitting:.0f}", f"{took:.1f}", f"{memory:.2f}"]
        shown.add_row(*cells, f"{correlation(found, truth):.4f}", f"{correlation(elsewhere, truth):.4f}", str(fused))
    Console(width=110).print(shown)


def simulated(
    options: argparse.Namespace, rng: np.random.Generator
) -> tuple[Responses, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return responses, text vectors [P, 256], what is asked, its true effects and its mean responses elsewhere."""
    count, genes, contexts = options.perturbations, options.genes, options.contexts
    centre = rng.normal(size=(max(count // 20, 2), 32))
    traits = centre[rng.integers(0, len(centre), count)] + 0.6 * rng.normal(size=(count, 32))
    vectors = traits @ rng.normal(size=(32, 256)) + 8.0 * rng.normal(size=(count, 256))
    common = rng.normal(size=(32, genes))
    asked = np.sort(rng.choice(count, max(count // 10, 1), replace=False))
    conditions, effects, truth = [], [], np.empty(0)
    elsewhere = np.zeros((len(asked), genes))
    for context in range(contexts):
        true = (traits @ (common + 0.7 * rng.normal(size=(32, genes))) / 8).astype(np.float32)
        seen = (true + 0.8 * rng.normal(size=true.shape)).astype(np.float32)
        measured = np.arange(count)
        if context == contexts - 1:
            truth, measured = true[asked], np.setdiff1d(measured, asked)
        else:
            elsewhere += seen[asked] / (contexts - 1)
        conditions += [(f"c{context}", f"P{one}") for one in measured]
        effects.append(seen[measured])
    responses = Responses(
        np.concatenate(effects),
        [context for context, _ in conditions],
        [name for _, name in conditions],
        [f"g{gene}" for gene in range(genes)],
        cells=np.full(len(conditions), 50),
    )
    return responses, vectors.astype(np.float32), asked, truth, elsewhere


def correlation(found: np.ndarray, truth: np.ndarray) -> float:
    """Return the mean Pearson correlation over rows."""
    first, second = (part - part.mean(1, keepdims=True) for part in (found, truth))
    products = (first * second).sum(1)
    return float((products / np.sqrt((first**2).sum(1) * (second**2).sum(1))).mean())


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--contexts", type=int, default=4)
    parser.add_argument("--perturbations", type=int, default=2500)
    parser.add_argument("--genes", type=int, default=500)
    parser.add_argument("--limits", type=int, nargs="+", default=[10_000], help="largest first")
    parser.add_argument("--calibrating", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
