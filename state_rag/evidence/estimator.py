"""The engine: fit on measured responses, then predict and explain those that were not measured."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from state_rag.errors import StateRagError
from state_rag.evidence.bank import Bank
from state_rag.evidence.combinations.answers import Combining
from state_rag.evidence.combinations.asked import explain_combination
from state_rag.evidence.combinations.measured import Combinations
from state_rag.evidence.combinations.members import parted
from state_rag.evidence.episodes import USES
from state_rag.evidence.explanation import Explanation, explain
from state_rag.evidence.kriging import KernelWeights
from state_rag.evidence.prediction import Prediction, predict
from state_rag.evidence.responses import Responses
from state_rag.evidence.similarity import Similarity, Source
from state_rag.evidence.state import Parts, pack, unpack
from state_rag.evidence.tables import Embeddings, Table, embedded_in, source_of, tables_in
from state_rag.evidence.training import Progress, Settings, Trained, train
from state_rag.evidence.treatments import axes_of, refuse_unmeasured
from state_rag.evidence.trust.expected import Calibrated, calibrate, calibration
from state_rag.evidence.trust.gene_caller import GeneCaller
from state_rag.evidence.trust.gene_calls import Calling, fit_caller
from state_rag.evidence.units import Units
from state_rag.names.combinations import parts_of
from state_rag.names.treatments import single_labels, treatment_of

_PROFILES = "similarity.profiles"
"""Name in a state of what is costly to find again from the responses."""


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
    >>> import numpy as np
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
        tables = tables_in(embeddings)
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
            Q names. One that was measured in this context is predicted without its response there, and without those of
            its part, a tenth of what was measured there; so an answer does not hang on what else is asked, as long as
            no more than `Settings.final_supports` conditions were measured. Of more, those nearest to any of what is
            asked are looked at.
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
        return predict(self, str(context), names, trust=trust)

    def knows(self, perturbation: str) -> bool:
        """Tell whether anything is known of a perturbation, or of a member of a combination."""
        if self.bank.treatments is not None and len(parts_of(perturbation)) == 1:
            return bool(self.bank.alike(perturbation))
        return self.bank.number_of(perturbation) >= 0 or bool(self.combining.members(perturbation))

    def does_nothing(self, perturbation: str) -> bool:
        """Tell whether a label's dose or time is 0, of a combination that of each member."""
        if self.bank.treatments is None:
            return False
        told = [treatment_of(part)[1] for part in parts_of(perturbation)]
        return all(0 in (treatment.dose, treatment.time) for treatment in told)

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
        if members := self.combining.asked(str(context), str(perturbation)):
            return explain_combination(self, str(context), str(perturbation), members)
        return explain(self, str(context), str(perturbation))

    def to_state(self) -> dict[str, Any]:
        """Return everything that a fitted engine is, as `state.pack` says: numbers, texts and tensors, no pickles."""
        self.check_fitted()
        parts = Parts(
            self.settings,
            self.responses,
            self.similarity.sources,
            self.trained,
            self.calibrated,
            self.callers,
            (self.combined, self.combining.measured.members, self.combining.learned),
            self.bank.axes,
            self.bank.own_apart,
            self.bank.units,
        )
        state = pack(parts)
        state["tensors"][_PROFILES] = self.similarity.profiles.clone()
        return state

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Evidence:
        """Return the engine that `to_state` was called on.

        Raises
        ------
        StateRagError
            If the state is of another version, or none at all.
        """
        found = unpack(state)
        engine = cls(found.settings)
        combined, members, learned = found.combinations
        engine.responses, engine.combined = found.responses, combined
        more = [*(found.sources[0].names if found.sources else ()), *(one for its in members.values() for one in its)]
        engine.bank = Bank(found.responses, more, found.axes, own_apart=found.own_apart, units=found.units)
        profiles = state["tensors"].get(_PROFILES)  # states from before do not have them
        engine.similarity = Similarity(engine.bank, found.sources, found.settings.powers, profiles)
        engine.trained, engine.calibrated, engine.callers = found.trained, found.calibrated, found.callers
        engine.combining = Combining(Combinations(combined, members, engine.bank), learned)
        return engine

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
        perturbations = [*self.bank.perturbations, *more]
        old = self.bank
        found.bank = Bank(responses, perturbations, old.axes, own_apart=old.own_apart, units=old.units)
        found.bank.other_names, found.bank.dose_unit = self.bank.other_names, self.bank.dose_unit
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

    def _know(self, responses: Responses, tables: Mapping[str, tuple[Sequence[str], Any]]) -> None:
        """Take in what is known; nothing is learned."""
        axes = axes_of(responses)
        embedded = embedded_in(tables, responses, axes)
        self.responses, self.combined, self._members = parted(responses, embedded)
        more = [*embedded, *(one for parts in self._members.values() for one in parts)]
        self.bank = Bank(self.responses, more, axes, units=Units.of(self.responses, self.combined))
        sources = [source_of(self.bank, name, *table) for name, table in tables.items()]
        self.similarity = Similarity(self.bank, sources, self.settings.powers)

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

    def calling(self, shape: tuple[int, int]) -> Calling | None:
        """Return what calls genes in predictions of a shape [Q, G]; None where it is not known which change."""
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
