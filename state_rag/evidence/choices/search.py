"""Which perturbations most likely bring cells to a wanted state: all candidates at once, ranked by agreement with it.

Of each candidate there is a prediction and, where it was measured, its responses. Each is brought to the same footing
by what responses have in common (`Decorrelation`), so that a programme of a thousand genes that half of all
perturbations move counts no more than one that few do; their directions are added, and the score is the cosine with
the target. Whether it is more than luck is told by targets of random direction that have as much of each programme as
the wanted one (`chances`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from state_rag.errors import StateRagError
from state_rag.evidence.choices.chances import DRAWS, chances
from state_rag.evidence.choices.decorrelation import Decorrelation
from state_rag.evidence.choices.profiles import Profiles
from state_rag.evidence.choices.roster import Roster
from state_rag.evidence.estimator import Evidence
from state_rag.evidence.prediction import Prediction
from state_rag.names import listing

REFINED = 400
"""Candidates at most that are predicted with the correction gene by gene; of more, those best by co-kriging alone."""

SIGNIFICANT = 0.05
"""Chance of the best score among random targets up to which something fits."""


@dataclass(frozen=True)
class Search:
    """Candidates, the best first.

    Attributes
    ----------
    context
        Where the state is wanted.
    genes
        G names.
    target
        float64 [G]: what is wanted; NaN where that is not known.
    few
        Whether it was taken for a list of genes.
    perturbations
        N names.
    score
        float64 [N]: cosine of the target with what each does, both decorrelated; 1 at most.
    p
        float64 [N]: share of random targets whose best candidate scores as high.
    q
        float64 [N]: share of random finds to expect among those that score as high.
    measured
        Bool [N]: measured in this context, and judged by that.
    refined
        Bool [N]: predicted in full; the others, behind them, by co-kriging alone.
    top
        Of the first T candidates, in their order: predicted without their own response, with trust.
    effects
        float64 [T, G]: what they do, in the unit of the responses: as measured where `measured`, else predicted.
    unknown
        Candidates that were left out: neither a response nor an embedding knows them.
    """

    context: str
    genes: tuple[str, ...]
    target: np.ndarray
    few: bool
    perturbations: tuple[str, ...]
    score: np.ndarray
    p: np.ndarray
    q: np.ndarray
    measured: np.ndarray
    refined: np.ndarray
    top: Prediction
    effects: np.ndarray
    unknown: tuple[str, ...]

    @property
    def fits(self) -> bool:
        """Whether the best scores higher than luck explains."""
        return bool(self.p[0] <= SIGNIFICANT)

    @property
    def agreement(self) -> np.ndarray:
        """Return float64 [T]: Pearson correlation of each effect with the target over the genes that it names.

        Of a list of genes, the mean effect on them, weighted by size and sign of their weights.
        """
        known = np.isfinite(self.target)
        target, effects = self.target[known], self.effects[:, known]
        if self.few:
            mean: np.ndarray = effects @ target / np.abs(target).sum()
            return mean
        a, b = effects - effects.mean(1, keepdims=True), target - target.mean()
        correlation: np.ndarray = a @ b / np.maximum(np.sqrt((a * a).sum(1) * (b @ b)), 1e-300)
        return correlation


def search(
    engine: Evidence,
    context: str,
    target: np.ndarray,
    *,
    candidates: Sequence[str] | None = None,
    top: int = 20,
    refined: int = REFINED,
    draws: int = DRAWS,
    seed: int = 0,
) -> Search:
    """Return all candidates, ranked by how well what they do agrees with a target.

    A candidate that was measured in the context is judged by its response there, drawn to what others tell of it; the
    others by their prediction. What a candidate did in other contexts counts beside either.

    Parameters
    ----------
    engine
        A fitted one.
    context
        Where the state is wanted.
    target
        [G]: wanted effects or weights of the responses' genes, in any unit. NaN where nothing is known of a gene, 0
        for one that is not to change.
    candidates
        Perturbations to choose from, combinations `A+B` too, whose members may be in any order; by default all single
        ones that the engine knows.
    top
        How many of the best are described.
    refined
        How many are predicted in full, at least `top`; of more candidates, those with the best score by co-kriging.
    draws, seed
        Random targets, and where they come from.

    Raises
    ------
    StateRagError
        If nothing was fitted, the target does not fit the genes or wants nothing, or no candidate is known.
    """
    engine.check_fitted("search")
    engine = engine.reaching(map(str, candidates or ()))
    wanted = np.asarray(target, dtype=np.float64).ravel()
    _check(wanted, len(engine.responses.genes), top, draws)
    offered = Candidates(engine, context, candidates, max(refined, top))
    profiles, found, exact = offered.profiles(wanted)
    score = profiles.scores(found)
    p, q = chances(found, profiles.target, draws, seed)
    order = np.lexsort((np.arange(len(score)), -score, ~exact))
    names, measured = [offered.names[place] for place in order], offered.measured[order]
    described = engine.predict(str(context), names[:top])
    effects = described.mean.copy()
    for place in np.flatnonzero(measured[:top]).tolist():
        effects[place] = offered.response(names[place])
    return Search(
        str(context),
        engine.responses.genes,
        wanted,
        profiles.few,
        tuple(names),
        score[order],
        p[order],
        q[order],
        measured,
        exact[order],
        described,
        effects,
        offered.unknown,
    )


class Candidates:
    """Candidates of a context; what does not hang on the target is made once, for any number of targets.

    Parameters
    ----------
    engine, context, candidates, refined
        As for `search`.

    Attributes
    ----------
    names
        N that something is known of.
    measured
        Bool [N]: in the context.
    unknown
        The others.

    Raises
    ------
    StateRagError
        If nothing is known of any.
    """

    def __init__(
        self, engine: Evidence, context: str, candidates: Sequence[str] | None = None, refined: int = REFINED
    ) -> None:
        bank, self._engine, self._context = engine.bank, engine, str(context)
        self._number = engine.combining.measured.number_of_context(self._context)
        self._refined = refined
        offered = tuple(dict.fromkeys(map(str, bank.offered if candidates is None else candidates)))
        self._roster = Roster(engine, offered)
        asked = [self._roster.number_of(name) for name in offered]
        measured = [self._roster.measured(self._number, number) for number in asked]
        told = self._roster.known(asked, self._number)
        known = [here or there for here, there in zip(measured, told, strict=True)]
        if not any(known):
            raise StateRagError(
                f"search: no candidate is left of {listing(offered) or 'none'}: none was measured or has an embedding. "
                "Give others."
            )
        numbers = dict.fromkeys(number for number, there in zip(asked, known, strict=True) if there)
        self.names = tuple(self._roster.names[number] for number in numbers)
        self.unknown = tuple(name for name, there in zip(offered, known, strict=True) if not there)
        self.measured = np.array([self._roster.measured(self._number, number) for number in numbers])
        self._numbers = torch.tensor(list(numbers))
        self._means: dict[int, np.ndarray] = {}
        self._look: tuple[bytes, Decorrelation] | None = None

    def response(self, name: str) -> np.ndarray:
        """Return the measured response [G] of a candidate in the context, in the unit of the responses."""
        bank, number = self._engine.bank, self._roster.number_of(name)
        if self._roster.is_combination(number):
            row = self._engine.combining.measured.effects[self._roster.row_of(self._number, number)]
        else:
            row = bank.effects[bank.row[self._number, number]]
        values: np.ndarray = row.numpy() * bank.scale
        return values

    def profiles(self, target: np.ndarray) -> tuple[Profiles, Tensor, np.ndarray]:
        """Return the look of a target [G], the profile of each candidate in it [N, K], and which are predicted in full.

        The measured ones count as predicted in full, since nothing more can be done for them.
        """
        profiles = Profiles(self._roster, self._context, target, self._decorrelation(target))
        here, others = np.flatnonzero(self.measured), np.flatnonzero(~self.measured)
        several = np.flatnonzero(self._numbers.numpy() >= len(self._engine.bank.perturbations))
        found = torch.zeros(len(self.names), profiles.width)
        if len(several):
            # nothing more can be done for a combination than to add up its members
            found[several] = profiles.combined(self._numbers[several])
        kriged = np.setdiff1d(here, several)
        if len(kriged):
            found[kriged] = profiles.kriged(self._numbers[kriged], own=True)
        full = others
        if len(others) > self._refined:
            kriged = np.setdiff1d(others, several)
            if len(kriged):
                found[kriged] = profiles.kriged(self._numbers[kriged], own=False)
            best = np.argsort(-profiles.scores(found[others]), kind="stable")[: self._refined]
            # co-kriging of single conditions knows nothing of what combinations tell of their members
            by_combinations = [one for one in kriged if self._engine.combining.asked(self._context, self.names[one])]
            full = np.union1d(others[best], np.array(by_combinations, dtype=others.dtype))
        predicted = np.setdiff1d(full, several)
        if len(predicted):
            found[predicted] = profiles.predicted(self._numbers[predicted], self._predicted(predicted))
        exact = self.measured.copy()
        exact[full] = True
        return profiles, found, exact

    def _decorrelation(self, target: np.ndarray) -> Decorrelation:
        known = np.isfinite(target)
        key = known.tobytes()
        if self._look is None or self._look[0] != key:
            self._look = key, Decorrelation.of(self._engine.bank.effects[:, torch.from_numpy(np.flatnonzero(known))])
        return self._look[1]

    def _predicted(self, places: np.ndarray) -> np.ndarray:
        new = [place for place in places.tolist() if place not in self._means]
        if new:
            found = self._engine.predict(self._context, [self.names[place] for place in new], trust=False)
            self._means |= dict(zip(new, found.mean, strict=True))
        return np.stack([self._means[place] for place in places.tolist()])


def _check(target: np.ndarray, n_genes: int, top: int, draws: int) -> None:
    if target.shape != (n_genes,):
        raise StateRagError(
            f"search: a target of {target.size} values for {n_genes} genes; expected one a gene, NaN where unknown."
        )
    if np.isinf(target).any():
        raise StateRagError("search: the target has infinite values; leave such genes out (NaN).")
    known = target[np.isfinite(target)]
    if not len(known) or np.ptp(known) == 0:
        raise StateRagError(
            "search: the target wants no gene to change, or all alike; give values of genes, 0 for those that are not "
            "to change and NaN where nothing is known."
        )
    if top < 1 or draws < 1:
        raise StateRagError(f"search: top {top} and draws {draws}; both have to be 1 or more.")
