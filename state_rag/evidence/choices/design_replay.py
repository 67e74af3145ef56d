"""Replaying a choice of experiments on a context that was measured: designed beside random and simple rivals.

The perturbations of the context are halved at random: one half is only predicted, from the other half conditions are
chosen. Their measured responses, with those of the other contexts, predict the first half.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from scipy.stats import ttest_rel
from torch import Tensor

from state_rag.errors import StateRagError
from state_rag.evidence.answering import answer_scene
from state_rag.evidence.bank import Bank
from state_rag.evidence.choices.posterior import Posterior, greedy
from state_rag.evidence.fusion import correlations
from state_rag.evidence.kriging import Scene
from state_rag.evidence.similarity import Similarity
from state_rag.evidence.training import Trained

DESIGNED, RANDOM, DIFFERENT, LARGEST = "designed", "random", "most different", "largest elsewhere"
METHODS = (DESIGNED, RANDOM, DIFFERENT, LARGEST)
"""Ways to choose: `most different` are medoids by the first embedding, or else by responses in other contexts."""
BUDGETS = (5, 10, 20, 40)
DRAWS = 3
"""Random choices a split, whose scores are averaged."""
Half = tuple[np.ndarray, np.ndarray]
"""Perturbations by number: predicted, and to choose from."""
FEWEST = 8
"""Measured perturbations that can be halved to any use."""


@dataclass(frozen=True)
class Replay:
    """Accuracy of predictions after experiments that were chosen in different ways.

    Attributes
    ----------
    context
        Where it was replayed.
    budgets
        B numbers of experiments.
    scores
        Method -> float64 [splits, B]: mean Pearson over the predicted half of predicted and measured effect.
    variance
        Method -> float64 [splits, B]: mean variance of the predicted half, as a share of what it is before anything is
        measured anywhere.
    explained
        float64 [splits, B]: share of the predicted half's variance that the design takes away.
    """

    context: str
    budgets: tuple[int, ...]
    scores: dict[str, np.ndarray]
    explained: np.ndarray
    variance: dict[str, np.ndarray] = field(default_factory=dict)

    def gain(self, rival: str = RANDOM) -> np.ndarray:
        """Return by how much designed is ahead, mean over splits, float64 [B]."""
        return (self.scores[DESIGNED] - self.scores[rival]).mean(0)

    def p_value(self, rival: str = RANDOM) -> np.ndarray:
        """Return the p-value of the paired t-test over splits, float64 [B]; 1 where all are the same.

        Splits share perturbations, so that it tells whether the gain is one of these perturbations, not of others.
        """
        ours, theirs = self.scores[DESIGNED], self.scores[rival]
        same = (ours == theirs).all(0)
        found = np.ones(len(self.budgets))
        if len(ours) > 1 and not same.all():
            found[~same] = ttest_rel(ours[:, ~same], theirs[:, ~same]).pvalue
        return found

    def expected(self, variance: np.ndarray) -> np.ndarray:
        """Return the Pearson correlation [N] that a mean variance [N], as in `variance`, went with, by all methods.

        A falling step function (isotonic regression), and NaN beyond the variances that were seen: what so many
        experiments bring was then never replayed.
        """
        from sklearn.isotonic import IsotonicRegression  # brings pandas with it

        seen = np.concatenate([values.ravel() for values in self.variance.values()])
        score = np.concatenate([self.scores[method].ravel() for method in self.variance])
        model = IsotonicRegression(increasing=False, out_of_bounds="nan")
        found: np.ndarray = model.fit(seen, score).predict(np.asarray(variance, dtype=float))
        return found

    def interval(self, method: str) -> np.ndarray:
        """Return the 95 % bootstrap interval over splits of a method's mean score, float64 [2, B]."""
        values = self.scores[method]
        drawn = np.random.default_rng(0).integers(len(values), size=(2000, len(values)))
        return np.percentile(values[drawn].mean(1), [2.5, 97.5], axis=0)


def replay(
    bank: Bank,
    similarity: Similarity,
    learned: Trained,
    context: int,
    *,
    budgets: Sequence[int] = BUDGETS,
    splits: Sequence[Half] | int = 12,
    methods: Sequence[str] = METHODS,
    measured: int = 0,
    limit: int = 10_000,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Replay:
    """Return how accurate predictions are after each choice.

    Parameters
    ----------
    bank, similarity, learned
        Of an engine.
    context
        A measured one, by number.
    budgets
        Numbers of experiments; those beyond the smallest half are left out.
    splits
        How many halvings, or these: (predicted, to choose from), perturbations by number.
    methods
        Of `METHODS`, `designed` among them.
    measured
        Conditions of the context that are measured before, drawn from the half to choose from.
    limit
        Supports of a prediction at most.
    seed
        Of halvings and random choices.
    progress
        Told splits done, and in all.

    Raises
    ------
    StateRagError
        If too few conditions were measured in the context, or a method is unknown.
    """
    if wrong := sorted(set(methods) - set(METHODS)):
        raise StateRagError(f"replay: unknown way to choose {wrong[0]!r}; choose of {', '.join(METHODS)}.")
    own = bank.rows_of(context)
    there = bank.perturbation[own]
    there = there[similarity.known(there, context).any(0)]
    if context < 0 or len(there) < FEWEST:
        name = bank.contexts[context] if context >= 0 else "the context"
        raise StateRagError(
            f"replay: {name} has {len(there)} measured perturbations with a response elsewhere or an embedding; a "
            f"choice can be replayed with {FEWEST} or more."
        )
    halves = _halves(there.numpy(), splits, seed) if isinstance(splits, int) else list(splits)
    budgets = tuple(b for b in budgets if b <= min(len(pool) for _, pool in halves) - measured)
    if not budgets:
        raise StateRagError("replay: each budget is more than there is to choose from; give smaller ones.")
    scores = {method: np.zeros((len(halves), len(budgets))) for method in methods}
    variance = {method: np.zeros((len(halves), len(budgets))) for method in methods}
    prior = float(learned.weights.prior_variance())
    explained = np.zeros((len(halves), len(budgets)))
    elsewhere = bank.elsewhere(context)
    for number, (test, pool) in enumerate(halves):
        rng = np.random.default_rng([seed, 1, number])
        first = np.sort(rng.permutation(len(pool))[:measured])
        supports = torch.cat([elsewhere, bank.row[context, torch.from_numpy(pool[first])]])
        left = np.delete(pool, first)

        def score(chosen: np.ndarray, test: np.ndarray = test, supports: Tensor = supports) -> tuple[float, float]:
            rows = torch.cat([supports, bank.row[context, torch.from_numpy(chosen)]]).sort().values
            asked = torch.from_numpy(test)
            found = answer_scene(bank, similarity, Scene(context, asked, rows), learned, limit)
            right = correlations(found.values, bank.effects[bank.row[context, asked]])
            return float(right.mean()), float(found.answer.variance.mean()) / prior

        for method in methods:
            orders = []
            if method == DESIGNED:
                model = Posterior(
                    bank,
                    similarity,
                    learned.weights,
                    context,
                    supports,
                    test.tolist(),
                    [(context, int(p)) for p in left],
                )
                noise = learned.weights.noise_of(torch.ones(len(left), dtype=torch.float64))
                places, gains, _ = greedy([model], noise, max(budgets))
                explained[number] = np.cumsum(gains)[np.array(budgets) - 1] / max(model.first, 1e-300)
                orders = [left[places]]
            elif method == RANDOM:
                orders = [rng.permutation(left) for _ in range(DRAWS)]
            elif method == DIFFERENT:
                orders = [left[medoids(_distances(similarity, left, context), max(budgets))]]
            else:
                orders = [left[np.argsort(-_size_elsewhere(bank, left, context), kind="stable")]]
            for column, budget in enumerate(budgets):
                told = np.mean([score(order[:budget]) for order in orders], axis=0)
                scores[method][number, column], variance[method][number, column] = told
        if progress is not None:
            progress(number + 1, len(halves))
    return Replay(bank.contexts[context], budgets, scores, explained, variance)


def medoids(distance: np.ndarray, count: int) -> list[int]:
    """Return medoids in order: each the one that brings all rows nearest to a medoid.

    The build step of partitioning around medoids (Kaufman and Rousseeuw 1990), so that fewer are the first of more.

    Parameters
    ----------
    distance
        [N, N].
    count
        How many, at most N.
    """
    nearest = np.full(len(distance), max(float(distance.max()), 0.0) + 1)
    chosen: list[int] = []
    for _ in range(min(count, len(distance))):
        total = np.minimum(nearest[None], distance).sum(1)
        total[chosen] = np.inf
        chosen.append(int(np.argmin(total)))
        nearest = np.minimum(nearest, distance[chosen[-1]])
    return chosen


def _halves(there: np.ndarray, count: int, seed: int) -> list[Half]:
    rng = np.random.default_rng([seed, 0])
    found = []
    for _ in range(count):
        order = rng.permutation(there)
        found.append((np.sort(order[: len(order) // 2]), np.sort(order[len(order) // 2 :])))
    return found


def _distances(similarity: Similarity, perturbations: np.ndarray, context: int) -> np.ndarray:
    asked = torch.from_numpy(perturbations)
    return 1 - similarity.cosines(asked, asked, context)[0].double().numpy()


def _size_elsewhere(bank: Bank, perturbations: np.ndarray, context: int) -> np.ndarray:
    """Return the mean size of each perturbation's effect in other contexts, 0 where it was measured in none."""
    size = torch.linalg.vector_norm(bank.effects, dim=1)
    row = bank.row[:, torch.from_numpy(perturbations)].clone()
    row[context] = -1
    there = row >= 0
    return ((size[row.clamp_min(0)] * there).sum(0) / there.sum(0).clamp_min(1)).numpy()
