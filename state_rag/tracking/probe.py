"""Ask a model what it would retrieve for given perturbations in every cell type, always for the same cells.

Validation sets alone cannot be compared between cell types: where one line is held out, they come from that line
only. So a few control cells of each cell type are kept when they are first seen, and at every validation all
perturbations of the validation sets are asked about in all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from state_rag.retrieval.knowledge import Knowledge
from state_rag.retrieval.trace import SELECTED_ABOVE
from state_rag.settings import RagSettings
from state_rag.tracking.observation import MAX_CELL_TYPES, Observation, jaccard

MAX_PERTURBATIONS = 64
MAX_CELLS = 64


class Tracked(Protocol):
    """What a model offers to be watched."""

    settings: RagSettings
    knowledge: Knowledge | None
    cell_sentence_len: int
    input_dim: int

    @property
    def controls(self) -> frozenset[str]:
        """Names that stand for no perturbation."""

    @property
    def watched_modules(self) -> dict[str, nn.Module]:
        """The modules `selector` (whatever retrieves) and `backbone`."""

    def retrieve_for(self, names: Sequence[str], cells: Tensor) -> Observation:
        """Retrieve for N perturbations and the same S control cells [S, input_dim]; changes nothing."""


@dataclass(frozen=True)
class Answer:
    """What was retrieved for N perturbations in L cell types.

    Attributes
    ----------
    cell_types, perturbations
        L and N names.
    candidates
        Names of the K candidates of each perturbation, most similar first.
    weights
        Mean weight over the cells, on the CPU. [L, N, K]
    n_selected
        Mean over cells of the number of candidates with a weight above one half. [L, N]
    selects
        Whether the weights are inclusions (true) or attention.
    """

    cell_types: list[str]
    perturbations: list[str]
    candidates: list[list[str]]
    weights: Tensor
    n_selected: Tensor
    selects: bool

    def diversity(self, perturbations: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return `jaccard` of the cell types [L, L] over some of the perturbations, and the counts."""
        return jaccard(self.weights[:, self._places(perturbations)], selects=self.selects)

    def scalars(self, perturbations: Sequence[str]) -> dict[str, float]:
        """Return the headline numbers over some of the perturbations."""
        places = self._places(perturbations)
        weights = self.weights[:, places]
        entropy = torch.special.entr(weights).sum(-1)
        per_type = self.n_selected[:, places] if self.selects else entropy
        main = "n_selected" if self.selects else "attention_entropy"
        found = {main: float(per_type.mean())}
        found.update(
            {f"{main}_by_cell_type/{name}": float(v) for name, v in zip(self.cell_types, per_type.mean(1), strict=True)}
        )
        if self.selects:
            found["inclusion_mean"] = float(weights.mean())
        indices = self.diversity(perturbations)[0]
        upper = indices[tuple(torch.triu_indices(*indices.shape, offset=1))]
        if bool(torch.isfinite(upper).any()):
            found["jaccard_mean"] = float(upper.nanmean())
        return found

    def neighbours(self, perturbation: str) -> list[dict[str, Any]]:
        """Return, for each cell type, which candidates one perturbation has: spelled as in `retrieval_info.csv`."""
        place = self.perturbations.index(perturbation)
        rows = []
        for cell_type, weights in zip(self.cell_types, self.weights[:, place].tolist(), strict=True):
            pairs = list(zip(self.candidates[place], weights, strict=True))
            selected = [name for name, weight in pairs if weight > SELECTED_ABOVE]
            rows.append(
                {
                    "perturbation": perturbation,
                    "cell_type": cell_type,
                    "n_selected": len(selected),
                    "selected_perturbations": "|".join(selected) or "none",
                    "retrieved_perturbations": "|".join(f"{name}(w={weight:.2f})" for name, weight in pairs),
                }
            )
        return rows

    def _places(self, perturbations: Sequence[str]) -> list[int]:
        number = {name: place for place, name in enumerate(self.perturbations)}
        return [number[name] for name in perturbations]


class Probe:
    """Collect control cells of each cell type, and the perturbations of validation sets, and ask."""

    def __init__(self) -> None:
        self.cells: dict[str, Tensor] = {}
        self.validated: set[str] = set()

    def see(self, model: Tracked, batch: Mapping[str, Any]) -> None:
        """Keep control cells of the cell types in a batch that are new."""
        if "cell_type" not in batch or len(self.cells) >= MAX_CELL_TYPES:
            return
        size = model.cell_sentence_len
        for place, name in enumerate(map(str, batch["cell_type"][::size])):
            if name not in self.cells and len(self.cells) < MAX_CELL_TYPES:
                cells = batch["ctrl_cell_emb"].reshape(-1, model.input_dim)[place * size :][: min(size, MAX_CELLS)]
                self.cells[name] = cells.detach().clone()

    def see_validation(self, model: Tracked, batch: Mapping[str, Any]) -> None:
        """Note the perturbations of a validation batch, too."""
        self.see(model, batch)
        self.validated.update(map(str, batch["pert_name"][:: model.cell_sentence_len]))

    def perturbations(self, model: Tracked) -> list[str]:
        """Return the perturbations that validation asks about: the alphabetically first of those it has shown."""
        return sorted(self.validated - model.controls)[:MAX_PERTURBATIONS]

    @torch.no_grad()
    def ask(self, model: Tracked, names: Sequence[str]) -> Answer | None:
        """Return what the model, in evaluation mode, retrieves for `names`; None while there is nothing to ask."""
        if not names or not self.cells or model.knowledge is None:
            return None
        cell_types = sorted(self.cells)
        weights, selected, rows, selects = [], [], None, False
        for cell_type in cell_types:
            seen = model.retrieve_for(names, self.cells[cell_type])
            rows, selects = seen.rows, seen.scores is not None
            weights.append(seen.weights.float().mean(1))
            selected.append((seen.weights > SELECTED_ABOVE).sum(-1).float().mean(1))
        assert rows is not None
        known = model.knowledge.names
        return Answer(
            cell_types,
            list(names),
            [[known[row] for row in candidates] for candidates in rows.tolist()],
            torch.stack(weights).cpu(),
            torch.stack(selected).cpu(),
            selects,
        )
