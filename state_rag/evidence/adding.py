"""What a fitted engine takes in later: new measurements, and knowledge of further perturbations. It learns nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from state_rag.errors import StateRagError
from state_rag.evidence.combinations.answers import Combining
from state_rag.evidence.combinations.measured import Combinations
from state_rag.evidence.episodes import USES
from state_rag.evidence.estimator import Evidence
from state_rag.evidence.responses import UNTOLD, Responses
from state_rag.evidence.similarity import Source
from state_rag.evidence.tables import Embeddings
from state_rag.evidence.treatments import refuse_unmeasured
from state_rag.names.combinations import SEPARATOR, parts_of
from state_rag.names.treatments import Treatment, label_of, name_in, single_labels

SAMPLE = 500
"""Perturbations by which a source is recognised."""


@dataclass(frozen=True)
class Merged:
    """Responses of which some are new.

    Attributes
    ----------
    responses
        Known rows first and in their order, then new ones.
    added, averaged
        (context, perturbation) of new conditions, and of those that were measured before and count together now.
    """

    responses: Responses
    added: tuple[tuple[str, str], ...]
    averaged: tuple[tuple[str, str], ...]


def with_responses(engine: Evidence, new: Responses) -> tuple[Evidence, Merged]:
    """Return an engine that also knows new responses, and what became of them; the given one stays as it is.

    Nothing is trained: similarity weights, fusion and calibration are those that were learned without the new
    responses, and so are the units of effects, cell counts and controls in which they were learned; it takes seconds.
    Where the new responses have changed what is known by much, a fit from the start is better.

    Parameters
    ----------
    engine
        A fitted one.
    new
        With the same genes; their order may differ, and further ones are left out. A condition that the engine knows
        already is averaged, by cell counts. A context that it knows keeps its control mean.

    Raises
    ------
    StateRagError
        If nothing was fitted, genes are missing, or only one side knows cell counts.

    Examples
    --------
    >>> from state_rag.evidence.training import Settings
    >>> quick = Settings(steps=2, episodes=4, judging=2, fusion_steps=2)
    >>> names = ("P1", "P2", "P3", "P4")
    >>> labels = ["a"] * 4 + ["b"] * 4
    >>> rng = np.random.default_rng(0)
    >>> engine = Evidence(quick).fit(Responses(rng.normal(size=(8, 5)), labels, names * 2))
    >>> engine, merged = with_responses(engine, Responses(rng.normal(size=(1, 5)), ["b"], ["P5"]))
    >>> merged.added, len(engine.responses)
    ((('b', 'P5'),), 9)
    """
    engine.check_fitted()
    new = as_called(engine, new)
    axes = engine.bank.axes
    if new.treated != (axes is not None):
        what = "tell modes, doses or times" if axes is not None else "are names alone"
        raise StateRagError(
            f"evidence: the labels that the engine was fitted on {what}; those of the new responses differ."
        )
    if axes is not None:
        for label in single_labels(new.perturbation_names):
            refuse_unmeasured(axes, label, engine.bank.alike(label))
    members = engine.combining.among(new.perturbation_names)
    single = [row for row, name in enumerate(new.perturbations) if name not in members]
    others = [row for row, name in enumerate(new.perturbations) if name in members]
    merged = merge(engine.responses, new.take(single)) if single else Merged(engine.responses, (), ())
    found = engine.over(merged.responses, (one for parts in members.values() for one in parts))
    if not others:
        return found, merged
    combined = _merged_combinations(engine, new.take(others), members)
    known = {**engine.combining.measured.members, **members}
    measured = Combinations(combined.responses, known, found.bank)
    found.combined = combined.responses
    found.combining = Combining(measured, measured.learn(found.similarity, found.learned_for(USES[0]).weights))
    return found, Merged(merged.responses, (*merged.added, *combined.added), (*merged.averaged, *combined.averaged))


def as_called(engine: Evidence, new: Responses) -> Responses:
    """Return responses whose perturbations are called as an engine calls them.

    They may have another name there, be an Ensembl id with another version, or `A+ctrl` where the engine has `A`.

    Parameters
    ----------
    engine
        A fitted one.
    new
        Responses.

    Raises
    ------
    StateRagError
        If a condition is there under two names.
    """
    bank = engine.bank

    def own(name: str) -> str:
        if bank.treatments is not None:
            return bank.own_label(name) if new.treated else name
        number, parts = bank.number_of(name), parts_of(name)
        called = sorted(map(bank.called, parts))
        if number >= 0:
            return bank.perturbations[number]
        return name if len(parts) < 2 or called == list(parts) else SEPARATOR.join(called)

    names = tuple(map(own, new.perturbations))
    if names == new.perturbations:
        return new
    return Responses(
        new.effects,
        new.contexts,
        names,
        new.genes,
        cells=new.cells,
        variance=new.variance,
        controls=new.controls,
        changes=new.changes,
        treated=new.treated,
    )


def with_knowledge(engine: Evidence, tables: Embeddings) -> Evidence:
    """Return an engine that also knows further perturbations, by the sources that it was fitted with.

    Predictions for perturbations that it knew already stay as they are.

    Parameters
    ----------
    engine
        A fitted one; it stays as it is.
    tables
        Source -> names and matrix, as for `Evidence.fit`: of the perturbations that the engine knows already, which say
        how the source is centred, and of further ones. A source without a table knows nothing of these.

    Raises
    ------
    StateRagError
        If nothing was fitted, a table is of no source of the engine, or says something else of what is known already.
    """
    engine.check_fitted()
    own = [source.name for source in engine.similarity.sources]
    if strange := [name for name in tables if name not in own]:
        raise StateRagError(
            f"evidence: the engine was fitted without a source {strange[0]!r} (it has {', '.join(own) or 'none'}); fit "
            "again to use it."
        )
    bank = engine.bank
    further = (str(name) for names, _ in tables.values() for name in names)
    if bank.treatments is not None:
        further = (label_of(name, Treatment()) for name in further)

    def told(source: Source, perturbations: Sequence[str]) -> Source:
        table = tables.get(source.name)
        if table is None:
            return source.widened(perturbations)
        basis = {name for name, is_it in zip(source.names, _basis(source).tolist(), strict=True) if is_it}
        called = None if bank.treatments is None else list(map(name_in, perturbations))
        wider = Source.of(source.name, *table, perturbations, basis=basis, called=called)
        _check_same(source, wider)
        return wider

    return engine.over(engine.responses, further, told)


def _merged_combinations(engine: Evidence, new: Responses, members: Mapping[str, tuple[str, ...]]) -> Merged:
    """Return known and new combinations as one; the same members are the same combination, in whatever order."""
    known = engine.combined
    if known is None:
        columns = _columns(engine.responses.genes, new.genes)
        counted = None if engine.responses.cells is None else new.cells
        genes = engine.responses.genes
        aligned = Responses(
            new.effects[:, columns], new.contexts, new.perturbations, genes, cells=counted, treated=new.treated
        )
        return Merged(aligned, tuple(new.conditions), ())
    called = {parts: name for name, parts in engine.combining.measured.members.items()}
    names = [called.get(members[name], name) for name in new.perturbations]
    named = Responses(
        new.effects, new.contexts, names, new.genes, cells=new.cells, changes=new.changes, treated=new.treated
    )
    return merge(known, named)


def _basis(source: Source) -> torch.Tensor:
    return torch.ones(len(source.names), dtype=torch.bool) if source.basis is None else source.basis


def _check_same(source: Source, wider: Source) -> None:
    """Refuse a source that tells something else than when the engine was fitted."""
    row = {name: number for number, name in enumerate(wider.names)}
    known = torch.nonzero(source.known & _basis(source)).flatten()[:SAMPLE]
    before = source.vectors[known]
    after = wider.vectors[[row[source.names[number]] for number in known.tolist()]]
    if not torch.allclose(before @ before.T, after @ after.T, atol=1e-3):
        raise StateRagError(
            f"evidence: source {source.name!r} tells something else of the perturbations that the engine knows than "
            "when it was fitted; give the table that it was fitted with, or fit again."
        )


def merge(known: Responses, new: Responses) -> Merged:
    """Return known and new responses as one.

    Parameters
    ----------
    known, new
        As for `with_responses`.

    Raises
    ------
    StateRagError
        If genes are missing, or only one side knows cell counts.
    """
    if (known.cells is None) != (new.cells is None):
        has, lacks = ("new", "known") if known.cells is None else ("known", "new")
        raise StateRagError(
            f"evidence: the {has} responses say how many cells are behind each, the {lacks} ones do not, so they "
            "cannot be weighed against each other; give cell counts for both or for neither."
        )
    columns = _columns(known.genes, new.genes)
    place = {condition: row for row, condition in enumerate(known.conditions)}
    fresh = [row for row, condition in enumerate(new.conditions) if condition not in place]
    again = [(place[condition], row) for row, condition in enumerate(new.conditions) if condition in place]
    there, here = (np.array([pair[side] for pair in again], dtype=np.int64) for side in (0, 1))
    effects = np.concatenate([known.effects, new.effects[fresh][:, columns]]).astype(np.float64)
    cells = None
    share = np.full(len(again), 0.5)
    if known.cells is not None and new.cells is not None:
        cells = np.concatenate([known.cells, new.cells[fresh]])
        share = new.cells[here] / (known.cells[there] + new.cells[here])
        cells[there] += new.cells[here]
    effects[there] += share[:, None] * (new.effects[here][:, columns] - effects[there])
    return Merged(
        Responses(
            effects,
            [*known.contexts, *(new.contexts[row] for row in fresh)],
            [*known.perturbations, *(new.perturbations[row] for row in fresh)],
            known.genes,
            cells=cells,
            controls=_controls(known, new, columns),
            changes=None if known.changes is None else np.concatenate([known.changes, _changes(new, fresh, columns)]),
            treated=known.treated,
        ),
        tuple(new.conditions[row] for row in fresh),
        tuple(new.conditions[row] for _, row in again),
    )


def _columns(known: Sequence[str], new: Sequence[str]) -> np.ndarray:
    at = {gene: number for number, gene in enumerate(new)}
    missing = [gene for gene in known if gene not in at]
    if missing:
        shown = ", ".join(missing[:5]) + (" ..." if len(missing) > 5 else "")
        raise StateRagError(
            f"evidence: {len(missing)} of the {len(known)} genes that the engine was fitted on are missing among those "
            f"of the new responses ({shown}); give the same genes, in any order."
        )
    return np.array([at[gene] for gene in known], dtype=np.int64)


def _changes(new: Responses, fresh: Sequence[int], columns: np.ndarray) -> np.ndarray:
    """Return what changed in new conditions; a condition that was known already keeps what was known of it."""
    if new.changes is None:
        return np.full((len(fresh), len(columns)), UNTOLD, dtype=np.int8)
    found: np.ndarray = new.changes[fresh][:, columns]
    return found


def _controls(known: Responses, new: Responses, columns: np.ndarray) -> Mapping[str, np.ndarray]:
    fresh = {name: mean[columns] for name, mean in new.controls.items() if name not in known.context_names}
    return {**fresh, **known.controls}
