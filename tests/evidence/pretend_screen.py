"""A screen in memory: modules of perturbations that act alike, contexts that differ, embeddings that tell modules."""

from dataclasses import dataclass

import numpy as np

from state_rag.evidence.responses import Responses
from state_rag.evidence.training import Settings

QUICK = Settings(steps=3, episodes=6, judging=2, fusion_steps=4)
"""Long enough to run every step."""


@dataclass
class Screen:
    effects: np.ndarray  # [contexts, perturbations, genes]
    contexts: list
    perturbations: list
    embeddings: dict

    def responses(self, hidden=(), **more):
        """Return the conditions that are not hidden; `hidden` are pairs of numbers (context, perturbation)."""
        rows = [
            (c, p)
            for c in range(len(self.contexts))
            for p in range(len(self.perturbations))
            if (c, p) not in set(hidden)
        ]
        effects = np.stack([self.effects[row] for row in rows])
        names = [self.contexts[c] for c, _ in rows], [self.perturbations[p] for _, p in rows]
        cells = more.pop("cells", None)
        return Responses(effects, *names, cells=None if cells is None else [cells[row] for row in rows], **more)


def screen(seed=0, contexts=3, perturbations=12, genes=15, modules=3):
    """Draw a screen."""
    rng = np.random.default_rng(seed)
    module = np.arange(perturbations) % modules
    shared = rng.normal(size=(modules, genes))
    own = rng.normal(size=(contexts, modules, genes))
    effects = shared[module][None] + 0.5 * own[:, module] + 0.2 * rng.normal(size=(contexts, perturbations, genes))
    names = [f"P{number}" for number in range(perturbations)]
    vectors = np.eye(modules)[module] + 0.1 * rng.normal(size=(perturbations, modules))
    return Screen(effects, [f"line{c}" for c in range(contexts)], names, {"text": (names, vectors)})
