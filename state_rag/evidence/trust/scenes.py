"""Questions that calibrate trust: measured conditions predicted without themselves, with all else at hand.

Training hides 15 to 75 % of a context, so that accuracy in its episodes is not that of a prediction, which has all
supports. Here a tenth is hidden at a time.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from state_rag.evidence.bank import Bank
from state_rag.evidence.episodes import Episodes, known_elsewhere, same_name
from state_rag.evidence.kriging import Scene

FOLDS = 10
"""Parts that a context's conditions are divided into; one is hidden at a time."""

SCENES = 40
"""Scenes at most: more contexts than four are each asked about fewer of their parts."""


def calibration_scenes(
    bank: Bank, use: str, limit: int, seed: int, known: Tensor | None = None
) -> Iterator[tuple[Scene, Tensor]]:
    """Yield scenes of a use, and the rows of their answers.

    Parameters
    ----------
    bank
        Measured responses.
    use
        One of `USES`.
    limit
        Conditions asked about in all, at most.
    seed
        Of the parts.
    known
        Bool [P]: perturbations that something else than a response is known of; by default all. The others are not
        asked about as if they had been measured nowhere: nothing would be known of them.
    """
    contexts = Episodes(bank, use).contexts
    rng = np.random.default_rng(seed)
    if len(contexts) > SCENES:
        contexts = sorted(rng.permutation(contexts)[:SCENES].tolist())
    part_of = torch.from_numpy(rng.permutation(len(bank.perturbations)))
    for context in contexts:
        rows = bank.rows_of(context)
        if use in ("few-shot", "zero-shot"):
            rows = rows[known_elsewhere(bank, rows, context, use)]
        elif known is not None:
            rows = rows[known[bank.perturbation[rows]]]
        if not len(rows):
            continue
        # all doses of a drug are hidden together: with one of them the others are hardly a question
        order = part_of[bank.named[bank.perturbation[rows]]]
        rows, order = rows[torch.argsort(order, stable=True)], order.sort().values
        place = torch.unique(order, return_inverse=True)[1]
        n_parts = 1 if use == "zero-shot" else min(FOLDS, int(place.max()) + 1)
        asked_parts = min(n_parts, max(1, SCENES // len(contexts)))
        each = max(1, limit // (len(contexts) * asked_parts))
        for part in range(asked_parts):
            hidden_rows = rows[place % n_parts == part]
            hidden_rows = hidden_rows[torch.argsort(part_of[bank.perturbation[hidden_rows]])]
            scene = _scene(bank, use, context, hidden_rows, hidden_rows[:each])
            if len(scene.supports):
                yield scene, hidden_rows[:each]


def _scene(bank: Bank, use: str, context: int, hidden_rows: Tensor, asked: Tensor) -> Scene:
    keep = torch.ones(len(bank), dtype=torch.bool)
    keep[hidden_rows] = False
    hidden = None
    if use in ("unseen", "both"):
        hidden = same_name(bank, hidden_rows)
        keep &= ~hidden[bank.perturbation]
    if use in ("zero-shot", "both"):
        keep[bank.context == context] = False
    return Scene(context, bank.perturbation[asked], torch.nonzero(keep).flatten(), hidden)
