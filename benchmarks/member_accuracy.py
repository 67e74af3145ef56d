"""Accuracy for single perturbations that were measured in combinations alone, beside naive predictors.

    python benchmarks/member_accuracy.py --cells cells.h5ad --context k562 --pert-col condition \
        --cell-type-key cell_type --control control --embeddings gene_summaries.json
    python benchmarks/member_accuracy.py --data replogle --seeds 1 2 3

With `--cells`, a file of cells with single perturbations and combinations: each single perturbation of the context that
is part of a combination measured there is left out in turn, and predicted from all other conditions. Without,
the effect matrices of `evidence_accuracy.py`, to which `PAIRS` combinations are added in the held-out line: of one
test perturbation and one training perturbation each, .85 of their sum plus an interaction whose deviation is `OWN` of
that of an effect. Those pairs are made, not measured.

A row a method: mean Pearson correlation over all genes, mean squared error, the engine's gain with a 95 % bootstrap
interval over perturbations, and Wilcoxon's p-value. "combination - others" is the mean over a perturbation's
combinations of their effect minus those of the other members; "without combinations" the engine that never saw them.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anndata
import numpy as np
from combination_accuracy import ENGINE, compared, show
from evidence_accuracy import cases, parse, write

import state_rag as sr
from state_rag.effects.mean_effects import MeanEffects
from state_rag.engine.bank import responses_in
from state_rag.evaluation.baselines.naive import MeanEffect
from state_rag.evidence.combinations.answers import USE
from state_rag.evidence.estimator import Evidence
from state_rag.evidence.responses import Responses
from state_rag.evidence.training import Settings
from state_rag.names.combinations import parts_of, with_members

PAIRS, SHARE, OWN = 60, 0.85, 0.7

Case = tuple[np.ndarray, dict[str, np.ndarray]]
"""Measured effect [G], and method -> predicted effect [G]."""


def main() -> None:
    """Predict all members and print the tables."""
    options = parse(__doc__, further_options)
    rows: list[dict[str, Any]] = []
    if options.cells:
        for seed in options.seeds or [0]:
            rows += compared(list(left_out(options, seed)), seed=seed, which=f"{options.cells.name}, {options.context}")
    else:
        for case in cases(options):
            rows += compared(made(case), seed=case.seed, which=f"{case.data}, {case.context}")
    show("single perturbations that combinations alone tell of", rows)
    if options.output:
        write(options.output, rows)


def further_options(parser: argparse.ArgumentParser) -> None:
    """Add what a file of cells needs."""
    parser.add_argument("--cells", type=Path, help="instead of a protocol")
    parser.add_argument("--context")
    parser.add_argument("--pert-col", default="gene")
    parser.add_argument("--cell-type-key", default="cell_line")
    parser.add_argument("--control", default="non-targeting")
    parser.add_argument("--embeddings", type=Path)


def left_out(options: argparse.Namespace, seed: int) -> Iterator[Case]:
    """Yield, for each member of a combination of the context that was measured alone, truth and predictions."""
    effects = sr.effects.from_anndata(
        anndata.read_h5ad(options.cells),
        perturbation=options.pert_col,
        context=options.cell_type_key,
        control=options.control,
    )
    responses, embeddings = responses_in(effects), {}
    if options.embeddings:
        table = sr.embeddings.read(options.embeddings, names=with_members(responses.perturbation_names))
        embeddings = {"text": (table.names, table.vectors)}
    here = {
        name: responses.effects[row].astype(float)
        for row, (context, name) in enumerate(responses.conditions)
        if context == options.context
    }
    members = {one for name in here for one in parts_of(name) if len(parts_of(name)) > 1}
    for row, (context, name) in enumerate(responses.conditions):
        if context == options.context and name in members:
            known = responses.take([one for one in range(len(responses)) if one != row])
            others = {key: value for key, value in here.items() if key != name}
            yield here[name], predictions(known, embeddings, context, [name], others, seed)[0]


def made(case: Any) -> list[Case]:
    """Return truth and predictions of test perturbations of a protocol's case, in made combinations."""
    rng = np.random.default_rng(case.seed)
    known = case.responses
    here = {
        name: known.effects[row].astype(float) for row, (c, name) in enumerate(known.conditions) if c == case.context
    }
    chosen = rng.permutation(len(case.test))[:PAIRS]
    partners = [list(here)[number] for number in rng.integers(len(here), size=len(chosen))]
    deviation = OWN * np.sqrt(np.mean(np.square(list(here.values()))))
    pairs = {}
    for place, partner in zip(chosen, partners, strict=True):
        own = here[partners[rng.integers(len(partners))]]  # an interaction looks like another effect
        interaction = rng.choice([-1, 1]) * deviation * own / own.std()
        pairs[f"{case.test[place]}+{partner}"] = SHARE * (case.truth[place] + here[partner]) + interaction
    told = Responses(
        np.concatenate([known.effects, list(pairs.values())]),
        [*known.contexts, *[case.context] * len(pairs)],
        [*known.perturbations, *pairs],
        known.genes,
        cells=None if known.cells is None else [*known.cells, *[np.median(known.cells)] * len(pairs)],
    )
    names = [case.test[place] for place in chosen]
    found = predictions(told, case.embeddings, case.context, names, {**here, **pairs}, case.seed, ["few-shot"])
    return [(case.truth[place], one) for place, one in zip(chosen, found, strict=True)]


def predictions(
    known: Responses,
    embeddings: Any,
    context: str,
    names: list[str],
    here: dict[str, np.ndarray],
    seed: int,
    uses: list[str] | None = None,
) -> list[dict[str, np.ndarray]]:
    """Return, for each name, method -> predicted effect [G]; `here` are the effects measured in the context."""
    alone = known.take([row for row, name in enumerate(known.perturbations) if len(parts_of(name)) < 2])
    engine, plain = (Evidence(Settings(seed=seed, calibrating=0)).fit(one, embeddings, uses) for one in (known, alone))
    found, without = (one.predict(context, names, trust=False) for one in (engine, plain))
    assert set(found.uses) == {USE}
    mean = MeanEffect(MeanEffects({context: {name: here[name] for name in here if len(parts_of(name)) < 2}}))
    told = []
    for place, name in enumerate(names):
        own = [other for other in here if name in parts_of(other) and other != name]
        rest = [sum(here.get(one, 0.0) for one in parts_of(other) if one != name) for other in own]
        told.append(
            {
                "mean effect": mean.effect(name, context),
                "mean of its combinations": np.mean([here[other] for other in own], axis=0),
                "combination - others": np.mean([here[o] - r for o, r in zip(own, rest, strict=True)], axis=0),
                "without combinations": without.mean[place],
                ENGINE: found.mean[place],
            }
        )
    return told


if __name__ == "__main__":
    main()
