"""Combinations that are a known share of the sum of their members."""

import numpy as np

from state_rag.evidence.responses import Responses
from tests.evidence.pretend_screen import screen

PAIRS = ["P0+P1", "P0+P4", "P3+P1", "P2+P5", "P5+P8"]


def made(share=0.8, noise=0.0, pairs=PAIRS, context="line0", seed=3):
    """Return a screen's responses with combinations that are a share of their members' sum."""
    drawn = screen()
    rng = np.random.default_rng(seed)
    where = {name: number for number, name in enumerate(drawn.perturbations)}
    row = drawn.effects[drawn.contexts.index(context)]
    effects = [share * sum(row[where[m]] for m in pair.split("+")) + noise * rng.normal(size=15) for pair in pairs]
    single = drawn.responses()
    return drawn, Responses(
        np.concatenate([single.effects, effects]),
        [*single.contexts, *[context] * len(pairs)],
        [*single.perturbations, *pairs],
    )
