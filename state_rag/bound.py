"""What a class of models is given before STATE constructs one: knowledge, evidence, who is told of predictions."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Self, cast

from state_rag.anchor import Anchor
from state_rag.retrieval.knowledge import Knowledge
from state_rag.retrieval.trace import RetrievalTrace


class Bound:
    """What `model.RagStateTransition` is bound to; each subclass of `bound_to` has its own."""

    bound_knowledge: ClassVar[Knowledge | None] = None
    bound_data: ClassVar[Mapping[str, Any] | None] = None
    bound_evidence: ClassVar[Mapping[str, Any] | None] = None
    bound_sources: ClassVar[Mapping[str, Any] | None] = None
    bound_controls: ClassVar[frozenset[str]] = frozenset()
    context_of: ClassVar[Callable[[], str] | None] = None
    trace_sink: ClassVar[Callable[[Mapping[str, Any], dict[str, Any], RetrievalTrace], None] | None] = None
    anchor_sink: ClassVar[Callable[[Anchor], None] | None] = None

    @classmethod
    def bound_to(
        cls,
        knowledge: Knowledge,
        *,
        data: Mapping[str, Any] | None = None,
        evidence: Mapping[str, Any] | None = None,
        sources: Mapping[str, Any] | None = None,
        context_of: Callable[[], str] | None = None,
        controls: Sequence[str] = (),
        trace_sink: Callable[[Mapping[str, Any], dict[str, Any], RetrievalTrace], None] | None = None,
        anchor_sink: Callable[[Anchor], None] | None = None,
    ) -> type[Self]:
        """Return a subclass whose instances start with `knowledge`.

        STATE constructs models from plain keyword arguments, all of which it saves; tensors must not be
        among them, hence the detour.

        Parameters
        ----------
        knowledge
            Names and embeddings.
        data
            What the run is trained on (`contract.identity.Identity.to_dict`), to be kept in its checkpoints.
        evidence
            What predicted cells are anchored with (`anchor.Anchor.to_state`), to be kept in its checkpoints.
        sources
            What the files of its sources are, where it names several, to be kept in its checkpoints.
        context_of
            Returns the context (cell line) of the set that is being predicted, where batches do not say it.
        controls
            Further names of controls, beside the run's own.
        trace_sink
            Called after each `predict_step` with the batch, its output and what was retrieved.
        anchor_sink
            Called with what cells are anchored by, once it is there.
        """
        sink = None if trace_sink is None else staticmethod(trace_sink)
        bound = {
            "bound_knowledge": knowledge,
            "bound_data": data,
            "bound_evidence": evidence,
            "bound_sources": sources,
            "context_of": None if context_of is None else staticmethod(context_of),
            "bound_controls": frozenset(controls),
            "trace_sink": sink,
            "anchor_sink": None if anchor_sink is None else staticmethod(anchor_sink),
        }
        found = type(cls.__name__, (cls,), {"__doc__": cls.__doc__, "__module__": cls.__module__, **bound})
        return cast(type[Self], found)
