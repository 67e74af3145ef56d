"""Does it pay to design experiments? Replayed on real screens: designed, random and two simple rivals.

    python benchmarks/design_replay.py
    python benchmarks/design_replay.py --data tahoe --full --splits 4 -o results.csv
    python benchmarks/design_replay.py --cost

A random half of the held-out context's perturbations is only predicted; experiments are chosen from the other half,
starting from nothing measured there (or from `--measured N`), and predict the first half together with all that was
measured in other contexts. A row a way to choose: mean Pearson correlation of predicted and real effect over the
predicted half, over splits; p-values are of the paired t-test of designed with that row, over splits.

The numbers of the covariance, which all ways share, are trained without the predicted half of the held-out context.
With three contexts or more (`tahoe`) they are trained on the others alone. With two (`replogle`) nothing in the other
context could tell what a response elsewhere is worth, so that the half to choose from joins the training; what is
chosen from it is then decided by covariances alone, never by its responses.

Real effects are those of the protocol's folder (`--protocol`, see evidence_accuracy.py), not part of this repository.
`--cost` chooses 96 of 10,000 candidates and prints processor time and memory.
"""

import argparse
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from evidence_accuracy import FILES, HELD_OUT, protocol, write
from rich.console import Console
from rich.table import Table

from state_rag.evidence.bank import Bank
from state_rag.evidence.choices.design import design
from state_rag.evidence.choices.design_replay import DESIGNED, METHODS, Replay, replay
from state_rag.evidence.estimator import Evidence
from state_rag.evidence.responses import Responses
from state_rag.evidence.similarity import Similarity, Source
from state_rag.evidence.training import KRIGING, Settings, Trained, train


def main() -> None:
    """Replay every held-out context and print its table."""
    options = parse()
    if options.cost:
        cost(options)
        return
    console, rows = Console(width=120), []
    for data in options.data:
        for context in options.held_out or HELD_OUT[data]:
            start = time.perf_counter()
            found = replayed(options, data, context)
            seconds = time.perf_counter() - start
            console.print(table(data, found, options, seconds))
            rows += records(data, found, options)
            if options.output:
                write(options.output, rows)


def parse() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--data", nargs="+", default=["replogle", "tahoe"], choices=FILES)
    parser.add_argument("--held-out", nargs="+", help="contexts; default: K562 and RPE1, SNU-1")
    parser.add_argument("--splits", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0, help="of the splits")
    parser.add_argument("--measured", type=int, default=0, help="conditions measured before, drawn at random")
    parser.add_argument("--full", action="store_true", help="predict with fusion too, not by co-kriging alone")
    parser.add_argument("--steps", type=int, default=100, help="of training the covariance")
    parser.add_argument("--max-supports", type=int, default=300, help="of an episode")
    parser.add_argument("--protocol", type=Path, default=Path("../shared/evidence_protocol.py"))
    parser.add_argument("--cost", action="store_true", help="choose 96 of 10,000 and print time and memory")
    parser.add_argument("-o", "--output", type=Path, help="CSV file for the tables")
    return parser.parse_args()


def replayed(options: argparse.Namespace, data: str, context: str) -> Replay:
    """Return the replay of one context, each split with its own training where that takes a part of the context."""
    rules = protocol(options.protocol)
    folder = options.protocol.parent / "data"
    # a grid in which nothing is hidden: that of a case whose held-out context is taken from one with another held out
    case = rules.Case.read(folder / FILES[data], context)
    other = next(name for name in case.contexts if name != context)
    effects = case.effects.copy()
    effects[case.target] = rules.Case.read(folder / FILES[data], other).effects[case.target]
    embeddings = {}
    if data == "replogle":
        embeddings["text"] = case.perturbations, rules.texts(folder / "gene_summaries.json", case.perturbations)
    full, kernels = engine_parts(effects, case.contexts, case.perturbations, embeddings)
    number = full.number_of_context(context)
    there = full.perturbation[full.rows_of(number)].numpy()
    rng = np.random.default_rng([options.seed, 0])
    halves = []
    for _ in range(options.splits):
        order = rng.permutation(there)
        halves.append((np.sort(order[: len(order) // 2]), np.sort(order[len(order) // 2 :])))
    elsewhere_alone = len(case.contexts) > 2
    learned: Trained | None = None
    found = []
    for split, (test, pool) in enumerate(halves):
        if learned is None or not elsewhere_alone:
            seen = effects.copy()
            if elsewhere_alone:
                seen[case.contexts.index(context)] = np.nan
            else:
                names = [full.perturbations[p] for p in test]
                seen[case.contexts.index(context), [case.perturbations.index(name) for name in names]] = np.nan
            learned = learn(options, seen, case, embeddings)
        found.append(
            replay(
                full,
                kernels,
                learned,
                number,
                splits=[(test, pool)],
                measured=options.measured,
                seed=1000 * options.seed + split,
            )
        )
        print(f"{context}: {split + 1} of {options.splits}", file=sys.stderr)
    scores = {method: np.concatenate([one.scores[method] for one in found]) for method in METHODS}
    return Replay(context, found[0].budgets, scores, np.concatenate([one.explained for one in found]))


def engine_parts(effects: np.ndarray, contexts: list[str], names: list[str], told: Any) -> tuple[Bank, Similarity]:
    """Return bank and kernels of a grid of effects."""
    bank = Bank(Responses.from_grid(effects, contexts, names), [n for known, _ in told.values() for n in known])
    return bank, Similarity(bank, [Source.of(name, *one, bank.perturbations) for name, one in told.items()])


def learn(options: argparse.Namespace, seen: np.ndarray, case: Any, embeddings: Any) -> Trained:
    """Return what the seen responses teach."""
    bank, kernels = engine_parts(seen, case.contexts, case.perturbations, embeddings)
    settings = Settings(steps=options.steps, max_supports=options.max_supports, calibrating=0)
    if not options.full:
        settings = Settings(steps=options.steps, max_supports=options.max_supports, calibrating=0, episodes=0)
    learned = train(bank, kernels, "few-shot", settings)
    assert learned is not None
    return learned if options.full else Trained(learned.weights, estimate=KRIGING)


def records(data: str, found: Replay, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return a row for each way to choose and budget."""
    rows = []
    for method, values in found.scores.items():
        low, high = found.interval(method)
        p = found.p_value(method) if method != DESIGNED else np.full(len(found.budgets), np.nan)
        for column, budget in enumerate(found.budgets):
            rows.append(
                {
                    "data": data,
                    "context": found.context,
                    "estimator": "fusion" if options.full else "co-kriging",
                    "measured": options.measured,
                    "splits": len(values),
                    "method": method,
                    "budget": budget,
                    "pearson": values[:, column].mean(),
                    "low": low[column],
                    "high": high[column],
                    "p": p[column],
                }
            )
    return rows


def table(data: str, found: Replay, options: argparse.Namespace, seconds: float) -> Table:
    """Return the table for the terminal."""
    how = "fusion" if options.full else "co-kriging"
    title = f"{data}, {found.context}, {how}, {len(found.explained)} splits, {options.measured} measured before"
    shown = Table(title=f"{title}, {seconds:.0f} s")
    shown.add_column("chosen", no_wrap=True)
    for budget in found.budgets:
        shown.add_column(f"{budget} (p)", justify="right")
    for method, values in found.scores.items():
        p = found.p_value(method)
        cells = [
            f"{v:.3f}" + ("" if method == DESIGNED else f" ({q:.0e})") for v, q in zip(values.mean(0), p, strict=True)
        ]
        shown.add_row(method, *cells)
    return shown


def cost(options: argparse.Namespace) -> None:
    """Choose 96 of 10,000 candidates, with 1,500 measured in two contexts, and print time and memory."""
    rng = np.random.default_rng(options.seed)
    names = [f"P{number}" for number in range(10_000)]
    vectors = rng.normal(size=(10_000, 128)).astype(np.float32)
    labels = [(context, place) for context, count in (("a", 500), ("b", 1000)) for place in range(count)]
    effects = vectors[[p for _, p in labels]] @ rng.normal(size=(128, 300)) + rng.normal(size=(len(labels), 300))
    responses = Responses(effects, [c for c, _ in labels], [names[p] for _, p in labels])
    engine = Evidence(Settings(steps=5, episodes=0, calibrating=0)).fit(
        responses, {"text": (names, vectors)}, uses=["few-shot"]
    )
    start = time.process_time()
    found = design(engine, ["a"], 96)
    seconds = time.process_time() - start
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    threads = torch.get_num_threads()
    took = f"{seconds:.1f} s of processor time, peak {memory:.2f} GiB, {threads} threads"
    print(f"96 of 9,500 candidates, 9,500 targets: {took}")
    print(f"share of variance {found.explained[-1]:.4f}")


if __name__ == "__main__":
    main()
