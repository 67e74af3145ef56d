"""The cell sets of a batch, one perturbation each, looked up in the knowledge; and one forward pass over them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from state_rag.errors import StateRagError
from state_rag.names import suggest
from state_rag.retrieval.knowledge import Knowledge
from state_rag.retrieval.trace import RetrievalTrace


@dataclass
class CellSets:
    """The sets of one batch, as retrieval needs them.

    Attributes
    ----------
    names
        Perturbation of each of the B sets.
    rows
        Row of each set's perturbation in the knowledge, -1 for a control. On the CPU. [B]
    basal
        Control cells. [B, S, input_dim]
    places
        Positions of the sets that are retrieved for, those that are no controls: R numbers.
    """

    names: list[str]
    rows: Tensor
    basal: Tensor
    places: list[int]

    @property
    def asking(self) -> list[str]:
        """The perturbations that are retrieved for, R names."""
        return [self.names[place] for place in self.places]


@dataclass
class Pass:
    """One forward pass: what it is about while it runs, and what training and prediction need of it afterwards.

    Attributes
    ----------
    sets
        The cell sets; None once the pass is over.
    cells
        Encoded control cells [B, S, H], from when they are encoded until the pass is over.
    loss
        What the retrieval adds to a training step's loss; None for nothing.
    logged
        What a training step logs of the retrieval, by name.
    trace
        What was retrieved, where somebody wants to know.
    """

    sets: CellSets | None
    cells: Tensor | None = None
    loss: Tensor | None = None
    logged: Mapping[str, Tensor] = field(default_factory=dict)
    trace: RetrievalTrace | None = None

    def end(self) -> None:
        """Let go of the cells."""
        self.sets = self.cells = None


def read_sets(
    batch: Mapping[str, Any], knowledge: Knowledge, controls: frozenset[str], *, input_dim: int, size: int | None
) -> CellSets:
    """Return the sets of a batch.

    Parameters
    ----------
    batch
        ``ctrl_cell_emb`` [B*S, input_dim] and ``pert_name`` (B*S names).
    knowledge
        Where perturbations are looked up.
    controls
        Names that stand for no perturbation.
    input_dim
        Width of a cell.
    size
        Cells of a set, S; None takes the batch as one set.

    Raises
    ------
    StateRagError
        If a set mixes perturbations or names one without an embedding.
    """
    cells = batch["ctrl_cell_emb"]
    all_names = batch["pert_name"]
    if size is None:
        size = cells.reshape(-1, input_dim).shape[0]
        all_names = [str(name) for name in all_names]
    basal = cells.reshape(-1, size, input_dim)
    names = all_names[::size]
    for start, name in enumerate(names):
        own = all_names[start * size : (start + 1) * size]
        if own.count(name) != size:
            raise StateRagError(
                f"A cell set mixes perturbations ({', '.join(sorted(set(own))[:5])}); retrieval is for whole "
                "sets. Group cells by perturbation."
            )
    names = [str(name) for name in names]
    rows = knowledge.index_of([name if name not in controls else "" for name in names])
    unknown = [name for name, row in zip(names, rows.tolist(), strict=True) if row < 0 and name not in controls]
    if unknown:
        hint = suggest(unknown[:1], knowledge.names)
        raise StateRagError(f"No embedding for perturbation {unknown[0]!r}, and it is no control{hint}.")
    places = [place for place, name in enumerate(names) if name not in controls]
    return CellSets(names, rows, basal, places)
