"""Episodes: questions with known answers, made by hiding measured conditions, that imitate how the engine is used.

=============  ======================================================================================================
use            what is hidden
=============  ======================================================================================================
`few-shot`     15 to 75 % of a context's conditions; asked are perturbations measured elsewhere
`zero-shot`    a whole context; asked are perturbations measured elsewhere
`unseen`       15 to 75 % of a context's perturbations, in every context
`both`         a whole context, and 15 to 75 % of its perturbations in every context
=============  ======================================================================================================
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from state_rag.evidence.bank import Bank
from state_rag.evidence.kriging import Scene

USES = ("few-shot", "zero-shot", "unseen", "both")
"""Ways of being asked, from the most to the least that is known."""

NEW_CONTEXT = ("zero-shot", "both")
"""Uses in which a whole context is hidden."""

LEAST, MOST = 0.15, 0.75
"""Share that an episode hides."""


def use_of(measured_here: bool, measured_elsewhere: bool) -> str:
    """Return the use of a query: whether its context has responses, and whether it was measured in another one."""
    if measured_elsewhere:
        return "few-shot" if measured_here else "zero-shot"
    return "unseen" if measured_here else "both"


def known_elsewhere(bank: Bank, rows: Tensor, context: int, use: str) -> Tensor:
    """Tell bool [R] of which rows of a context the perturbation was measured otherwise too.

    That is in another context or, where that counts, under another label of the same name.
    """
    counted = bank.count[:, bank.perturbation[rows]]
    own = counted[context] if use == "zero-shot" else 1
    return counted.sum(0) > own


def same_name(bank: Bank, rows: Tensor) -> Tensor:
    """Return bool [P]: the perturbations of some rows, and all others of the same names."""
    names = torch.zeros(len(bank.names), dtype=torch.bool)
    names[bank.named[bank.perturbation[rows]]] = True
    return names[bank.named]


class Episodes:
    """Draws episodes of one use from a bank.

    Parameters
    ----------
    bank
        Measured responses; nothing else is looked at.
    use
        One of `USES`.
    max_supports, max_queries
        Supports and queries of an episode, at most. Supports in the context asked about and of the perturbations
        asked about are kept first.

    Attributes
    ----------
    contexts
        Contexts that can be asked about.
    """

    def __init__(self, bank: Bank, use: str, max_supports: int = 1200, max_queries: int = 64) -> None:
        self.bank, self.use = bank, use
        self.max_supports, self.max_queries = max_supports, max_queries
        self.contexts = [c for c in range(len(bank.contexts)) if self._possible(c)]

    def draw(self, rng: np.random.Generator) -> tuple[Scene, Tensor]:
        """Return a question and the rows of its answers, long [Q].

        Parameters
        ----------
        rng
            Source of all choices.
        """
        bank = self.bank
        context = self.contexts[int(rng.integers(len(self.contexts)))]
        rows = bank.rows_of(context)
        asked = rows[self._askable(context)]
        share = rng.uniform(LEAST, MOST)
        n_hidden = int(np.clip(round(share * len(asked)), 1, max(1, len(asked) - (self.use == "few-shot"))))
        chosen = asked[torch.from_numpy(np.sort(rng.permutation(len(asked))[:n_hidden]))]
        keep = torch.ones(len(bank), dtype=torch.bool)
        hidden = None
        if self.use in ("unseen", "both"):
            hidden = same_name(bank, chosen)
            keep &= ~hidden[bank.perturbation]
        if self.use in ("zero-shot", "both"):
            keep[rows] = False
        keep[chosen] = False
        truth = chosen[torch.from_numpy(np.sort(rng.permutation(n_hidden)[: self.max_queries]))]
        queries = bank.perturbation[truth]
        supports = self._some(torch.nonzero(keep).flatten(), context, queries, rng)
        return Scene(context, queries, supports, hidden), truth

    def _possible(self, context: int) -> bool:
        rows, asked = self.bank.rows_of(context), self._askable(context)
        if self.use == "few-shot":
            return bool(asked.any()) and len(rows) >= 2
        if self.use == "zero-shot":
            return bool(asked.any())
        if self.use == "unseen":
            return len(rows) >= 2
        return len(rows) < len(self.bank) and len(rows) >= 2

    def _askable(self, context: int) -> Tensor:
        rows = self.bank.rows_of(context)
        if self.use in ("unseen", "both"):
            return torch.ones(len(rows), dtype=torch.bool)
        return known_elsewhere(self.bank, rows, context, self.use)

    def _some(self, supports: Tensor, context: int, queries: Tensor, rng: np.random.Generator) -> Tensor:
        if len(supports) <= self.max_supports:
            return supports
        here = (self.bank.context[supports] == context).numpy()
        asked = torch.isin(self.bank.perturbation[supports], queries).numpy()
        # three quarters at most for the context itself, so that an episode always sees others too
        urgency = rng.random(len(supports)) + 1.0 * asked
        order = np.argsort(-urgency[here], kind="stable")[: self.max_supports * 3 // 4]
        own = np.flatnonzero(here)[order]
        order = np.argsort(-urgency[~here], kind="stable")[: self.max_supports - len(own)]
        return supports[torch.from_numpy(np.sort(np.concatenate([own, np.flatnonzero(~here)[order]])))]
