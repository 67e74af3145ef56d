"""A model of ours in one of several processes that train it together (Lightning's data-parallel strategies)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from lightning.pytorch import LightningModule

from state_rag.errors import StateRagError
from state_rag.retrieval.knowledge import Knowledge
from state_rag.retrieval.retriever import Retriever
from state_rag.retrieval.together import Together


class TrainedTogether(LightningModule):
    """What `model.RagStateTransition` does so that several processes come to what one would.

    All know the same: the evidence of the first process is given to the others, and embeddings are compared. What is
    reckoned over a batch is reckoned over that of all processes. Each draws random numbers of its own.
    """

    knowledge: Knowledge | None
    anchor: Any
    settings: Any
    _together: Together | None = None

    @property
    def retriever(self) -> Retriever | None:
        """The part that retrieves; None where nothing is retrieved."""
        raise NotImplementedError

    def setup(self, stage: str) -> None:
        """Take the evidence from the first process, and refuse to train on other embeddings than it does."""
        super().setup(stage)
        if stage != "fit" or self.trainer.world_size == 1:
            return
        first = self.trainer.is_global_zero
        state = self.anchor.to_state() if self.settings.anchors and self.anchor is not None and first else None
        known = digest(self.knowledge)
        state, wanted = self.trainer.strategy.broadcast((state, known))
        if known != wanted:
            raise StateRagError(
                f"Process {self.global_rank} of this training read other embeddings of perturbations than process 0. "
                "Give all of them the same file (training.genept_path), on a disk that every node sees."
            )
        if state is not None and not first:
            self._set_anchor(state)

    def _set_anchor(self, state: Any) -> None:
        raise NotImplementedError

    def on_train_start(self) -> None:
        """Start other random numbers in each process; STATE seeds all alike."""
        super().on_train_start()
        if self.trainer.world_size > 1 and self.global_rank:
            torch.manual_seed(torch.initial_seed() + self.global_rank)

    @contextmanager
    def _training_together(self) -> Iterator[None]:
        """Have the retriever reckon over the batch of all processes during a training step."""
        if self.retriever is None or not Together.is_needed():
            yield
            return
        if self._together is None or self._together.world is not torch.distributed.group.WORLD:
            self._together = Together(timedelta(minutes=self.settings.rag_wait_minutes))
        self.retriever.together = self._together
        try:
            yield
        finally:
            self.retriever.together = None


def digest(knowledge: Knowledge | None) -> str:
    """Return a digest of names and embeddings."""
    if knowledge is None:
        return ""
    names = "\n".join((*knowledge.names, *knowledge.block_names, str(knowledge.n_candidates)))
    return hashlib.sha256(names.encode() + knowledge.values.detach().cpu().numpy().tobytes()).hexdigest()
