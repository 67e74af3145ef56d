"""Embeddings of labels that tell modes, doses or times: by the names in them, where the labels themselves have none."""

from collections.abc import Collection, Iterable, Mapping

import numpy as np

from state_rag.embeddings.treated import members_in, treated
from state_rag.names.combinations import SEPARATOR


def known_by_name(labels: Iterable[str], vectors: Collection[str]) -> bool:
    """Tell whether some labels have a mode, dose or time and an embedding by their name alone.

    Examples
    --------
    >>> known_by_name(["A:dose=1"], {"A"}), known_by_name(["A:dose=1"], {"A", "A:dose=1"}), known_by_name(["A"], {"A"})
    (True, False, False)
    """
    return bool(treated(vectors, labels))


def by_name(labels: Iterable[str], vectors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the embeddings of labels, their own or else that of the name in them; without those that have neither.

    Examples
    --------
    >>> by_name(["A:dose=1", "A:dose=2", "B"], {"A": np.ones(1)})
    {'A:dose=1': array([1.]), 'A:dose=2': array([1.])}
    """
    named = {label: SEPARATOR.join(name for name, _ in members_in(label)) for label in labels}
    found = {label: vectors.get(label, vectors.get(name)) for label, name in named.items()}
    return {label: vector for label, vector in found.items() if vector is not None}
