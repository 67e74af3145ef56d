"""The gene that a perturbation is named after, and what the perturbation does to it.

A knock-down lowers its own gene, whatever else it does, and activation raises it. No similar perturbation tells that,
since it moves another gene; and what it does to that one is nothing that the perturbation asked about would do. So
effects on own genes are left out where other perturbations are predicted, and the predicted effect on the own gene is
corrected by a ridge regression of its own: on the prediction, on the gene's level in controls, on what the same
perturbation did to it elsewhere, and on the context and the mode.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from state_rag.evidence.bank import FEWEST_OWN, Bank
from state_rag.evidence.episodes import NEW_CONTEXT
from state_rag.evidence.kriging import Scene

INPUTS = ("constant", "prediction", "control", "control squared", "measured elsewhere", "effect elsewhere")
"""Inputs of the regression, before those that tell contexts and modes apart."""

RIDGE = 5.0
"""Conditions that a slope of 0 counts for, of inputs of unit deviation."""


LIKE_ALL = 1.0
"""Conditions of a name that all others count for, where it is told whether an own gene changes."""


@dataclass(frozen=True)
class OwnGene:
    """What was learned for one use.

    Attributes
    ----------
    slopes
        float64 [len(INPUTS) + contexts + modes]: of the inputs, for what is added to the prediction in units of the
        bank. No contexts where the use is about new ones.
    n_contexts
        How many contexts are told apart.
    """

    slopes: Tensor
    n_contexts: int

    def corrected(self, bank: Bank, scene: Scene, values: Tensor) -> Tensor:
        """Return predictions [Q, G] with the effects on own genes corrected.

        Parameters
        ----------
        bank, scene
            The question, with the supports that were looked at.
        values
            float64 [Q, G]: predictions, in units of the bank.
        """
        rows, own = with_own(bank, scene.queries)
        if not len(rows):
            return values
        inputs = _inputs(bank, scene, rows, values[rows, own], self.n_contexts)
        found = values.clone()
        found[rows, own] += inputs @ self.slopes
        return found

    def of_unknown(self, bank: Bank, context: int, genes: Tensor, predicted: Tensor) -> Tensor:
        """Return the corrected effects [n] on own genes of perturbations that are not in the bank.

        Parameters
        ----------
        bank
            Measured responses.
        context
            Number, -1 for a new one.
        genes
            Long [n]: the genes that they are named after.
        predicted
            float64 [n]: for each, in units of the bank.
        """
        nothing = torch.zeros_like(predicted)
        inputs = _columns(bank, context, genes, predicted, nothing, nothing, self.n_contexts)
        return predicted + inputs @ self.slopes[: inputs.shape[1]]


@dataclass(frozen=True)
class OwnRows:
    """Predictions of own genes in an episode, and what became of them.

    Attributes
    ----------
    scene
        Of the episode.
    rows
        Long [n]: places of the queries whose own gene was measured.
    predicted, truth
        float64 [n]: of that gene, in units of the bank.
    """

    scene: Scene
    rows: Tensor
    predicted: Tensor
    truth: Tensor


def with_same_name(bank: Bank, scene: Scene, weight: Tensor, values: Tensor) -> Tensor:
    """Return predictions from `Bank.effects_on_others` with what rows of the same name tell of own genes.

    Parameters
    ----------
    bank, scene
        The question.
    weight
        float64 [S, Q]: of each support in each prediction.
    values
        float64 [Q, G]: predictions, in units of the bank.
    """
    rows, own = with_own(bank, scene.queries)
    if not len(rows):
        return values
    found = values.clone()
    found[rows, own] += same_name_told(bank, scene, weight, rows)
    return found


def same_name_told(bank: Bank, scene: Scene, weight: Tensor, rows: Tensor) -> Tensor:
    """Return what `Bank.effects_on_others` leaves out of the own genes of some queries [n]; weights [S, Q]."""
    if bank.effects_on_others is bank.effects:
        return torch.zeros(len(rows), dtype=weight.dtype)
    support, query = _of_same_name(bank, scene, rows)
    effects = bank.effects[scene.supports[support], bank.own_gene[scene.queries[rows[query]]]]
    return weight.new_zeros(len(rows)).index_add_(0, query, weight[support, rows[query]] * effects)


def learn_own_gene(bank: Bank, use: str, found: Sequence[OwnRows]) -> OwnGene | None:
    """Return what episodes teach; None where they are too few, or do not say that a correction helps.

    It must lower the squared error in either half of the perturbations, learned from the other half.

    Parameters
    ----------
    bank
        Measured responses.
    use
        One of `USES`.
    found
        Of the episodes.
    """
    n_contexts = 0 if use in NEW_CONTEXT else len(bank.contexts)
    some = [one for one in found if len(one.rows)]
    if not some:
        return None
    inputs = torch.cat([_inputs(bank, one.scene, one.rows, one.predicted, n_contexts) for one in some])
    error = torch.cat([one.truth - one.predicted for one in some])
    named = torch.cat([bank.named[one.scene.queries[one.rows]] for one in some])
    names, place, count = torch.unique(named, return_inverse=True, return_counts=True)
    if len(names) < FEWEST_OWN:
        return None
    # a condition that many episodes ask about tells no more than one that few do
    weight = 1 / count[place].double()
    for half in (0, 1):
        judged = place % 2 == half
        slopes = _ridge(inputs[~judged], error[~judged], weight[~judged])
        left = error[judged] - inputs[judged] @ slopes
        if float((weight[judged] * left.square()).sum()) >= float((weight[judged] * error[judged].square()).sum()):
            return None
    return OwnGene(_ridge(inputs, error, weight), n_contexts)


def own_rows(bank: Bank, scene: Scene, truth: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return which queries have a measured gene of their own [n], these genes [n], and their true effects [n].

    Parameters
    ----------
    bank, scene
        The question.
    truth
        Rows of the bank that answer it, long [Q].
    """
    rows, own = with_own(bank, scene.queries)
    return rows, own, bank.effects[truth[rows], own]


def change_of_own(bank: Bank, scene: Scene, changed: Tensor, told: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return which queries have a measured gene of their own [n], these genes [n], and the chance [n] of their change.

    It is the share of supports whose own gene changed; what those of the query's name did counts besides.

    Parameters
    ----------
    bank, scene
        The question.
    changed
        float [S, G]: 1 where a support changed a gene, else 0.
    told
        Bool [S, G]: whether that is known.
    """
    rows, own = with_own(bank, scene.queries)
    known, of = with_own(bank, bank.perturbation[scene.supports])
    known, of = known[told[known, of]], of[told[known, of]]
    did = changed[known, of]
    share = (did.sum() + 0.5) / (len(did) + 1)
    name = bank.named[bank.perturbation[scene.supports[known]]]
    same = (name[:, None] == bank.named[scene.queries[rows]][None]).to(changed.dtype)
    return rows, own, (LIKE_ALL * share + did @ same) / (LIKE_ALL + same.sum(0))


def with_own(bank: Bank, perturbations: Tensor) -> tuple[Tensor, Tensor]:
    """Return the places [n] of perturbations that are named after measured genes, and these genes [n]."""
    own = bank.own_gene[perturbations]
    rows = torch.nonzero(own >= 0).flatten()
    return rows, own[rows]


def _inputs(bank: Bank, scene: Scene, rows: Tensor, predicted: Tensor, n_contexts: int) -> Tensor:
    """Return the inputs [n, F] of queries, given the predicted effects on their own genes [n]."""
    queries = scene.queries[rows]
    own = bank.own_gene[queries]
    support, query = _of_same_name(bank, scene, rows)
    n_modes = 0
    if bank.treatments is not None:
        n_modes, mode = len(bank.treatments.axes.modes), bank.treatments.mode
        alike = mode[bank.perturbation[scene.supports[support]]] == mode[queries[query]]
        support, query = support[alike], query[alike]
    nothing = torch.zeros(len(rows), dtype=torch.float64)
    count = nothing.index_add(0, query, torch.ones(len(query), dtype=torch.float64))
    total = nothing.index_add(0, query, bank.effects[scene.supports[support], own[query]])
    elsewhere = total / count.clamp_min(1)
    told = _columns(bank, scene.context, own, predicted.double(), (count > 0).double(), elsewhere, n_contexts)
    modes = torch.zeros(len(rows), n_modes, dtype=torch.float64)
    if bank.treatments is not None:
        mode = bank.treatments.mode[queries]
        known = torch.nonzero(mode >= 0).flatten()
        modes[known, mode[known]] = 1
    return torch.cat([told, modes], 1)


def _of_same_name(bank: Bank, scene: Scene, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return the supports [m] and, of some queries [n], the places [m] wherever both have one name."""
    same = bank.named[bank.perturbation[scene.supports]][:, None] == bank.named[scene.queries[rows]][None]
    support, query = same.nonzero(as_tuple=True)
    return support, query


def _columns(
    bank: Bank, context: int, own: Tensor, predicted: Tensor, there: Tensor, elsewhere: Tensor, n_contexts: int
) -> Tensor:
    """Return the inputs [n, len(INPUTS) + contexts] of own genes [n] but for modes."""
    control = torch.zeros_like(predicted)
    if bank.control is not None:
        control = (bank.control[context] if context >= 0 else bank.control.mean(0))[own]
    columns = [torch.ones_like(control), predicted, control, control.square(), there, elsewhere]
    contexts = torch.zeros(len(own), n_contexts, dtype=torch.float64)
    if 0 <= context < n_contexts:
        contexts[:, context] = 1
    return torch.cat([torch.stack(columns, 1), contexts], 1)


def _ridge(inputs: Tensor, wanted: Tensor, weight: Tensor) -> Tensor:
    """Return slopes [F]; the first, of the constant, is not drawn to 0."""
    spread = torch.from_numpy(np.maximum(inputs.std(0, correction=0).numpy(), 1e-3))
    penalty = RIDGE * spread.square()
    penalty[0] = 1e-6
    within = inputs.T @ (weight[:, None] * inputs)
    return torch.linalg.solve(within + torch.diag(penalty), inputs.T @ (weight * wanted))
