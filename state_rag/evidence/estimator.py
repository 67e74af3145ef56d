"""The engine: fit on measured responses, then predict and explain those that were not measured."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from state_rag.errors import StateRagError
from state_rag.evidence.answering import Answered, answer_scene
from state_rag.evidence.bands import overall_weights
from state_rag.evidence.bank import Bank
from state_rag.evidence.combinations import Combinations, Combined, parted
from state_rag.evidence.combining import USE as COMBINATION
from state_rag.evidence.combining import Combining, explain_combination
from state_rag.evidence.episodes import USES
from state_rag.evidence.explanation import Explanation, explain_answer
from state_rag.evidence.kriging import KernelWeights, Scene
from state_rag.evidence.prediction import Neighbours, Prediction, heaviest
from state_rag.evidence.prior import prior_of
from state_rag.evidence.questions import ask, sources_of
from state_rag.evidence.responses import Responses
from state_rag.evidence.similarity import Similarity, Source
from state_rag.evidence.state import pack, unpack
from state_rag.evidence.training import Progress, Settings, Trained, train
from state_rag.evidence.treatments import axes_of, refuse_unmeasured
from state_rag.evidence.trust.expected import Calibrated, Trusting, calibrate, calibration
from state_rag.evidence.trust.gene_caller import GeneCaller
from state_rag.evidence.trust.gene_calls import Calling, fit_caller
from state_rag.names.combinations import parts_of
from state_rag.names.treatments import Treatment, label_of, name_in, single_labels, treatment_of

Embeddings = Mapping[str, tuple[Sequence[str], Any]]
"""Source -> (names, matrix [len(names), D])."""


class Table(Protocol):
    """Names, P of them, and their vectors [P, D]."""

    @property
    def names(self) -> Sequence[str]:
        """Return the names."""

    @property
    def vectors(self) -> Any:
        """Return the vectors."""


def _tables(embeddings: Embeddings | Table | None) -> dict[str, tuple[Sequence[str], Any]]:
    if embeddings is None or isinstance(embeddings, Mapping):
        return dict(embeddings or {})
    return {"text": (embeddings.names, embeddings.vectors)}


class Evidence:
    """Predicts responses from what similar perturbations did, here and in other contexts.

    Co-kriging with learned similarity of perturbations (`kriging`), then a correction gene by gene (`fusion`). A
    condition that was itself measured is predicted without its own response.

    Parameters
    ----------
    settings
        How it is trained; `Settings()` by default.
    seed
        Shorthand for the seed of the settings.

    Attributes
    ----------
    trained
        Use -> what was learned for it. A use that the responses allow no episodes of borrows from another.
    calibrated
        Use -> what tells how far its predictions can be trusted; empty where that was not learned.
    callers
        Use -> what tells which genes change; without those that it was not learned for.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> labels = [(c, p) for c in "ab" for p in ("P1", "P2", "P3", "P4")]
    >>> responses = Responses(rng.normal(size=(8, 5)), [c for c, _ in labels], [p for _, p in labels])
    >>> engine = Evidence(Settings(steps=2, episodes=4, judging=2, fusion_steps=2)).fit(responses)
    >>> engine.predict("a", ["P1", "unheard of"]).mean.shape
    (2, 5)
    """

    def __init__(self, settings: Settings | None = None, *, seed: int | None = None) -> None:
        chosen = settings or Settings()
        self.settings = chosen if seed is None else replace(chosen, seed=seed)
        self.trained: dict[str, Trained] = {}
        self.calibrated: dict[str, Calibrated] = {}
        self.callers: dict[str, GeneCaller] = {}

    def fit(
        self,
        responses: Responses,
        embeddings: Embeddings | Table | None = None,
        uses: Sequence[str] | None = None,
        progress: Progress | None = None,
    ) -> Evidence:
        """Learn from measured responses, and return the engine.

        Parameters
        ----------
        responses
            Whatever was measured, in every context; nothing that is held out. `sr.evidence.from_effects` makes them of
            a table of effects.
        embeddings
            Of perturbations, whether measured or not; any number of sources, or one table, as `sr.embeddings.read`
            reads it.
        uses
            Which kinds of question to train for, of `USES`; by default all that the responses allow. Each takes as
            long as the others.
        progress
            Told about each step: what, steps done, steps in all.

        Raises
        ------
        StateRagError
            For an unknown use, embeddings that do not fit their names, or anything else than responses.
        """
        if not isinstance(responses, Responses):
            raise StateRagError(
                f"evidence: fit takes responses, not {type(responses).__name__}; `sr.evidence.from_effects(effects)` "
                "makes them of a table of effects, a row a condition."
            )
        unknown = sorted(set(uses or ()) - set(USES))
        if unknown:
            raise StateRagError(f"evidence: unknown use {unknown[0]!r}; choose of {', '.join(USES)}.")
        tables = _tables(embeddings)
        self._know(responses, tables)
        # without embeddings a perturbation that was measured nowhere is like no other: there is nothing to learn
        useful = USES if tables else USES[:2]
        self.trained, self.calibrated, self.callers = {}, {}, {}
        for use in uses or useful:
            found = train(self.bank, self.similarity, use, self.settings, progress)
            if found is not None:
                self.trained[use] = found
        for use, learned in self.trained.items() if self.settings.calibrating else ():
            self._calibrate(use, learned, progress)
        self._learn_combinations()
        return self

    @classmethod
    def with_trained(
        cls, settings: Settings, responses: Responses, embeddings: Embeddings, trained: Mapping[str, Trained]
    ) -> Evidence:
        """Return the engine that `fit` would return, but for calibration, from what it has learned of the same.

        Parameters
        ----------
        settings, responses, embeddings
            Those of the fit.
        trained
            What it has learned.
        """
        engine = cls(settings)
        engine._know(responses, dict(embeddings))
        engine.trained = dict(trained)
        engine._learn_combinations()
        return engine

    def predict(self, context: str, perturbations: Sequence[str], *, trust: bool = True) -> Prediction:
        """Return the predicted effects of perturbations in a context.

        Parameters
        ----------
        context
            Name; for one without any measured response the other contexts are all there is to go by.
        perturbations
            Q names. One that was measured in this context is predicted without its response there.
        trust
            Whether to tell how far each can be trusted, which takes about as long as a correction gene by gene, and
            which genes change.

        Raises
        ------
        StateRagError
            If nothing was fitted.
        """
        self.check_fitted()
        names = tuple(map(str, perturbations))
        reaching = self.reaching(names)
        if reaching is not self:
            return reaching.predict(context, names, trust=trust)
        mean = np.zeros((len(names), len(self.responses.genes)))
        variance = np.zeros(len(names))
        uses = [""] * len(names)
        neighbours: list[Neighbours] = [()] * len(names)
        number = self.bank.number_of_context(str(context))
        trusting = Trusting(self.calibrated, self.bank.scale, mean.shape) if trust and self.calibrated else None
        calling = self._calling(mean.shape) if trusting is not None else None
        combinations = {place: self.combining.members(name) for place, name in enumerate(names)}
        combinations = {place: members for place, members in combinations.items() if members}
        if combinations:
            self._combine(str(context), combinations, mean, variance, uses, neighbours, trusting)
        single = [place for place in range(len(names)) if place not in combinations]
        for question in ask(self.bank, self.similarity, number, [names[place] for place in single]):
            learned = self.learned_for(question.use)
            places = [single[place] for place in question.places]
            if question.known:
                answered = self._answer(question.scene, learned, with_genes=trusting is not None)
                mean[places] = self._mean(answered)
                variance[places] = self._variance(answered.answer.variance, learned)
                supports = self.bank.perturbation[answered.scene.supports].tolist()
                drawn = heaviest(
                    tuple(self.bank.perturbations[one] for one in supports),
                    overall_weights(answered.answer, answered.spread),
                )
                for place, found in zip(places, drawn, strict=True):
                    neighbours[place] = found
                if trusting is not None:
                    expected = trusting.known(places, question.use, self.bank, answered, learned, variance[places])
                    if calling is not None:
                        calling.known(places, question.use, self.bank, answered, learned.weights, expected)
            else:
                numbers = torch.tensor([self.bank.number_of(names[place]) for place in places])
                mean[places] = self._prior(question.scene, learned, numbers)
                variance[places] = self._variance(learned.weights.prior_variances(self.bank, numbers), learned)
                # the mean of a context is one for all names, but not for all modes and doses
                alike = [places] if self.bank.treatments is None else [[place] for place in places]
                for some in alike if trusting is not None else ():
                    assert trusting is not None
                    trusting.unknown(some, question.use, mean[some[0]], number, float(variance[some[0]]))
            for place in places:
                uses[place] = question.use
        if trusting is not None:
            trusting.nothing([place for place, name in enumerate(names) if self._does_nothing(name)])
        sources = tuple(self._sources(combinations.get(place, (name,)), number) for place, name in enumerate(names))
        return Prediction(
            str(context),
            names,
            self.responses.genes,
            mean,
            variance,
            tuple(uses),
            sources,
            tuple(neighbours),
            None if trusting is None else trusting.trust(),
            None if calling is None else calling.calls(),
        )

    def knows(self, perturbation: str) -> bool:
        """Tell whether anything is known of a perturbation, or of a member of a combination."""
        if self.bank.treatments is not None and len(parts_of(perturbation)) == 1:
            return bool(self.bank.alike(perturbation))
        return self.bank.number_of(perturbation) >= 0 or bool(self.combining.members(perturbation))

    def reaching(self, perturbations: Iterable[str]) -> Evidence:
        """Return an engine that has some labels, such as another dose of a drug; this one where it has them already.

        Parameters
        ----------
        perturbations
            Labels, or names where labels are names; then there is nothing to do.

        Raises
        ------
        StateRagError
            If a label's mode was not measured, or it tells less or more than the labels of measured conditions.
        """
        axes = self.bank.axes
        if axes is None:
            return self
        parts = single_labels(map(self.bank.own_label, perturbations))
        for label in parts:
            refuse_unmeasured(axes, label, [one for one in self.bank.alike(label) if one in self.bank.offered])
        further = [label for label in parts if self.bank.number_of(label) < 0]
        return self.over(self.responses, further) if further else self

    def measured(self, context: str, perturbation: str) -> bool:
        """Tell whether a condition, a single one or a combination, was measured."""
        if members := self.combining.members(perturbation):
            found = self.combining.measured
            return any(c == context and found.members[name] == members for c, name in found.conditions)
        return self.bank.measured(self.bank.number_of_context(context), self.bank.number_of(perturbation))

    def explain(self, context: str, perturbation: str) -> Explanation:
        """Return where the prediction of one perturbation comes from.

        Parameters
        ----------
        context, perturbation
            Names, as for `predict`.

        Raises
        ------
        StateRagError
            If nothing was fitted, or nothing is known of the perturbation, so that there is nothing to show.
        """
        self.check_fitted()
        reaching = self.reaching([str(perturbation)])
        if reaching is not self:
            return reaching.explain(context, perturbation)
        if members := self.combining.members(str(perturbation)):
            return self._explain_combination(str(context), str(perturbation), members)
        number = self.bank.number_of_context(str(context))
        (question,) = ask(self.bank, self.similarity, number, [str(perturbation)])
        learned = self.learned_for(question.use)
        if not question.known:
            raise StateRagError(
                f"explain: {perturbation} has no response in another context than {context} and no embedding, so that "
                "its prediction is the context's mean effect; give embeddings that know it."
            )
        shape = 1, len(self.responses.genes)
        trusting, calling = Trusting(self.calibrated, self.bank.scale, shape), self._calling(shape)
        answered = self._answer(question.scene, learned, with_genes=bool(self.calibrated))
        if self.calibrated:
            variance = self._variance(answered.answer.variance, learned)
            expected = trusting.known([0], question.use, self.bank, answered, learned, variance)
            if calling is not None:
                calling.known([0], question.use, self.bank, answered, learned.weights, expected)
            trusting.nothing([0] if self._does_nothing(str(perturbation)) else [])
        return explain_answer(
            answered.answer,
            answered.spread,
            self.similarity,
            names=(str(context), str(perturbation)),
            genes=self.responses.genes,
            cells=self.responses.cells,
            predicted=self._mean(answered)[0],
            trust=trusting.trust() if self.calibrated else None,
            calls=None if calling is None else calling.calls(),
        )

    def to_state(self) -> dict[str, Any]:
        """Return everything that a fitted engine is, as `state.pack` says: numbers, texts and tensors, no pickles."""
        self.check_fitted()
        return pack(
            self.settings,
            self.responses,
            self.similarity.sources,
            self.trained,
            self.calibrated,
            self.callers,
            (self.combined, self.combining.measured.members, self.combining.learned),
            self.bank.axes,
        )

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Evidence:
        """Return the engine that `to_state` was called on.

        Raises
        ------
        StateRagError
            If the state is of another version, or none at all.
        """
        settings, responses, sources, trained, calibrated, callers, (combined, members, learned), axes = unpack(state)
        engine = cls(settings)
        engine.responses, engine.combined = responses, combined
        more = [*(sources[0].names if sources else ()), *(one for parts in members.values() for one in parts)]
        engine.bank = Bank(responses, more, axes)
        engine.similarity = Similarity(engine.bank, sources, settings.powers)
        engine.trained, engine.calibrated, engine.callers = trained, calibrated, callers
        engine.combining = Combining(Combinations(combined, members, engine.bank), learned)
        return engine

    def _does_nothing(self, label: str) -> bool:
        """Tell whether a label's dose or time is 0, of a combination that of each member."""
        if self.bank.treatments is None:
            return False
        told = [treatment_of(part)[1] for part in parts_of(label)]
        return all(0 in (treatment.dose, treatment.time) for treatment in told)

    def _combine(
        self,
        context: str,
        asked: Mapping[int, tuple[str, ...]],
        mean: np.ndarray,
        variance: np.ndarray,
        uses: list[str],
        neighbours: list[Neighbours],
        trusting: Trusting | None,
    ) -> None:
        """Fill in what is predicted for combinations: place -> members."""
        places = list(asked)
        found = self._combined_answer(context, list(asked.values()))
        mean[places] = (found.mean * self.bank.scale).numpy()
        variance[places] = self._combined_variance(found)
        drawn = heaviest(tuple(name for _, name in found.conditions), found.weight)
        for place, one in zip(places, drawn, strict=True):
            uses[place], neighbours[place] = COMBINATION, one
        if trusting is not None:
            self._trust_combined(trusting, places, context, list(asked.values()), found)

    def _trust_combined(
        self, trusting: Trusting, places: list[int], context: str, asked: Sequence[tuple[str, ...]], found: Combined
    ) -> None:
        size = found.mean.square().mean(1).sqrt().numpy()
        reasons = [self.combining.words(context, members) for members in asked]
        mean = (found.mean * self.bank.scale).numpy()
        trusting.combined(places, mean, self.combining.expected(size), self._combined_variance(found), reasons)

    def _combined_variance(self, found: Combined) -> np.ndarray:
        return self._variance(found.variance, self.learned_for(USES[0])) * self.combining.error_ratio

    def _combined_answer(self, context: str, asked: Sequence[tuple[str, ...]]) -> Combined:
        """Return answers to combinations; members that nothing is known of are like no other perturbation."""
        strange = [m for m in dict.fromkeys(m for members in asked for m in members) if self.bank.number_of(m) < 0]
        engine = self.over(self.responses, strange) if strange else self
        return engine.combining.answer(engine.similarity, self.learned_for(USES[0]).weights, context, asked)

    def over(
        self,
        responses: Responses,
        more: Iterable[str],
        told: Callable[[Source, Sequence[str]], Source] | None = None,
    ) -> Evidence:
        """Return an engine with what this one has learned, over other responses or more perturbations.

        Parameters
        ----------
        responses
            Of single perturbations, those that are known already first.
        more
            Further perturbations.
        told
            What a source is for more perturbations; by default it knows nothing of these, but for other labels of names
            that it knows.
        """
        found = Evidence(self.settings)
        found.responses, found.combined = responses, self.combined
        found.bank = Bank(responses, [*self.bank.perturbations, *more], self.bank.axes)
        found.bank.other_names = self.bank.other_names
        new = [label for label in found.bank.perturbations if self.bank.number_of(label) < 0]
        alike = {label: known[0] for label in new if (known := self.bank.alike(label))}
        sources = [
            source.widened(found.bank.perturbations, alike) if told is None else told(source, found.bank.perturbations)
            for source in self.similarity.sources
        ]
        found.similarity = Similarity(found.bank, sources, self.settings.powers)
        found.trained, found.callers = dict(self.trained), dict(self.callers)
        found.calibrated = {use: one.with_contexts(len(found.bank.contexts)) for use, one in self.calibrated.items()}
        measured = Combinations(self.combined, self.combining.measured.members, found.bank)
        found.combining = Combining(measured, self.combining.learned)
        return found

    def _sources(self, members: Sequence[str], context: int) -> tuple[str, ...]:
        found = [sources_of(self.similarity, self.bank.number_of(member), context) for member in members]
        return tuple(dict.fromkeys(name for one in found for name in one))

    def _explain_combination(self, context: str, name: str, members: tuple[str, ...]) -> Explanation:
        found = self._combined_answer(context, [members])
        trusting = Trusting(self.calibrated, self.bank.scale, (1, len(self.responses.genes)))
        self._trust_combined(trusting, [0], context, [members], found)
        trusting.nothing([0] if self._does_nothing(name) else [])
        cells: dict[tuple[str, str], float] = {}
        for responses in (self.responses, self.combined):
            if responses is not None and responses.cells is not None:
                cells.update(zip(responses.conditions, responses.cells.tolist(), strict=True))
        return explain_combination(
            self.combining,
            self.similarity.names,
            found,
            cells,
            names=(context, name),
            members=members,
            genes=self.responses.genes,
            trust=trusting.trust() if self.calibrated else None,
        )

    def _know(self, responses: Responses, tables: Mapping[str, tuple[Sequence[str], Any]]) -> None:
        """Take in what is known; nothing is learned."""
        embedded = [str(name) for names, _ in tables.values() for name in names]
        axes = axes_of(responses)
        if axes is not None:
            labels, told = single_labels(responses.perturbation_names), set(embedded)
            # a name that was not measured stands for what can be asked of it
            embedded = [
                *(label for label in labels if name_in(label) in told),
                *(label_of(name, Treatment()) for name in embedded),
            ]
        self.responses, self.combined, self._members = parted(responses, embedded)
        self.bank = Bank(self.responses, [*embedded, *(one for parts in self._members.values() for one in parts)], axes)
        sources = [self._source(name, *table) for name, table in tables.items()]
        self.similarity = Similarity(self.bank, sources, self.settings.powers)

    def _source(self, name: str, names: Sequence[str], matrix: Any) -> Source:
        """Return what a table says of the bank's perturbations; of labels that share a name, the same."""
        bank = self.bank
        if bank.treatments is None:
            return Source.of(name, names, matrix, bank.perturbations)
        called = [name_in(label) for label in bank.perturbations]
        # a name counts once, however many doses it has
        first = {bank.alike(label)[0] for label in bank.perturbations}
        return Source.of(name, names, matrix, bank.perturbations, basis=first, called=called)

    def _learn_combinations(self) -> None:
        measured = Combinations(self.combined, self._members, self.bank)
        self.combining = Combining(measured, measured.learn(self.similarity, self.learned_for(USES[0]).weights))

    def _calibrate(self, use: str, learned: Trained, progress: Progress | None) -> None:
        changes = self.responses.changes
        told = None if changes is None else torch.from_numpy(changes)
        seen = calibration(self.bank, self.similarity, use, learned, self.settings, told, progress)
        found = self.calibrated[use] = calibrate(seen, len(self.bank.contexts), use)
        if changes is not None:
            caller = fit_caller(seen, found.model, self.bank, changes, use, self.settings.seed)
            if caller is not None:
                self.callers[use] = caller

    def _calling(self, shape: tuple[int, int]) -> Calling | None:
        changes = self.responses.changes
        return Calling(self.callers, changes, shape) if changes is not None and self.callers else None

    def check_fitted(self, wanted: str = "evidence") -> None:
        """Refuse to be asked before `fit`; `wanted` begins the sentence.

        Raises
        ------
        StateRagError
            If nothing was fitted.
        """
        if not hasattr(self, "bank"):
            raise StateRagError(f"{wanted}: nothing was fitted; call `fit` with measured responses first.")

    def learned_for(self, use: str) -> Trained:
        """Return what was learned for a use, or else for the most informed one; untaught numbers where there is none.

        A fusion is right only for the use it was trained for.
        """
        order = [use, *(other for other in USES if other != use)]
        found = next((self.trained[name] for name in order if name in self.trained), None)
        if found is None:
            return Trained(KernelWeights(len(self.similarity.kernels), self.bank.axes).requires_grad_(False))
        return found if use in self.trained else Trained(found.weights, calibration=found.calibration)

    def _answer(self, scene: Scene, learned: Trained, *, with_genes: bool = False) -> Answered:
        limit = self.settings.final_supports
        return answer_scene(self.bank, self.similarity, scene, learned, limit, with_genes=with_genes)

    def _mean(self, answered: Answered) -> np.ndarray:
        return (answered.values * self.bank.scale).numpy()

    def _prior(self, scene: Scene, learned: Trained, numbers: Tensor) -> np.ndarray:
        prior = prior_of(self.bank, scene, learned.weights, self.bank.effects[scene.supports])
        return (prior.at(scene.context, numbers) * self.bank.scale).numpy()

    def _variance(self, variance: Tensor, learned: Trained) -> np.ndarray:
        return (variance * learned.calibration * self.bank.scale**2).numpy()
