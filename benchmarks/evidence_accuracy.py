"""Accuracy of the evidence engine on real and simulated screens, beside the naive predictors.

    python benchmarks/evidence_accuracy.py --data replogle --mode few-shot unseen
    python benchmarks/evidence_accuracy.py --data replogle --mode unseen --source go=go.gmt.gz reactome=reactome.gmt.gz
    python benchmarks/evidence_accuracy.py --data tahoe --held-out SNU-1 --mode few-shot zero-shot
    python benchmarks/evidence_accuracy.py --data simulate --seeds 0 1 2 -o results.csv

Splits, scores and the matrices of real effects are those of the protocol: a program that `--protocol` names, with the
data in the folder `data` beside it. They are not part of this repository. `simulate` needs neither: it draws the
screens of `state-rag data simulate`, holds hepg2 out with 30 % of its perturbations for training, and takes the
effects from the cells.

A row a method: mean over test perturbations of the Pearson correlation of predicted and real effect over all genes,
and over the 50 genes that changed most; mean squared error; the difference in correlation to the engine with a 95 %
bootstrap interval over test perturbations, and the p-value of Wilcoxon's signed-rank test on them. `--seeds` are those
of the split (of the simulation too); 7 is the protocol's own. Choose nothing by these numbers: take other seeds.

With `--source` (or `--random-source`, a table of noise) the same engine with text alone has a row of its own, and the
weight that each source got is printed above the table.
"""

import argparse
import csv
import importlib.util
import logging
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from scipy.stats import wilcoxon

from state_rag.embeddings.sources import named_sources, read_source
from state_rag.engine.knowledge import weights_words
from state_rag.evidence.bank import Bank
from state_rag.evidence.estimator import Evidence
from state_rag.evidence.responses import Responses
from state_rag.evidence.similarity import Similarity, Source
from state_rag.evidence.training import KRIGING, Settings, Trained
from state_rag.files import atomic_path

FILES = {"replogle": "replogle_k562_rpe1.npz", "tahoe": "tahoe_5lines.npz"}
HELD_OUT = {"replogle": ["K562", "RPE1"], "tahoe": ["SNU-1"], "simulate": ["hepg2"]}
MODES = ["few-shot", "zero-shot", "unseen", "both"]
ENGINE = "engine"
TOP = 50
RIDGES = (1.0, 3.0)
COLUMNS = ["data", "held_out", "mode", "seed", "method", "pearson", "pearson_top50", "mse"]
PAIRED = ["engine_gain", "engine_gain_low", "engine_gain_high", "wilcoxon_p"]


@dataclass(frozen=True)
class Case:
    """One question to all methods: what was measured, and the effects [T, G] of the test perturbations."""

    data: str
    context: str
    mode: str
    seed: int
    responses: Responses
    embeddings: dict[str, tuple[Sequence[str], Any]]
    test: list[str]
    truth: np.ndarray


def main() -> None:
    """Predict every case by every method and print the table."""
    options = parse()
    logging.basicConfig(level=logging.WARNING)
    console, rows = Console(), []
    for case in cases(options):
        start = time.perf_counter()
        found = methods(case, options)
        seconds = time.perf_counter() - start
        scored = [{**about(case), "method": name, **scores(case, found, name)} for name in found]
        console.print(table(case, scored, seconds))
        rows += scored
        if options.output:
            write(options.output, rows)


def parse(about_it: str = __doc__, more: Callable[[argparse.ArgumentParser], None] | None = None) -> argparse.Namespace:
    """Return the options of the command line; `about_it` is the program's docstring, `more` adds options of its own."""
    parser = argparse.ArgumentParser(
        description=about_it.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--data", nargs="+", default=["replogle", "tahoe", "simulate"], choices=HELD_OUT)
    parser.add_argument("--mode", nargs="+", default=["few-shot"], choices=MODES)
    parser.add_argument("--held-out", nargs="+", help="contexts; default: K562 and RPE1, SNU-1, hepg2")
    parser.add_argument("--seeds", nargs="+", type=int, help="default: 7; for simulate 0 1 2")
    parser.add_argument("--training-seed", type=int, default=0, help="of the engine")
    parser.add_argument("--protocol", type=Path, default=Path("../shared/evidence_protocol.py"))
    parser.add_argument(
        "--source", nargs="+", default=[], metavar="NAME=FILE", help="further sources, as of evidence fit"
    )
    parser.add_argument("--random-source", action="store_true", help="add a source of noise, 256 wide")
    parser.add_argument("-o", "--output", type=Path, help="CSV file for the table")
    if more is not None:
        more(parser)
    return parser.parse_args()


def cases(options: argparse.Namespace) -> Iterator[Case]:
    """Yield the cases that the options ask for."""
    for data in options.data:
        for context in options.held_out or HELD_OUT[data]:
            for mode in options.mode:
                for seed in options.seeds or ([0, 1, 2] if data == "simulate" else [7]):
                    if data == "simulate":
                        case = simulated(context, mode, seed)
                    else:
                        case = real(protocol(options.protocol), options, data, context, mode, seed)
                    yield with_sources(case, options)


def protocol(path: Path) -> ModuleType:
    """Return the protocol as a module."""
    if not path.is_file():
        sys.exit(f"{path}: there is no protocol; name its file with --protocol, or take --data simulate.")
    spec = importlib.util.spec_from_file_location("evidence_protocol", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def real(rules: ModuleType, options: argparse.Namespace, data: str, context: str, mode: str, seed: int) -> Case:
    """Return a case of real effects; genes' summaries are the text of a CRISPR screen."""
    folder = options.protocol.parent / "data"
    split = rules.Case.read(folder / FILES[data], context, mode, seed=seed)
    embeddings = {}
    if data == "replogle":
        embeddings["text"] = split.perturbations, rules.texts(folder / "gene_summaries.json", split.perturbations)
    responses = Responses.from_grid(split.effects, split.contexts, split.perturbations)
    test = [split.perturbations[number] for number in split.test]
    return Case(data, context, mode, seed, responses, embeddings, test, split._truth.astype(float))


def with_sources(case: Case, options: argparse.Namespace) -> Case:
    """Return the case with the sources that the options add."""
    names = list(dict.fromkeys([*case.responses.perturbations, *case.test]))
    added: dict[str, tuple[Sequence[str], Any]] = {}
    for name, path in named_sources(options.source).items():
        known = read_source(path, names).table
        added[name] = known.names, known.vectors
    if options.random_source:
        added["noise"] = names, np.random.default_rng(case.seed).normal(size=(len(names), 256))
    return replace(case, embeddings={**case.embeddings, **added})


def simulated(context: str, mode: str, seed: int) -> Case:
    """Return a case of the demo screen: effects of its cells, split as `state-rag data split` splits it."""
    import anndata

    import state_rag as sr

    with tempfile.TemporaryDirectory() as folder:
        screen = sr.datasets.simulate_screen(folder, seed=seed)
        split = sr.datasets.write_split(screen.h5ad, context, output=Path(folder) / "split.toml")
        effects = sr.effects.from_anndata(anndata.read_h5ad(screen.h5ad), matrix="obsm/X_hvg")
        told = sr.embeddings.read(screen.embeddings)
    contexts, perturbations = (effects.obs[column].astype(str).to_numpy() for column in ("context", "perturbation"))
    here, tested = contexts == context, np.isin(perturbations, split.test)
    hidden = here if mode in ("zero-shot", "both") else here & np.isin(perturbations, [*split.val, *split.test])
    if mode in ("unseen", "both"):
        hidden = hidden | tested
    values = np.asarray(effects.X, dtype=float)
    responses = Responses(
        values[~hidden],
        contexts[~hidden],
        perturbations[~hidden],
        list(effects.var_names),
        cells=effects.obs["n_cells"].to_numpy()[~hidden],
        controls={name: effects.varm["control_mean"][name].to_numpy() for name in effects.varm["control_mean"]},
    )
    row = {name: number for number, name in enumerate(perturbations) if here[number]}
    truth = values[[row[name] for name in split.test]]
    return Case(
        "simulate", context, mode, seed, responses, {"text": (told.names, told.vectors)}, list(split.test), truth
    )


def methods(case: Case, options: argparse.Namespace) -> dict[str, np.ndarray]:
    """Return the predictions [T, G] of all methods, the engine last."""
    found = naive(case)
    settings = Settings(seed=options.training_seed, calibrating=0)
    if len(case.embeddings) > 1 and "text" in case.embeddings:
        alone = Evidence(settings).fit(case.responses, {"text": case.embeddings["text"]}, uses=[case.mode])
        found["engine, text alone"] = alone.predict(case.context, case.test, trust=False).mean
    engine = Evidence(settings)
    engine.fit(case.responses, case.embeddings, uses=[case.mode])
    if len(case.embeddings) > 1:
        print(f"weights: {weights_words(engine, case.mode)}")
    predicted = engine.predict(case.context, case.test, trust=False).mean
    trained = engine.trained.get(case.mode)
    if trained is not None:
        if trained.own_gene is not None:
            engine.trained = {case.mode: replace(trained, own_gene=None)}
            found["engine without own genes"] = engine.predict(case.context, case.test, trust=False).mean
        # the same weights without the correction gene by gene
        engine.trained = {case.mode: Trained(trained.weights, estimate=KRIGING)}
        found["co-kriging"] = engine.predict(case.context, case.test, trust=False).mean
    return {**found, ENGINE: predicted}


def naive(case: Case) -> dict[str, np.ndarray]:
    """Return what takes no learning: means, the same perturbation elsewhere, and regression within the context."""
    bank = Bank(case.responses, [name for names, _ in case.embeddings.values() for name in names])
    context = bank.number_of_context(case.context)
    values = bank.effects.numpy() * bank.scale
    here, elsewhere = bank.rows_of(context), bank.elsewhere(context)
    asked = torch.tensor([bank.number_of(name) for name in case.test])
    found = {}
    if (asked >= 0).all() and torch.isin(asked, bank.perturbation[elsewhere]).all():
        same = [elsewhere[bank.perturbation[elsewhere] == number] for number in asked]
        found["same perturbation elsewhere"] = np.stack([values[rows.numpy()].mean(0) for rows in same])
    others = [values[bank.rows_of(c).numpy()].mean(0) for c in range(len(bank.contexts)) if c != context]
    found["mean effect elsewhere"] = np.tile(np.mean(others, axis=0), (len(asked), 1))
    if not len(here):
        return found
    found["mean effect of the context"] = np.tile(values[here.numpy()].mean(0), (len(asked), 1))
    found |= with_own_genes(bank, here, case.test, found["mean effect of the context"])
    sources = [Source.of(name, *told, bank.perturbations) for name, told in case.embeddings.items()]
    similarity = Similarity(bank, sources)
    known = bank.perturbation[here]
    among, cross = (
        dict(zip(similarity.names, similarity.cosines(known, columns, context), strict=True))
        for columns in (known, asked)
    )
    chosen = {"text": ["text"], "responses": ["responses"], "text + responses": ["text", "responses"]}
    for label, names in chosen.items():
        if set(names) <= set(similarity.names) and not (case.mode == "unseen" and "responses" in names):
            for strength in RIDGES:
                kernel = sum(among[name].double().numpy() for name in names) + strength * np.eye(len(here))
                weight = np.linalg.solve(kernel, sum(cross[name].double().numpy() for name in names))
                mean = values[here.numpy()].mean(0)
                found[f"ridge, {label}, lambda {strength:g}"] = mean + weight.T @ (values[here.numpy()] - mean)
    return found


def with_own_genes(bank: Bank, here: torch.Tensor, test: Sequence[str], mean: np.ndarray) -> dict[str, np.ndarray]:
    """Return the mean effect with what the context's perturbations do to their own genes, where these are measured."""
    own = bank.own_gene[bank.perturbation[here]]
    there = own >= 0
    if not there.any():
        return {}
    found, effect = mean.copy(), float(bank.effects[here[there], own[there]].mean()) * bank.scale
    for row, name in enumerate(test):
        if (gene := bank.gene_of(name)) >= 0:
            found[row, gene] = effect
    return {"mean effect, own gene apart": found}


def scores(case: Case, found: dict[str, np.ndarray], name: str) -> dict[str, float]:
    """Return a method's scores, and the paired comparison of the engine with it."""
    top = np.argsort(-np.abs(case.truth), axis=1)[:, :TOP]
    per_row = correlations(found[name], case.truth)
    result = {
        "pearson": float(per_row.mean()),
        "pearson_top50": float(
            correlations(*(np.take_along_axis(side, top, axis=1) for side in (found[name], case.truth))).mean()
        ),
        "mse": float(np.square(found[name] - case.truth).mean()),
    }
    if name == ENGINE:
        return result
    gain = correlations(found[ENGINE], case.truth) - per_row
    drawn = np.random.default_rng(0).integers(len(gain), size=(2000, len(gain)))
    low, high = np.percentile(gain[drawn].mean(1), [2.5, 97.5])
    p = float(wilcoxon(gain).pvalue) if gain.any() else 1.0
    return {**result, **dict(zip(PAIRED, (float(gain.mean()), float(low), float(high), p), strict=True))}


def correlations(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the Pearson correlation of each row; 0 for a constant one."""
    a, b = (side - side.mean(1, keepdims=True) for side in (predicted, truth))
    return (a * b).sum(1) / (np.sqrt((a * a).sum(1) * (b * b).sum(1)) + 1e-12)


def about(case: Case) -> dict[str, Any]:
    """Return the columns that tell a case."""
    return {"data": case.data, "held_out": case.context, "mode": case.mode, "seed": case.seed}


def table(case: Case, rows: list[dict[str, Any]], seconds: float) -> Table:
    """Return a case's table for the terminal."""
    title = f"{case.data}, {case.context} held out, {case.mode}, seed {case.seed}: {len(case.test)} test perturbations"
    shown = Table(title=f"{title}, {seconds:.0f} s")
    shown.add_column("method", no_wrap=True)
    for heading in ("Pearson ↑", "top 50 ↑", "MSE ↓", "gain (95 %)", "p"):
        shown.add_column(heading, justify="right")
    for row in rows:
        numbers = [f"{row[name]:.4f}" for name in COLUMNS[5:]]
        paired = ["", ""]
        if "wilcoxon_p" in row:
            low, high = row["engine_gain_low"], row["engine_gain_high"]
            paired = [f"{row['engine_gain']:+.3f} ({low:+.3f} {high:+.3f})", f"{row['wilcoxon_p']:.0e}"]
        shown.add_row(row["method"], *numbers, *paired)
    return shown


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write all rows so far as CSV, with every column that one of them has."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with atomic_path(path) as temporary, open(temporary, "w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
