"""Which genes change: average precision of the engine's calls beside naive callers, and the errors of its lists.

    python benchmarks/gene_calls.py --seeds 0 1 2
    python benchmarks/gene_calls.py --seeds 0 1 2 --screen weak

Screens of `state-rag data simulate`: `demo` as it comes, `weak` with more perturbations in more modules, fewer cells
and smaller effects. hepg2 is held out with 30 % of its perturbations for training (`--zero-shot`: none). What changes
is told by Welch's test between a condition's cells and its controls, false discovery rate .05, in training and in test.

A row a method: average precision over genes, mean over test conditions in which something changes, with the p-value of
Wilcoxon's signed-rank test of the engine against it; and over all genes of all test conditions together. Below: the
share of a list that Welch denies, at several false discovery rates; the share whose mean expression the simulation
moves by less than .05 (log1p), or the other way than was said; and the share of changed genes that are called.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import anndata
import numpy as np
from scipy.stats import wilcoxon
from sklearn.metrics import average_precision_score

import state_rag as sr
from state_rag.engine.bank import responses_in
from state_rag.evidence.estimator import Evidence

CONTEXT = "hepg2"
SCREENS: dict[str, dict[str, Any]] = {
    "demo": {},
    "weak": {
        "n_perturbations": 100,
        "n_modules": 40,
        "n_genes": 500,
        "n_hvgs": 250,
        "cells_per_condition": 20,
        "effect_scale": 0.6,
        "misleading_fraction": 0.4,
    },
}
LEVELS = (0.05, 0.1, 0.2, 0.3)
MOVED = 0.05


def main() -> None:
    """Judge every screen and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--screen", choices=SCREENS, default="demo")
    parser.add_argument("--zero-shot", action="store_true", help="no perturbation of the held-out line in training")
    options = parser.parse_args()
    for seed in options.seeds:
        judged(seed, SCREENS[options.screen], options.zero_shot)


def judged(seed: int, sizes: dict[str, Any], zero_shot: bool) -> None:
    """Fit on a screen, and print what its test conditions say."""
    effects, text, test, moved = screen(seed, sizes, zero_shot)
    context, names = (effects.obs[column].astype(str).to_numpy() for column in ("context", "perturbation"))
    tested = (context == CONTEXT) & np.isin(names, test)
    hidden = (context == CONTEXT) & ~np.isin(names, effects.uns["train"])
    responses = responses_in(effects[~hidden])
    truth = responses_in(effects[tested]).changes
    assert responses.changes is not None
    assert truth is not None
    start = time.perf_counter()
    engine = Evidence().fit(responses, text, uses=["zero-shot" if zero_shot else "few-shot"])
    fitted = time.perf_counter() - start
    found = engine.predict(CONTEXT, names[tested].tolist())
    calls = found.calls
    (caller,) = engine.callers.values()
    assert calls is not None
    here = np.array([line == CONTEXT for line in responses.contexts])
    frequency = (np.abs(responses.changes[here if here.any() else ~here]) == 1).mean(0)
    scores = {
        "gene frequency": np.repeat(frequency[None], len(truth), axis=0),
        "size of the effect": np.abs(found.mean),
        "engine": calls.probability,
    }
    changed = np.abs(truth) == 1
    some = changed.any(1)
    precision = {
        name: np.array([average_precision_score(t, v) for t, v in zip(changed[some], values[some], strict=True)])
        for name, values in scores.items()
    }
    print(f"seed {seed}: {len(truth)} test conditions, {some.sum()} with changes, prevalence {changed.mean():.3f}")
    print(f"  fitted in {fitted:.0f} s; looked at: {', '.join(caller.looked_at)}")
    for name, values in precision.items():
        p = 1.0 if np.array_equal(precision["engine"], values) else wilcoxon(precision["engine"], values).pvalue
        pooled = average_precision_score(changed.ravel(), scores[name].ravel())
        print(f"  {name:20s} AP {values.mean():.3f} (p {p:.1e}), all together {pooled:.3f}")
    for level in LEVELS:
        called = calls.called(level)
        if not called.any():
            print(f"  FDR {level}: none called")
            continue
        still = np.abs(moved[called]) < MOVED
        turned = ~still & (calls.direction[called] * moved[called] < 0)
        print(
            f"  FDR {level}: {called.sum()} called, {(~changed[called]).mean():.3f} denied by Welch, "
            f"{still.mean():.3f} not moved, {turned.mean():.3f} turned, recall {called[changed].mean():.3f}"
        )


def screen(seed: int, sizes: dict[str, Any], zero_shot: bool) -> tuple[anndata.AnnData, dict, list[str], np.ndarray]:
    """Return mean effects with deviations, the text, the test perturbations and what the simulation moves of each."""
    with tempfile.TemporaryDirectory() as folder:
        drawn = sr.datasets.simulate_screen(folder, seed=seed, **sizes)
        split = sr.datasets.write_split(drawn.h5ad, CONTEXT, output=Path(folder) / "split.toml")
        effects = sr.effects.from_anndata(anndata.read_h5ad(drawn.h5ad), matrix="obsm/X_hvg")
        told = sr.embeddings.read(drawn.embeddings)
        with np.load(drawn.truth_effects) as truth:
            line = truth["lines"].tolist().index(CONTEXT)
            moved = dict(
                zip(truth["perturbations"].tolist(), truth["effects"][:, line, truth["highly_variable"]], strict=True)
            )
    held_out = {*split.val, *split.test}
    effects.uns["train"] = [] if zero_shot else sorted(set(effects.obs["perturbation"].astype(str)) - held_out)
    own = effects.obs["perturbation"][
        (effects.obs["context"] == CONTEXT) & effects.obs["perturbation"].isin(split.test)
    ]
    return effects, {"text": (told.names, told.vectors)}, list(split.test), np.stack([moved[name] for name in own])


if __name__ == "__main__":
    main()
