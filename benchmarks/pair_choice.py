"""Search, design and hits among all pairs: is the one behind a response found, and what does it cost.

    python benchmarks/pair_choice.py cells.h5ad --context k562 --pert-col condition --cell-type-key cell_type \
        --control control --embeddings gene_summaries.json
    python benchmarks/pair_choice.py --cost

Of a file of cells with single perturbations and combinations the combinations are left out. Each is then a target, the
mean of its cells minus that of the controls, and the candidates are all pairs of the single perturbations measured in
the context and its members. A row a way to rank: median rank of the right pair, share that is first and among the first
ten, mean reciprocal rank. The naive row ranks by the Pearson correlation with the sum of the members' measured effects,
for targets whose members were all measured.

`--cost` chooses among the 49,770 pairs of 316 perturbations of a drawn screen of 3 lines and 2,000 genes, half of them
not measured in the line asked about, and prints processor time and memory.
"""

import argparse
import resource
import time
from itertools import combinations
from pathlib import Path

import anndata
import numpy as np
from rich.console import Console
from rich.table import Table

import state_rag as sr
from state_rag.engine.bank import responses_in
from state_rag.evidence.choices.design import design
from state_rag.evidence.choices.hits import hits
from state_rag.evidence.choices.search import search
from state_rag.evidence.estimator import Evidence
from state_rag.evidence.responses import Responses
from state_rag.evidence.training import Settings
from state_rag.names.combinations import SEPARATOR, parts_of, with_members

MEMBERS, PAIRS = "targets whose members were measured", "all targets"


def main() -> None:
    """Judge the search, or measure the cost."""
    options = parse()
    if options.cost:
        cost()
    else:
        show(ranks(options))


def parse() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cells", type=Path, nargs="?")
    parser.add_argument("--context")
    parser.add_argument("--pert-col", default="gene")
    parser.add_argument("--cell-type-key", default="cell_line")
    parser.add_argument("--control", default="non-targeting")
    parser.add_argument("--embeddings", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cost", action="store_true", help="measure time and memory instead")
    options = parser.parse_args()
    if not options.cost and not (options.cells and options.context):
        parser.error("give cells and --context, or --cost")
    return options


def ranks(options: argparse.Namespace) -> dict[tuple[str, str], list[int]]:
    """Return (targets, way to rank) -> rank of the right pair of each target."""
    effects = sr.effects.from_anndata(
        anndata.read_h5ad(options.cells),
        perturbation=options.pert_col,
        context=options.cell_type_key,
        control=options.control,
    )
    responses = responses_in(effects)
    embeddings = {}
    if options.embeddings:
        table = sr.embeddings.read(options.embeddings, names=with_members(responses.perturbation_names))
        embeddings = {"text": (table.names, table.vectors)}
    single = [row for row, name in enumerate(responses.perturbations) if len(parts_of(name)) == 1]
    several = [row for row, (line, _) in enumerate(responses.conditions) if line == options.context]
    several = [row for row in several if len(parts_of(responses.perturbations[row])) == 2]
    engine = Evidence(Settings(seed=options.seed, calibrating=0)).fit(responses.take(single), embeddings)
    here = {
        name: responses.effects[row].astype(float)
        for row, (line, name) in enumerate(responses.conditions)
        if line == options.context and row in set(single)
    }
    members = {one for row in several for one in parts_of(responses.perturbations[row])}
    pairs = [SEPARATOR.join(pair) for pair in combinations(sorted({*here, *members}), 2)]
    sums = {pair: sum(here[one] for one in parts_of(pair)) for pair in pairs if set(parts_of(pair)) <= set(here)}
    found: dict[tuple[str, str], list[int]] = {}
    for row in several:
        right, target = SEPARATOR.join(parts_of(responses.perturbations[row])), responses.effects[row].astype(float)
        ranked = search(engine, options.context, target, candidates=pairs, top=1)
        found.setdefault((PAIRS, "search"), []).append(1 + ranked.perturbations.index(right))
        if right not in sums:
            continue
        among = [name for name in ranked.perturbations if name in sums]
        found.setdefault((MEMBERS, "search"), []).append(1 + among.index(right))
        score = {name: np.corrcoef(total, target)[0, 1] for name, total in sums.items()}
        found.setdefault((MEMBERS, "sum of members, Pearson"), []).append(
            1 + sum(one > score[right] for one in score.values())
        )
    Console().print(f"{len(pairs)} pairs, {len(sums)} of members that were all measured; {len(several)} targets")
    return found


def show(found: dict[tuple[str, str], list[int]]) -> None:
    """Print a row a way to rank."""
    shown = Table()
    for column in ("targets", "n", "ranked by", "median rank", "first", "first ten", "mean reciprocal rank"):
        shown.add_column(column)
    for (targets, way), values in found.items():
        rank = np.array(values)
        shares = f"{(rank == 1).mean():.2f}", f"{(rank <= 10).mean():.2f}", f"{(1 / rank).mean():.2f}"
        shown.add_row(targets, str(len(rank)), way, f"{np.median(rank):g}", *shares)
    Console(width=140).print(shown)


def cost() -> None:
    """Print processor time and memory of a choice among many pairs."""
    rng, count, genes = np.random.default_rng(0), 316, 2000
    module = np.arange(count) % 40
    profile, vectors = rng.normal(size=(40, genes)), np.eye(40)[module] + 0.1 * rng.normal(size=(count, 40))
    names = [f"P{number:03d}" for number in range(count)]
    rows = [(c, p) for c in range(3) for p in range(count) if c or p < count // 2]
    effects = np.stack([profile[module[p]] + 0.5 * rng.normal(size=genes) for _, p in rows])
    responses = Responses(effects, [f"line{c}" for c, _ in rows], [names[p] for _, p in rows])
    quick = Settings(steps=3, episodes=6, judging=2, fusion_steps=4, calibrating=0)
    engine = Evidence(quick).fit(responses, {"text": (names, vectors)})
    pairs = [SEPARATOR.join(pair) for pair in combinations(names, 2)]
    ways = {
        "search": lambda: search(engine, "line0", profile[3] + profile[7], candidates=pairs),
        "design of 20": lambda: design(engine, ["line0"], 20, candidates=pairs),
        "hits": lambda: hits(engine, ["line0"], 20, candidates=pairs),
    }
    for name, choose in ways.items():
        start = time.process_time()
        choose()
        used, memory = time.process_time() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        Console().print(f"{name}: {used:.1f} s of processor time among {len(pairs):,} pairs, at most {memory:.2f} GiB")


if __name__ == "__main__":
    main()
