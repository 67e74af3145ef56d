"""Embeddings as an engine is given them: tables of names and vectors, and what they say of a bank's perturbations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from state_rag.evidence.bank import Bank
from state_rag.evidence.responses import Responses
from state_rag.evidence.similarity import Source
from state_rag.evidence.treatments import Axes
from state_rag.names.treatments import Treatment, label_of, name_in, single_labels

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


def tables_in(embeddings: Embeddings | Table | None) -> dict[str, tuple[Sequence[str], Any]]:
    """Return tables by source; a single one is the source `text`."""
    if embeddings is None or isinstance(embeddings, Mapping):
        return dict(embeddings or {})
    return {"text": (embeddings.names, embeddings.vectors)}


def embedded_in(tables: Mapping[str, tuple[Sequence[str], Any]], responses: Responses, axes: Axes | None) -> list[str]:
    """Return the perturbations that tables know, as labels where responses tell `axes`; some more than once."""
    embedded = [str(name) for names, _ in tables.values() for name in names]
    if axes is None:
        return embedded
    labels, told = single_labels(responses.perturbation_names), set(embedded)
    # a name that was not measured stands for what can be asked of it
    return [
        *(label for label in labels if name_in(label) in told),
        *(label_of(name, Treatment()) for name in embedded),
    ]


def source_of(bank: Bank, name: str, names: Sequence[str], matrix: Any) -> Source:
    """Return what a table says of the bank's perturbations; of labels that share a name, the same."""
    if bank.treatments is None:
        return Source.of(name, names, matrix, bank.perturbations)
    called = [name_in(label) for label in bank.perturbations]
    # a name counts once, however many doses it has
    first = {bank.alike(label)[0] for label in bank.perturbations}
    return Source.of(name, names, matrix, bank.perturbations, basis=first, called=called)
