"""What a fitted engine predicts of perturbations in a context, put together question by question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from state_rag.evidence.answering import answer_scene, expected_error
from state_rag.evidence.bands import overall_weights
from state_rag.evidence.combinations.answers import COMBINATIONS
from state_rag.evidence.combinations.answers import USE as COMBINATION
from state_rag.evidence.combinations.asked import answer_combinations, combined_error, trust_combinations
from state_rag.evidence.prior import prior_of
from state_rag.evidence.questions import Question, ask, sources_of
from state_rag.evidence.trust.expected import Trust, Trusting
from state_rag.evidence.trust.gene_calls import GeneCalls

if TYPE_CHECKING:
    from state_rag.evidence.estimator import Evidence

NEIGHBOURS = 32
"""Perturbations that a prediction names at most."""


Neighbours = tuple[tuple[str, float], ...]
"""Perturbations, each with its weight relative to the largest."""


@dataclass(frozen=True)
class Prediction:
    """Predicted effects of perturbations in a context.

    Attributes
    ----------
    context, perturbations, genes
        Names: of the context, the Q queries and the G genes.
    mean
        float64 [Q, G]: predicted mean effects, in the unit of the responses.
    variance
        float64 [Q]: expected squared error, averaged over genes, in that unit squared.
    uses
        [Q]: what kind of question it was, one of `USES`.
    sources
        [Q]: sources that know the perturbation: embeddings by name, `responses` for a response elsewhere,
        `combinations` for measured ones that it is part of. Where it is empty nothing is known, and the prediction is
        the mean effect of the context.
    neighbours
        [Q]: the perturbations with the largest weights, at most `NEIGHBOURS`, each with its weight (in all contexts,
        without sign) relative to the largest; empty where nothing is known.
    trust
        How far each can be trusted; None where it was not asked for, or the engine knows nothing of it, as one that
        was fitted before there was such a thing.
    calls
        Which genes each changes; None where trust was not asked for, the responses do not say which genes changed, or
        too few did to learn it.
    """

    context: str
    perturbations: tuple[str, ...]
    genes: tuple[str, ...]
    mean: np.ndarray
    variance: np.ndarray
    uses: tuple[str, ...]
    sources: tuple[tuple[str, ...], ...]
    neighbours: tuple[tuple[tuple[str, float], ...], ...]
    trust: Trust | None = None
    calls: GeneCalls | None = None

    @property
    def nothing_known(self) -> np.ndarray:
        """Return bool [Q]: perturbations with neither a response elsewhere nor an embedding."""
        return np.array([not known for known in self.sources], dtype=bool)


def heaviest(names: tuple[str, ...], weight: Tensor) -> list[Neighbours]:
    """Return the perturbations with the largest weights in each of Q answers, `NEIGHBOURS` at most.

    Parameters
    ----------
    names
        Perturbation of each support.
    weight
        [S, Q]: of each support, whose signs do not count; a perturbation's supports are added.
    """
    row: Mapping[str, int] = {name: number for number, name in enumerate(dict.fromkeys(names))}
    place = torch.tensor([row[name] for name in names], dtype=torch.long)
    total = weight.new_zeros(len(row), weight.shape[1]).index_add_(0, place, weight.abs())
    largest, rows = total.topk(min(NEIGHBOURS, len(row)), 0)
    relative = largest / largest[:1].clamp_min(1e-300)
    known = list(row)
    return [
        tuple((known[number], value) for number, value in zip(numbers, values, strict=True))
        for numbers, values in zip(rows.T.tolist(), relative.T.tolist(), strict=True)
    ]


def predict(engine: Evidence, context: str, names: tuple[str, ...], *, trust: bool) -> Prediction:
    """Return what an engine predicts.

    Parameters
    ----------
    engine
        A fitted one that has all labels.
    context, names, trust
        As for `Evidence.predict`.
    """
    draft = _Draft(engine, context, names, trust=trust)
    combinations = {place: engine.combining.asked(context, name) for place, name in enumerate(names)}
    combinations = {place: members for place, members in combinations.items() if members}
    if combinations:
        draft.fill_combinations(combinations)
    single = [place for place in range(len(names)) if place not in combinations]
    for question in ask(engine.bank, engine.similarity, draft.number, [names[place] for place in single]):
        draft.fill(question, [single[place] for place in question.places])
    return draft.finished(combinations)


class _Draft:
    """A prediction while it is filled in, place by place.

    Parameters
    ----------
    engine, context, names, trust
        As for `predict`.
    """

    def __init__(self, engine: Evidence, context: str, names: tuple[str, ...], *, trust: bool) -> None:
        self.engine, self.context, self.names = engine, context, names
        self.mean = np.zeros((len(names), len(engine.responses.genes)))
        self.variance = np.zeros(len(names))
        self.uses = [""] * len(names)
        self.neighbours: list[Neighbours] = [()] * len(names)
        self.number = engine.bank.number_of_context(context)
        shape = self.mean.shape
        self.trusting = Trusting(engine.calibrated, engine.bank.scale, shape) if trust and engine.calibrated else None
        self.calling = engine.calling(shape) if self.trusting is not None else None

    def fill_combinations(self, asked: Mapping[int, tuple[str, ...]]) -> None:
        """Fill in what is predicted for combinations and members of measured ones: place -> what is asked."""
        places, members = list(asked), list(asked.values())
        found = answer_combinations(self.engine, self.context, members)
        self.mean[places] = (found.mean * self.engine.bank.scale).numpy()
        self.variance[places] = combined_error(self.engine, members, found)
        drawn = heaviest(tuple(name for _, name in found.conditions), found.weight)
        for place, one in zip(places, drawn, strict=True):
            self.uses[place], self.neighbours[place] = COMBINATION, one
        if self.trusting is not None:
            trust_combinations(self.engine, self.trusting, places, self.context, members, found)

    def fill(self, question: Question, places: list[int]) -> None:
        """Fill in the answer to a question about single perturbations, whose queries have these places."""
        if question.known:
            self._fill_known(question, places)
        else:
            self._fill_unknown(question, places)
        for place in places:
            self.uses[place] = question.use

    def _fill_known(self, question: Question, places: list[int]) -> None:
        engine, bank, trusting = self.engine, self.engine.bank, self.trusting
        learned, limit = engine.learned_for(question.use), engine.settings.final_supports
        with_genes = trusting is not None
        answered = answer_scene(bank, engine.similarity, question.scene, learned, limit, with_genes=with_genes)
        self.mean[places] = (answered.values * bank.scale).numpy()
        self.variance[places] = expected_error(bank, answered.answer.variance, learned)
        supports = bank.perturbation[answered.scene.supports].tolist()
        drawn = heaviest(
            tuple(bank.perturbations[one] for one in supports), overall_weights(answered.answer, answered.spread)
        )
        for place, found in zip(places, drawn, strict=True):
            self.neighbours[place] = found
        if trusting is not None:
            expected = trusting.known(places, question.use, bank, answered, learned, self.variance[places])
            if self.calling is not None:
                self.calling.known(places, question.use, bank, answered, learned.weights, expected)

    def _fill_unknown(self, question: Question, places: list[int]) -> None:
        """Fill in the prior, where nothing is known of the perturbations."""
        bank, scene, learned = self.engine.bank, question.scene, self.engine.learned_for(question.use)
        numbers = torch.tensor([bank.number_of(self.names[place]) for place in places])
        prior = prior_of(bank, scene, learned.weights, bank.effects_on_others[scene.supports])
        self.mean[places] = (prior.at(scene.context, numbers) * bank.scale).numpy()
        self.variance[places] = expected_error(bank, learned.weights.prior_variances(bank, numbers), learned)
        # the mean of a context is one for all names, but not for all modes and doses
        alike = [places] if bank.treatments is None else [[place] for place in places]
        for some in alike if self.trusting is not None else ():
            assert self.trusting is not None
            variance = float(self.variance[some[0]])
            self.trusting.unknown(some, question.use, self.mean[some[0]], self.number, variance)
        if learned.own_gene is not None and bank.treatments is None:
            genes = torch.tensor([bank.gene_of(self.names[place]) for place in places])
            there = np.array(places)[(genes >= 0).numpy()]
            genes = genes[genes >= 0]
            predicted = torch.from_numpy(self.mean[there, genes.numpy()] / bank.scale)
            found = learned.own_gene.of_unknown(bank, scene.context, genes, predicted)
            self.mean[there, genes.numpy()] = (found * bank.scale).numpy()

    def finished(self, combinations: Mapping[int, tuple[str, ...]]) -> Prediction:
        """Return the prediction, once all places are filled in; `combinations` are those that these answered."""
        engine, names, trusting = self.engine, self.names, self.trusting
        if trusting is not None:
            trusting.nothing([place for place, name in enumerate(names) if engine.does_nothing(name)])
        return Prediction(
            self.context,
            names,
            engine.responses.genes,
            self.mean,
            self.variance,
            tuple(self.uses),
            tuple(
                self._sources(combinations.get(place, (name,)), joint=place in combinations)
                for place, name in enumerate(names)
            ),
            tuple(self.neighbours),
            None if trusting is None else trusting.trust(),
            None if self.calling is None else self.calling.calls(),
        )

    def _sources(self, members: Sequence[str], *, joint: bool) -> tuple[str, ...]:
        engine = self.engine
        found = [sources_of(engine.similarity, engine.bank.number_of(member), self.number) for member in members]
        told = (COMBINATIONS,) if joint and len(members) == 1 else ()
        return tuple(dict.fromkeys([*told, *(name for one in found for name in one)]))
