"""Does a search find the perturbation behind a response? Its rank among candidates none of which was measured there.

    python benchmarks/search_accuracy.py
    python benchmarks/search_accuracy.py --seeds 1 2 3 --data replogle tahoe -o search.csv
    python benchmarks/search_accuracy.py --cost

Cases are those of `evidence_accuracy.py`, whose options these are. The target is the true response of each test
perturbation in the held-out context, candidates are all test perturbations. A row a way to rank: median rank of the
right one, share of targets for which it is first and among the first ten, mean reciprocal rank; p is that of
Wilcoxon's signed-rank test, over targets, of the logarithm of the rank with that of the search.

Naive rows rank by the Pearson correlation of the target with the same perturbation's response in other contexts, with
ridge regressions and with the engine's prediction, or by lot. Then what the search is made of, one thing added after
another; the search when only `--refine` candidates are predicted in full; and with only the genes that go up and down
most, 10 or 50 of each, as a list. Below: how often the right one fits (p <= .05), and how often anything fits targets
of noise, and true responses whose genes are shuffled.

`--cost` searches 20,000 candidates, with 1,500 conditions measured in two contexts, and prints time and memory.
"""

import resource
import time
from argparse import ArgumentParser, Namespace
from pathlib import Path

import numpy as np
import torch
from evidence_accuracy import Case, about, cases, correlations, naive, parse, write
from rich.console import Console
from rich.table import Table
from scipy.stats import wilcoxon

from state_rag.evidence.choices.chances import chances
from state_rag.evidence.choices.search import SIGNIFICANT, Candidates, search
from state_rag.evidence.estimator import Evidence
from state_rag.evidence.fusion import Fusion
from state_rag.evidence.responses import Responses
from state_rag.evidence.training import Settings

SEARCH = "search"
LISTS = (10, 50)
NULLS = 100
"""Targets of noise, and of shuffled genes."""


def main() -> None:
    """Judge every case and print its table."""
    options = parse(__doc__, more=add_options)
    if options.cost:
        cost(options.training_seed)
        return
    console, rows = Console(width=120), []
    for case in cases(options):
        start = time.perf_counter()
        engine = fitted(case, options)
        ranks = ranked(case, engine, options.refine)
        fits = fitting(case, engine)
        console.print(table(case, ranks, time.perf_counter() - start))
        console.print(", ".join(f"{name} {share:.3f}" for name, share in fits.items()))
        rows += [{**about(case), **row(name, ranks), **fits} for name in ranks]
        if options.output:
            write(options.output, rows)


def add_options(parser: ArgumentParser) -> None:
    """Add the options of this program alone."""
    parser.add_argument("--refine", type=int, default=50, help="candidates predicted in full, in the row for it")
    parser.add_argument("--engines", type=Path, help="folder in which fitted engines are kept for the next time")
    parser.add_argument("--cost", action="store_true", help="search 20,000 candidates and print time and memory")


def fitted(case: Case, options: Namespace) -> Evidence:
    """Return the engine of a case, fitted now or before."""
    path = None
    if options.engines:
        name = f"{case.data}_{case.context}_{case.mode}_{case.seed}_{options.training_seed}.pt"
        path = options.engines / name
        if path.is_file():
            return Evidence.from_state(torch.load(path, weights_only=True))
    engine = Evidence(Settings(seed=options.training_seed, calibrating=0))
    engine.fit(case.responses, case.embeddings, uses=[case.mode])
    if path is not None:
        torch.save(engine.to_state(), path)
    return engine


def ranked(case: Case, engine: Evidence, refine: int) -> dict[str, np.ndarray]:
    """Return the rank of the right candidate for each target, by way to rank."""
    truth = case.truth
    predicted = engine.predict(case.context, case.test, trust=False).mean
    ways = {"random": None, **naive(case), "Pearson with the prediction": predicted}
    found = {}
    for name, effects in ways.items():
        if effects is None:
            scores = np.random.default_rng(0).random((len(truth), len(truth)))
        else:
            scores = np.stack([correlations(effects, np.broadcast_to(one, effects.shape)) for one in truth])
        found[name] = ranks_of(scores)
    full = Candidates(engine, case.context, case.test, len(case.test))
    some = Candidates(engine, case.context, case.test, refine)
    alone = [full.profiles(one)[0].scores_of_effects(predicted) for one in truth]
    found["decorrelated prediction"] = ranks_of(np.stack(alone))
    for name, candidates in ((SEARCH, full), (f"search, {refine} refined", some)):
        found[name] = np.array([place(candidates, one, number) for number, one in enumerate(truth)])
    for count in LISTS:
        lists = np.stack([up_and_down(one, count) for one in truth])
        found[f"{count} up, {count} down: mean prediction"] = ranks_of(lists @ predicted.T)
        found[f"{count} up, {count} down: search"] = np.array(
            [place(full, one, number) for number, one in enumerate(lists)]
        )
    return found


def place(candidates: Candidates, target: np.ndarray, right: int) -> float:
    """Return the rank of the right candidate."""
    profiles, found, exact = candidates.profiles(target)
    score = profiles.scores(found)
    before = (exact & ~exact[right]) | ((exact == exact[right]) & (score > score[right]))
    return 1.0 + float(before.sum())


def ranks_of(scores: np.ndarray) -> np.ndarray:
    """Return the rank of the diagonal in each row [T, N]; ties count half."""
    right = np.diagonal(scores)[:, None]
    ranks: np.ndarray = 1 + (scores > right).sum(1) + ((scores == right).sum(1) - 1) / 2
    return ranks


def up_and_down(effect: np.ndarray, count: int) -> np.ndarray:
    """Return 1 for the genes that rise most, -1 for those that fall most, else 0."""
    order, target = np.argsort(-effect, kind="stable"), np.zeros(len(effect))
    target[order[:count]], target[order[-count:]] = 1, -1
    return target


def fitting(case: Case, engine: Evidence) -> dict[str, float]:
    """Return how often the right candidate fits, and how often anything fits targets that nothing should fit."""
    candidates = Candidates(engine, case.context, case.test, len(case.test))
    rng = np.random.default_rng(0)

    def p_of(target: np.ndarray) -> np.ndarray:
        profiles, found, _ = candidates.profiles(target)
        return chances(found, profiles.target)[0]

    some = np.sort(rng.permutation(len(case.truth))[:NULLS])
    right = [p_of(case.truth[number])[number] for number in some]
    noise = [p_of(rng.normal(size=case.truth.shape[1])).min() for _ in range(NULLS)]
    shuffled = [p_of(rng.permutation(case.truth[number])).min() for number in rng.integers(len(case.truth), size=NULLS)]
    names = ("the right one fits", "noise fits", "shuffled genes fit")
    return {
        name: float(np.mean(np.array(p) <= SIGNIFICANT))
        for name, p in zip(names, (right, noise, shuffled), strict=True)
    }


def row(name: str, ranks: dict[str, np.ndarray]) -> dict[str, float | str]:
    """Return a way's scores, and its paired comparison with the search."""
    one = ranks[name]
    difference = np.log(one) - np.log(ranks[SEARCH])
    p = float(wilcoxon(difference).pvalue) if difference.any() and name != SEARCH else np.nan
    return {
        "ranked_by": name,
        "median_rank": float(np.median(one)),
        "first": float(np.mean(one <= 1)),
        "first_ten": float(np.mean(one <= 10)),
        "reciprocal": float(np.mean(1 / one)),
        "p": p,
    }


def table(case: Case, ranks: dict[str, np.ndarray], seconds: float) -> Table:
    """Return a case's table for the terminal."""
    title = f"{case.data}, {case.context} held out, {case.mode}, seed {case.seed}: {len(case.test)} candidates"
    shown = Table(title=f"{title}, {seconds:.0f} s")
    shown.add_column("ranked by", no_wrap=True)
    for heading in ("median rank ↓", "first ↑", "first ten ↑", "mean 1 / rank ↑", "p"):
        shown.add_column(heading, justify="right")
    for name in ranks:
        one = row(name, ranks)
        numbers = [f"{one['median_rank']:g}", *(f"{one[key]:.3f}" for key in ("first", "first_ten", "reciprocal"))]
        shown.add_row(name, *numbers, "" if np.isnan(one["p"]) else f"{one['p']:.0e}")
    return shown


def cost(seed: int) -> None:
    """Search 20,000 candidates, with 1,500 conditions of 2,000 genes measured, and print time and memory."""
    rng = np.random.default_rng(seed)
    names = [f"P{number}" for number in range(20_000)]
    vectors = rng.normal(size=(len(names), 256)).astype(np.float32)
    labels = [(context, number) for context, count in (("a", 500), ("b", 1000)) for number in range(count)]
    loadings = rng.normal(size=(256, 2000))
    effects = vectors[[p for _, p in labels]] @ loadings + rng.normal(size=(len(labels), 2000))
    responses = Responses(effects, [c for c, _ in labels], [names[p] for _, p in labels])
    # what matters is that all is computed, not how good it is: a fusion that was never trained costs as much
    settings = Settings(steps=2, max_supports=200, episodes=0, calibrating=0)
    engine = Evidence(settings).fit(responses, {"text": (names, vectors)}, uses=["few-shot", "unseen"])
    for learned in engine.trained.values():
        learned.fusion = Fusion().requires_grad_(False)
    target = vectors[15_000] @ loadings
    start, worked = time.perf_counter(), time.process_time()
    found = search(engine, "a", target)
    seconds, worked = time.perf_counter() - start, time.process_time() - worked
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    refined = int(found.refined.sum() - found.measured.sum())
    print(
        f"{len(found.perturbations):,} candidates, {refined} of them refined: {seconds:.1f} s, {worked:.1f} s of work, "
        f"peak {memory:.2f} GiB, {torch.get_num_threads()} threads; the right one is at rank "
        f"{found.perturbations.index('P15000') + 1}"
    )


if __name__ == "__main__":
    main()
