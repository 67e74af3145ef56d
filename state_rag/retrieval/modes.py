"""The ways to retrieve, by name. A new one is a file with a `Retriever`, and a line in `MODES`.

Nothing of torch is imported here, so that flags can be checked without it.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from state_rag.retrieval.retriever import Retriever


@dataclass(frozen=True)
class Mode:
    """A way to retrieve.

    Attributes
    ----------
    retriever
        Where its class is, ``module:Class``, or the class itself.
    part
        What the module is called in the model, and so how its keys in a checkpoint begin.
    title
        What a column of results is headed with.
    flags
        The published flags that mean this mode, which `training.rag_mode` must not contradict.
    """

    retriever: str | type[Retriever]
    part: str
    title: str
    flags: Mapping[str, bool] = field(default_factory=lambda: {"differentiable_rag": False})

    def load(self) -> type[Retriever]:
        """Return the class."""
        if not isinstance(self.retriever, str):
            return self.retriever
        module, _, name = self.retriever.partition(":")
        return getattr(importlib.import_module(module), name)


MODES: dict[str, Mode] = {
    "vanilla": Mode(
        "state_rag.retrieval.attention:CandidateAttention",
        "attention",
        "vanilla RAG",
        {"differentiable_rag": False, "retrieve_than_predict": True},
    ),
    "hidden": Mode(
        "state_rag.retrieval.hidden:HiddenSpaceRetrieval",
        "hidden",
        "hidden-space RAG",
        {"differentiable_rag": False, "retrieve_than_predict": False},
    ),
    "differentiable": Mode(
        "state_rag.retrieval.selector:CandidateSelector", "selector", "PT-RAG", {"differentiable_rag": True}
    ),
}
"""Every way to retrieve, by the name that `training.rag_mode` takes."""


def mode_of(flags: Mapping[str, bool]) -> str:
    """Return the mode that the published flags mean: the first one that they agree with.

    Examples
    --------
    >>> mode_of({"differentiable_rag": False, "retrieve_than_predict": True})
    'vanilla'
    """
    return next(name for name, mode in MODES.items() if all(flags[flag] == value for flag, value in mode.flags.items()))
