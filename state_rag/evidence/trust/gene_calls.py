"""Which genes a perturbation changes: a probability for each, its direction, and lists with a bounded share of errors.

What counts as changed, `Responses.changes` says. The measured conditions that calibrate trust, predicted without
themselves, teach a small model (`gene_caller`) from the size of a gene's predicted effect, how often similar conditions
change the gene, and the accuracy that the prediction is expected to have.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from state_rag.errors import StateRagError
from state_rag.evidence.answering import Answered, chance_of_change
from state_rag.evidence.bank import Bank
from state_rag.evidence.episodes import NEW_CONTEXT
from state_rag.evidence.kriging import KernelWeights
from state_rag.evidence.responses import UNTOLD
from state_rag.evidence.trust.gene_caller import GeneCaller, learn_caller
from state_rag.evidence.trust.model import Calibration, TrustModel

FDR = 0.1
"""False discovery rate of a list of genes unless another is asked for."""

GENES = 512
"""Genes of a calibration condition that are looked at, at most."""

BLOCK = 256
"""Queries whose features are made at a time."""

LEAST_SIZE = 1e-3
"""Predicted effects below this, in units of the bank, are alike."""


@dataclass(frozen=True)
class GeneCalls:
    """Genes that Q perturbations change.

    Attributes
    ----------
    probability
        float64 [Q, G]: that the gene changes; NaN throughout for a query that no calibrated use answers.
    direction
        int8 [Q, G]: 1 for up, -1 for down, the sign of the predicted effect.
    fdr
        float64 [Q, G]: share of the genes at least as probable, over all conditions, that do not change; 1 where the
        probability is NaN.
    """

    probability: np.ndarray
    direction: np.ndarray
    fdr: np.ndarray

    def called(self, fdr: float = FDR) -> np.ndarray:
        """Return bool [Q, G]: the genes of the list with a false discovery rate.

        Raises
        ------
        StateRagError
            If the rate is not between 0 and 1.
        """
        if not 0 < fdr < 1:
            raise StateRagError(f"gene calls: a false discovery rate of {fdr} was asked for; give one between 0 and 1.")
        found: np.ndarray = self.fdr <= fdr
        return found


def fit_caller(
    seen: Calibration | None, model: TrustModel | None, bank: Bank, changes: np.ndarray, use: str, seed: int
) -> GeneCaller | None:
    """Return what the calibration conditions of a use teach; None where they are too few, or too little changes.

    Parameters
    ----------
    seen, model
        The conditions, and what they taught of trust.
    bank, changes
        Measured responses, and int8 [N, G] what changed in them.
    use
        One of `USES`.
    seed
        Of the genes that are looked at, and the halves.
    """
    if seen is None or model is None or seen.chance is None:
        return None
    rng = np.random.default_rng(seed)
    rows = bank.row[seen.context, seen.perturbation].numpy()
    told = np.flatnonzero((changes[rows] != UNTOLD).all(1))
    if not len(told):
        return None
    genes = np.sort(rng.permutation(changes.shape[1])[:GENES])
    new = use in NEW_CONTEXT
    expected = np.array(
        [model.expect(seen.signs[[one]], -1 if new else seen.context[one])[0].item() for one in told.tolist()]
    )
    features = _features(seen.predicted[told][:, genes], seen.chance[told][:, genes], expected)
    # halves of the perturbations, whatever the context; of the contexts, where a whole one is new
    by, count = (seen.context, len(bank.contexts)) if new else (seen.named, len(bank.names))
    half = (rng.permutation(count) % 2 == 0)[by[told]]
    return learn_caller(features, changes[rows[told]][:, genes] != 0, half)


class Calling:
    """Fills in the calls of a prediction, question by question.

    Parameters
    ----------
    callers
        Use -> what was learned for it.
    changes
        int8 [N, G]: what changed in the measured conditions.
    shape
        Q and G.
    """

    def __init__(self, callers: Mapping[str, GeneCaller], changes: np.ndarray, shape: tuple[int, int]) -> None:
        self._callers, self._changes = callers, torch.from_numpy(changes)
        self._probability = np.full(shape, np.nan)
        self._direction = np.zeros(shape, dtype=np.int8)
        self._fdr = np.ones(shape)

    def known(
        self,
        places: list[int],
        use: str,
        bank: Bank,
        answered: Answered,
        weights: KernelWeights,
        expected: np.ndarray,
    ) -> None:
        """Note the calls of queries that something is known of.

        Parameters
        ----------
        places
            Where they stand.
        use
            Of the question.
        bank, answered, weights
            How it was answered, with which numbers of the covariance.
        expected
            [Q]: expected accuracy, NaN where that was not calibrated.
        """
        caller, predicted = self._callers.get(use), answered.values.numpy()
        self._direction[places] = np.sign(predicted)
        if caller is None or np.isnan(expected).any():
            return
        chance = chance_of_change(bank, answered, weights, self._changes).numpy()
        for start in range(0, len(places), BLOCK):
            part = slice(start, start + BLOCK)
            scores = caller.score(_features(predicted[part], chance[part], expected[part]))
            self._probability[places[part]] = caller.probability(scores)
            self._fdr[places[part]] = caller.fdr(scores)

    def calls(self) -> GeneCalls:
        """Return all that was noted."""
        return GeneCalls(self._probability, self._direction, self._fdr)


def _features(predicted: np.ndarray, chance: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Return the features [Q, G, len(FEATURES)] of effects and chances [Q, G] and of accuracies [Q]."""
    size = np.abs(predicted)
    accuracy = np.broadcast_to(expected[:, None], size.shape)
    return np.stack([np.log(np.maximum(size, LEAST_SIZE)), size, accuracy, chance], -1)
