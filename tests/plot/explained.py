"""An explanation of made-up numbers."""

import numpy as np

from state_rag.evidence.explanation import SAME, Explanation


def explanation(conditions=6, genes=30):
    """Return one of so many conditions and genes; every third condition is of the perturbation asked about."""
    rng = np.random.default_rng(0)
    contexts = ["k562", "rpe1", "hepg2"]
    weights, deviations = np.sort(rng.random(conditions))[::-1].copy(), rng.normal(size=(conditions, genes)) * 0.3
    names = [(contexts[place % 3], "WARS" if place % 3 == 0 else f"P{place}") for place in range(conditions)]
    return Explanation(
        "hepg2",
        "WARS",
        tuple(f"G{gene}" for gene in range(genes)),
        rng.normal(size=genes) * 0.1,
        tuple(names),
        weights,
        weights[:, None] * deviations,
        deviations + rng.normal(size=genes) * 0.1,
        tuple(SAME if name == "WARS" else "text" for _, name in names),
        {"text": np.full(conditions, 0.5), SAME: np.full(conditions, 0.5)},
        np.full(conditions, 40.0),
        rng.normal(size=genes) * 0.02,
        {name: rng.normal(size=genes) * 0.1 for name in contexts},
    )
