"""Which genes change: average precision of the engine's probabilities beside naive callers, and false discoveries.

    python benchmarks/gene_calls.py --seeds 0 1 2
    python benchmarks/gene_calls.py --seeds 1 --perturbations 300 --hvgs 1000

Screens of `state-rag data simulate` (sizes of the demo unless others are given), hepg2 held out with 30 % of its
perturbations for training. Truth of a test condition: Welch's test between its cells and its controls at a false
discovery rate of .05, the same that the training conditions are labelled by. A row a method: mean over test conditions
of the average precision over genes, and the p-value of Wilcoxon's signed-rank test of the engine against it on them.
Below: observed share of false calls over all test conditions, at several levels.
"""

import argparse
import itertools
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import anndata
import numpy as np
from scipy.stats import wilcoxon
from sklearn.metrics import average_precision_score

import state_rag as sr
from state_rag.evidence.answering import answer_scene
from state_rag.evidence.estimator import Evidence
from state_rag.evidence.gene_calls import GeneCalling, welch_changes
from state_rag.evidence.kriging import apply
from state_rag.evidence.questions import ask
from state_rag.evidence.responses import Responses
from state_rag.evidence.training import Settings

CONTEXT = "hepg2"
SHORT = Settings(steps=50, episodes=16, judging=4, fusion_steps=160, calibrating=200)
LEVELS = (0.05, 0.1, 0.2, 0.3)


def main() -> None:
    """Judge every screen and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--perturbations", type=int)
    parser.add_argument("--hvgs", type=int)
    parser.add_argument("--short", action="store_true", help="an engine that is trained for a fifth of the steps")
    options = parser.parse_args()
    sizes = {
        name: value for name, value in vars(options).items() if name in ("perturbations", "hvgs") and value is not None
    }
    for seed in options.seeds:
        judged(seed, sizes, SHORT if options.short else Settings())


def judged(seed: int, sizes: dict[str, Any], settings: Settings) -> None:
    """Fit on a screen, and print what its test conditions say."""
    effects, told, test = screen(seed, sizes)
    changes = signs(effects)
    context, names = (effects.obs[column].astype(str).to_numpy() for column in ("context", "perturbation"))
    tested = (context == CONTEXT) & np.isin(names, test)
    hidden = (context == CONTEXT) & ~np.isin(names, effects.uns["train"])
    kept = ~hidden
    means = effects.varm["control_mean"]
    responses = Responses(
        np.asarray(effects.X)[kept],
        context[kept].tolist(),
        names[kept].tolist(),
        effects.var_names.tolist(),
        cells=effects.obs["n_cells"].to_numpy()[kept],
        controls={line: means[line].to_numpy() for line in means},
    )
    start = time.perf_counter()
    engine = Evidence(settings).fit(responses, told, uses=["few-shot"])
    fitted = time.perf_counter() - start
    start = time.perf_counter()
    calling = GeneCalling.fit(engine, changes[kept])
    seconds = time.perf_counter() - start
    asked, truth = names[tested].tolist(), changes[tested]
    found = calling.calls(CONTEXT, asked)
    frequency = (changes[kept & (context == CONTEXT)] != 0).mean(0)
    scores = {
        "gene frequency": np.repeat(frequency[None], len(asked), axis=0),
        "size of co-kriging": np.abs(kriged(engine, asked)),
        "size of the fused mean": np.abs(engine.predict(CONTEXT, asked, trust=False).mean),
        "engine": found.probability,
    }
    some = (truth != 0).any(1)
    precision = {
        name: np.array([average_precision_score(t != 0, v) for t, v in zip(truth[some], values[some], strict=True)])
        for name, values in scores.items()
    }
    print(f"seed {seed}: {len(asked)} test conditions, {some.sum()} with changes, prevalence {(truth != 0).mean():.3f}")
    print(f"  engine fitted in {fitted:.0f} s, calls in {seconds:.0f} s")
    for name, values in precision.items():
        p = 1.0 if name == "engine" else wilcoxon(precision["engine"], values).pvalue
        pooled = average_precision_score(truth.ravel() != 0, scores[name].ravel())
        print(f"  {name:24s} AP {values.mean():.3f}  pooled {pooled:.3f}  p {p:.1e}")
    for level in LEVELS:
        called = calling.calls(CONTEXT, asked, level).called
        if not called.any():
            print(f"  FDR {level}: none called")
            continue
        wrong, recall = (truth[called] == 0).mean(), called[truth != 0].mean()
        turned = (found.direction[called] * truth[called] < 0).mean()
        print(f"  FDR {level}: {called.sum()} called, {wrong:.3f} false, {turned:.3f} turned, recall {recall:.3f}")
    for low, high in itertools.pairwise([0, 0.02, 0.05, 0.1, 0.3, 0.6, 0.9, 1.01]):
        within = (found.probability >= low) & (found.probability < high)
        if within.any():
            expected, observed = found.probability[within].mean(), (truth[within] != 0).mean()
            print(f"  from {low:.2f}: {within.sum()} genes, expected {expected:.3f}, observed {observed:.3f}")


def screen(seed: int, sizes: dict[str, Any]) -> tuple[anndata.AnnData, dict[str, Any], list[str]]:
    """Return mean effects with deviations, the text and the test perturbations."""
    with tempfile.TemporaryDirectory() as folder:
        drawn = sr.datasets.simulate_screen(folder, seed=seed, **sizes)
        split = sr.datasets.write_split(drawn.h5ad, CONTEXT, output=Path(folder) / "split.toml")
        effects = sr.effects.from_anndata(anndata.read_h5ad(drawn.h5ad), matrix="obsm/X_hvg")
        told = sr.embeddings.read(drawn.embeddings)
    effects.uns["train"] = sorted(set(effects.obs["perturbation"].astype(str)) - {*split.val, *split.test})
    return effects, {"text": (told.names, told.vectors)}, list(split.test)


def signs(effects: anndata.AnnData) -> np.ndarray:
    """Return the changes that Welch's test finds in each condition."""
    lines = effects.obs["context"].astype(str).tolist()
    deviation = effects.varm["control_std"]
    count = json.loads(effects.uns["state_rag"]["control_n_cells"])
    return welch_changes(
        effects.X,
        np.square(effects.layers["std"].astype(float)),
        effects.obs["n_cells"].to_numpy(),
        np.stack([np.square(deviation[line].to_numpy().astype(float)) for line in lines]),
        [count[line] for line in lines],
    )


def kriged(engine: Evidence, asked: list[str]) -> np.ndarray:
    """Return the means of co-kriging alone, [T, G]."""
    bank, found = engine.bank, np.zeros((len(asked), engine.bank.effects.shape[1]))
    for question in ask(bank, engine.similarity, bank.number_of_context(CONTEXT), asked):
        learned = engine.trained.get(question.use)
        if learned is None or not question.known:
            continue
        answered = answer_scene(bank, engine.similarity, question.scene, learned, 10_000)
        values = apply(answered.answer, bank, answered.scene, learned.weights, bank.effects[answered.scene.supports])
        found[list(question.places)] = values.numpy()
    return found


if __name__ == "__main__":
    main()
