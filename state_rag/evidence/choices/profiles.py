"""What candidates of a search do, in the coordinates that a target can tell apart: predicted, and as measured."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from state_rag.evidence.choices.decorrelation import Decorrelation, centred
from state_rag.evidence.choices.roster import Roster
from state_rag.evidence.episodes import USES, use_of
from state_rag.evidence.kriging import BLOCK, Scene, covariance, factorise, nearest
from state_rag.evidence.prior import prior_of
from state_rag.evidence.questions import measured_elsewhere

FEW = 100
"""Genes with a weight below which (and below half of all) a target is a list: they are summed as they are."""

ROUNDING = 1e-9
"""Share of a target below which what the directions do not hold of it is rounding, and no direction of its own."""

OWN = 1.0
"""What the own response of a measured candidate counts, beside 1 for its co-kriging and 1 for other contexts."""


class Profiles:
    """What candidates do, in the few coordinates that a target can tell apart.

    These are the directions of a decorrelation, and one more: what else of the target there is. Other parts of an
    effect count by their length alone.

    Parameters
    ----------
    roster
        What candidates' numbers stand for.
    context
        Name.
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

    def __init__(self, roster: Roster, context: str, target: np.ndarray, look: Decorrelation) -> None:
        self._roster, self._engine = roster, roster.engine
        self._name, self._context = context, roster.bank.number_of_context(context)
        known = torch.from_numpy(np.flatnonzero(np.isfinite(target)))
        self._genes = known
        self._responses = roster.bank.effects[:, known]
        values = torch.from_numpy(target)[known]
        self.few = int((values != 0).sum()) < min(FEW, len(target) / 2)
        values = values[None] if self.few else centred(values[None])
        along = values @ look.directions
        left = values - along @ look.directions.T
        length = torch.linalg.vector_norm(left)
        if length <= ROUNDING * torch.linalg.vector_norm(values):
            left, length = torch.zeros_like(left), torch.zeros_like(length)
        self._basis = torch.cat([look.directions, (left / length.clamp_min(1e-300)).T], 1)
        self._factors = torch.cat([look.factors, torch.tensor([look.rest], dtype=torch.float64)])
        self._rest = look.rest
        wanted = torch.cat([along[0], length[None]])
        # genes of a short list were chosen because they change; decorrelating so few undoes the choice
        wanted = wanted if self.few else wanted * self._factors
        self.target = (wanted / torch.linalg.vector_norm(wanted)).float()
        self.width = len(self.target)
        combinations = roster.engine.combining.measured
        self._single = _Measured(self._responses, *self._unit(self._responses), self._context)
        effects = combinations.effects[:, known]
        place = roster.row_of_context(combinations.number_of_context(context))
        self._combined = _Measured(effects, *self._unit(effects), place)

    def scores(self, profiles: Tensor) -> np.ndarray:
        """Return float64 [N]: cosine of each profile [N, K + 1] with the target."""
        scores: np.ndarray = (profiles @ self.target).double().numpy()
        return scores

    def scores_of_effects(self, effects: np.ndarray) -> np.ndarray:
        """Return float64 [N]: cosine of effects [N, G], decorrelated and by themselves, with the target."""
        return self.scores(self._unit(torch.from_numpy(effects)[:, self._genes])[0])

    def predicted(self, numbers: Tensor, mean: np.ndarray) -> Tensor:
        """Return profiles [Q, K + 1] of candidates with predicted effects [Q, G], in the unit of the responses."""
        return self._joined(
            self._roster.bank.row[:, numbers],
            self._unit(torch.from_numpy(mean)[:, self._genes]),
            self._single,
            own=False,
        )

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
                found[part] = self._joined(
                    bank.row[:, numbers[part]], self._unit(prior + cross.T @ dual), self._single, own=own
                )
        return found

    def combined(self, numbers: Tensor) -> Tensor:
        """Return profiles [Q, K + 1] of combinations: what their members do, with all that was measured, added up."""
        engine, roster = self._engine, self._roster
        measured, rule = engine.combining.measured, engine.combining.learned.rule
        parts = roster.parts(numbers)
        distinct, at = torch.unique(parts, return_inverse=True)
        absent = int(bool((parts < 0).any()))
        members = [(roster.names[one],) for one in distinct[absent:].tolist()]
        weights = engine.learned_for(USES[0]).weights
        effects = measured.answer(engine.similarity, weights, rule, self._name, members).mean[:, self._genes].float()
        effects = torch.cat([effects.new_zeros(absent, effects.shape[1]), effects])
        found = torch.zeros(len(numbers), self.width)
        for places in torch.arange(len(numbers)).split(BLOCK):
            unit = self._unit(rule.share * effects[at[places]].sum(1))
            found[places] = self._joined(roster.rows_of_combinations(numbers[places]), unit, self._combined, own=True)
        return found

    def _joined(self, rows: Tensor, parts: tuple[Tensor, Tensor], measured: _Measured, *, own: bool) -> Tensor:
        """Add the directions of the mean response elsewhere and of the own one, and return all at length 1.

        `rows` [contexts, Q] are those of the candidates among the measured ones, -1 where not measured.
        """
        along, square = parts[0].clone(), parts[1].clone()
        elsewhere = torch.arange(len(rows)) != measured.context
        there = (rows >= 0) & elsewhere[:, None]
        count = there.sum(0)
        some = torch.nonzero(count > 0).flatten()
        if len(some):
            values = measured.effects.new_zeros(len(some), measured.effects.shape[1])
            for context in range(len(rows)):
                has = there[context, some]
                values[has] += measured.effects[rows[context, some][has]]
            more = self._unit(values)
            along[some] += more[0]
            square[some] += more[1]
        if own and measured.context >= 0:
            here = torch.nonzero(rows[measured.context] >= 0).flatten()
            mine = rows[measured.context, here]
            along[here] += OWN * measured.along[mine]
            square[here] += OWN**2 * measured.square[mine]
        return along / (along.square().sum(1) + square).clamp_min(1e-20).sqrt()[:, None]

    def _unit(self, effects: Tensor) -> tuple[Tensor, Tensor]:
        """Return effects [Q, known genes] along the coordinates, and the squared length of the rest, of length 1."""
        values = centred(effects).float()
        along = values @ self._basis.float()
        left = (values.square().sum(1) - along.square().sum(1)).clamp_min(0) * self._rest**2
        along = along * self._factors.float()
        length = (along.square().sum(1) + left).clamp_min(1e-20)
        return along / length.sqrt()[:, None], left / length


@dataclass(frozen=True)
class _Measured:
    """Measured effects [N, known genes], the same along the coordinates [N, K + 1], and the square of the rest [N].

    The context asked about is a row of a table of contexts, below 0 for none of it.
    """

    effects: Tensor
    along: Tensor
    square: Tensor
    context: int
