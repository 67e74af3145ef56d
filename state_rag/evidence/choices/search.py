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
from state_rag.evidence.choices.decorrelation import Decorrelation, centred
from state_rag.evidence.episodes import use_of
from state_rag.evidence.estimator import Evidence
from state_rag.evidence.kriging import BLOCK, Scene, covariance, factorise, nearest
from state_rag.evidence.prediction import Prediction
from state_rag.evidence.prior import prior_of
from state_rag.evidence.questions import measured_elsewhere

FEW = 100
"""Genes with a weight below which (and below half of all) a target is a list: they are summed as they are."""

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
        Perturbations to choose from; by default all that the engine knows.
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
        self._number = bank.number_of_context(self._context)
        self._refined = refined
        offered = tuple(dict.fromkeys(map(str, bank.offered if candidates is None else candidates)))
        numbers = [bank.number_of(name) for name in offered]
        measured = [bank.measured(self._number, number) for number in numbers]
        place = torch.tensor(numbers)
        told = engine.similarity.known(place.clamp_min(0), self._number).any(0) & (place >= 0)
        known = [here or there for here, there in zip(measured, told.tolist(), strict=True)]
        if not any(known):
            raise StateRagError(
                f"search: no candidate is left: none of {len(offered)} was measured or has an embedding. Give others."
            )
        self.names = tuple(name for name, there in zip(offered, known, strict=True) if there)
        self.unknown = tuple(name for name, there in zip(offered, known, strict=True) if not there)
        self.measured = np.array([here for here, there in zip(measured, known, strict=True) if there])
        self._numbers = torch.tensor([bank.number_of(name) for name in self.names])
        self._means: dict[int, np.ndarray] = {}
        self._look: tuple[bytes, Decorrelation] | None = None

    def response(self, name: str) -> np.ndarray:
        """Return the measured response [G] of a candidate in the context, in the unit of the responses."""
        bank = self._engine.bank
        values: np.ndarray = bank.effects[bank.row[self._number, bank.number_of(name)]].numpy() * bank.scale
        return values

    def profiles(self, target: np.ndarray) -> tuple[Profiles, Tensor, np.ndarray]:
        """Return the look of a target [G], the profile of each candidate in it [N, K], and which are predicted in full.

        The measured ones count as predicted in full, since nothing more can be done for them.
        """
        profiles = Profiles(self._engine, self._number, target, self._decorrelation(target))
        here, others = np.flatnonzero(self.measured), np.flatnonzero(~self.measured)
        found = torch.zeros(len(self.names), profiles.width)
        if len(here):
            found[here] = profiles.kriged(self._numbers[here], own=True)
        full = others
        if len(others) > self._refined:
            found[others] = profiles.kriged(self._numbers[others], own=False)
            best = np.argsort(-profiles.scores(found[others]), kind="stable")[: self._refined]
            full = np.sort(others[best])
        if len(full):
            found[full] = profiles.predicted(self._numbers[full], self._predicted(full))
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


class Profiles:
    """What candidates do, in the few coordinates that a target can tell apart.

    These are the directions of a decorrelation, and one more: what else of the target there is. Other parts of an
    effect count by their length alone.

    Parameters
    ----------
    engine
        A fitted one.
    context
        Number, -1 for a new one.
    target
        float64 [G], NaN where unknown.
    look
        Of the responses' known genes.

    Attributes
    ----------
    few
        Whether the target is taken for a list of genes.
    target
        float32 [K + 1]: the target, decorrelated unless it is a list, of length 1.
    width
        K + 1.
    """

    def __init__(self, engine: Evidence, context: int, target: np.ndarray, look: Decorrelation) -> None:
        self._engine, self._context = engine, context
        known = torch.from_numpy(np.flatnonzero(np.isfinite(target)))
        self._genes = known
        bank = engine.bank
        self._responses = bank.effects[:, known]
        values = torch.from_numpy(target)[known]
        self.few = int((values != 0).sum()) < min(FEW, len(target) / 2)
        values = values[None] if self.few else centred(values[None])
        along = values @ look.directions
        left = values - along @ look.directions.T
        length = torch.linalg.vector_norm(left).clamp_min(1e-12)
        self._basis = torch.cat([look.directions, (left / length).T], 1)
        self._factors = torch.cat([look.factors, torch.tensor([look.rest], dtype=torch.float64)])
        self._rest = look.rest
        wanted = torch.cat([along[0], length[None]])
        # genes of a short list were chosen because they change; decorrelating so few undoes the choice
        wanted = wanted if self.few else wanted * self._factors
        self.target = (wanted / torch.linalg.vector_norm(wanted)).float()
        self.width = len(self.target)
        self._of_rows = self._unit(self._responses)

    def scores(self, profiles: Tensor) -> np.ndarray:
        """Return float64 [N]: cosine of each profile [N, K + 1] with the target."""
        scores: np.ndarray = (profiles @ self.target).double().numpy()
        return scores

    def scores_of_effects(self, effects: np.ndarray) -> np.ndarray:
        """Return float64 [N]: cosine of effects [N, G], decorrelated and by themselves, with the target."""
        return self.scores(self._unit(torch.from_numpy(effects)[:, self._genes])[0])

    def predicted(self, numbers: Tensor, mean: np.ndarray) -> Tensor:
        """Return profiles [Q, K + 1] of candidates with predicted effects [Q, G], in the unit of the responses."""
        return self._joined(numbers, self._unit(torch.from_numpy(mean)[:, self._genes]), own=False)

    def kriged(self, numbers: Tensor, *, own: bool) -> Tensor:
        """Return profiles [Q, K + 1] of candidates by co-kriging, of all rows: with their own response, if any."""
        bank, similarity = self._engine.bank, self._engine.similarity
        here = len(bank.rows_of(self._context)) > 0
        uses = [use_of(here, measured_elsewhere(bank, int(number), self._context)) for number in numbers]
        found = torch.zeros(len(numbers), self.width)
        for use in dict.fromkeys(uses):
            places = torch.tensor([place for place, other in enumerate(uses) if other == use])
            learned = self._engine.learned_for(use)
            scene = Scene(self._context, numbers[places], torch.arange(len(bank)))
            scene = nearest(bank, scene, learned.weights, similarity, self._engine.settings.final_supports)
            effects = self._responses[scene.supports]
            expected = prior_of(bank, scene, learned.weights, effects)
            support = bank.context[scene.supports], bank.perturbation[scene.supports]
            among = covariance(similarity, learned.weights, self._context, support, support).double()
            among.diagonal().add_(learned.weights.noise_of(bank.scarcity[scene.supports]))
            # solved for the genes, not for the queries: there are fewer of them
            dual = torch.cholesky_solve(effects - expected.of(*support), factorise(among)).float()
            for part in places.split(BLOCK):
                prior = expected.at(self._context, numbers[part]).float()
                asked = torch.full((len(part),), self._context), numbers[part]
                cross = covariance(similarity, learned.weights, self._context, support, asked)
                found[part] = self._joined(numbers[part], self._unit(prior + cross.T @ dual), own=own)
        return found

    def _joined(self, numbers: Tensor, parts: tuple[Tensor, Tensor], *, own: bool) -> Tensor:
        """Add the directions of the mean response elsewhere and of the own one, and return all at length 1."""
        bank = self._engine.bank
        rows = bank.row[:, numbers]
        along, square = parts[0].clone(), parts[1].clone()
        elsewhere = torch.arange(len(rows)) != self._context
        there = (rows >= 0) & elsewhere[:, None]
        count = there.sum(0)
        some = torch.nonzero(count > 0).flatten()
        if len(some):
            values = self._responses.new_zeros(len(some), self._responses.shape[1])
            for context in range(len(rows)):
                has = there[context, some]
                values[has] += self._responses[rows[context, some][has]]
            more = self._unit(values)
            along[some] += more[0]
            square[some] += more[1]
        if own:
            mine = rows[self._context]
            along += OWN * self._of_rows[0][mine]
            square += OWN**2 * self._of_rows[1][mine]
        return along / (along.square().sum(1) + square).clamp_min(1e-20).sqrt()[:, None]

    def _unit(self, effects: Tensor) -> tuple[Tensor, Tensor]:
        """Return effects [Q, known genes] along the coordinates, and the squared length of the rest, of length 1."""
        values = centred(effects).float()
        along = values @ self._basis.float()
        left = (values.square().sum(1) - along.square().sum(1)).clamp_min(0) * self._rest**2
        along = along * self._factors.float()
        length = (along.square().sum(1) + left).clamp_min(1e-20)
        return along / length.sqrt()[:, None], left / length


OWN = 1.0
"""What the own response of a measured candidate counts, beside 1 for its co-kriging and 1 for other contexts."""


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
