"""Log retrieval while a model trains: scalars to every logger, pictures and tables to W&B.

Between two logging steps nothing is computed, and nothing that a step computes is waited for: scalars stay tensors
until Lightning writes them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from state_rag.tracking import media
from state_rag.tracking.gradients import norms_of_parts
from state_rag.tracking.observation import Observation, inclusion_by_rank, numbers
from state_rag.tracking.probe import Answer, Probe
from state_rag.tracking.watched import WatchedNeighbours

logger = logging.getLogger(__name__)

TRAIN, VALIDATION = "retrieval", "val_retrieval"


class RetrievalTracker(Callback):
    """Log what a `state_rag.tracking.probe.Tracked` model retrieves.

    At logging steps (Lightning's `log_every_n_steps`), under ``retrieval/``: the numbers of
    `state_rag.tracking.observation.numbers`, the temperature and, where there is one, the running scale of scores;
    under ``train/``: the gradient norms of selector and backbone and their ratio. After each validation, under
    ``val_retrieval/``: what would be retrieved for the validation perturbations in each cell type, how much that
    differs between cell types (`jaccard_mean`), and the neighbours of watched perturbations, which also go to
    ``watched_neighbours.csv`` beside the CSV logger's file.
    """

    def __init__(self) -> None:
        self.probe = Probe()
        self.watched = WatchedNeighbours()
        self._due = False
        self._step = 0
        self._seen: Observation | None = None
        self._warned = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go on with the table of watched perturbations that an interrupted run has written."""
        folder = trainer.log_dir  # asked for by every process: Lightning tells it to all of them
        if trainer.is_global_zero and pl_module.settings.rag_watch and folder:
            self.watched.continue_in(folder, before_step=trainer.global_step)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Ask the model to show what it retrieves, if this step will be logged, and to log nothing otherwise."""
        self._step = trainer.global_step
        self._due = bool(trainer.loggers) and (self._step + 1) % trainer.log_every_n_steps == 0
        self._seen = None
        pl_module.observer = self._observe if self._due else None
        pl_module.quiet = not self._due

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        """Compare the selector's gradient with the backbone's."""
        if self._due:
            pl_module.log_dict(norms_of_parts(pl_module.watched_modules))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log the numbers of the batch."""
        pl_module.observer = None
        seen, self._seen = self._seen, None
        if not self._due:
            return
        self.probe.see(pl_module, batch)
        if seen is None or seen.is_empty:
            return
        found: dict[str, Any] = dict(
            numbers(seen, _cell_types(pl_module, batch, seen), self.probe.cells, pl_module.knowledge.block_names)
        )
        found.update(pl_module.retriever.facts())
        pl_module.log_dict({f"{TRAIN}/{name}": value for name, value in found.items()})
        kind = "inclusion" if seen.scores is not None else "attention"
        self._send(trainer, lambda: {f"{TRAIN}/{kind}_by_rank": media.rank_histogram(inclusion_by_rank(seen))})

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the model as it was."""
        pl_module.quiet = False

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Remember which perturbations and cell types validation is made of."""
        if trainer.is_global_zero:
            self.probe.see_validation(pl_module, batch)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Ask about the validation perturbations and the watched ones in every cell type, and log the answer."""
        if trainer.sanity_checking or not trainer.is_global_zero or not trainer.loggers:
            return
        validated = self.probe.perturbations(pl_module)
        watch = [name for name in pl_module.settings.rag_watch if name in (pl_module.knowledge or ())]
        names = [*validated, *(name for name in watch if name not in validated)]
        with trainer.precision_plugin.forward_context(), _own_random_numbers(pl_module):
            answer = self.probe.ask(pl_module, names)
        if answer is None:
            return
        if validated:
            found = {f"{VALIDATION}/{name}": value for name, value in answer.scalars(validated).items()}
            pl_module.log_dict(found, batch_size=1, rank_zero_only=True)
        self.watched.add(answer, watch, self._step)
        self._send(trainer, lambda: self._media(answer, validated))

    def _media(self, answer: Answer, validated: list[str]) -> Mapping[str, Any]:
        shown: dict[str, Any] = {}
        if validated:
            shown["by_rank"] = media.rank_table(answer)
        if validated and len(answer.cell_types) > 1:
            indices, counts = answer.diversity(validated)
            shown["jaccard_heatmap"] = media.heat_map(indices, answer.cell_types)
            shown["jaccard"] = media.jaccard_table(indices, counts, answer.cell_types)
        if self.watched.rows:
            shown["watched"] = media.watched_table(self.watched.rows)
        return {f"{VALIDATION}/{name}": value for name, value in shown.items()}

    def _send(self, trainer: Trainer, make: Callable[[], Mapping[str, Any]]) -> None:
        """Log pictures and tables to W&B. For some of them W&B asks its server, and that must not stop a training."""
        try:
            for run in media.wandb_loggers(trainer):
                run.log_metrics(make(), step=self._step)
        except Exception as error:  # noqa: BLE001  W&B, the network and the server raise what they like
            if not self._warned:
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                logger.warning("Step %d: pictures and tables were not logged to W&B (%s).", self._step, reason)
            self._warned = True

    def _observe(self, observation: Observation) -> None:
        self._seen = observation


def _cell_types(model: Any, batch: Mapping[str, Any], seen: Observation) -> list[str]:
    """Return the cell type of each set that was retrieved for; empty names where the batch does not say."""
    if "cell_type" not in batch:
        return [""] * len(seen.places)
    all_types = list(map(str, batch["cell_type"][:: model.cell_sentence_len]))
    return [all_types[place] for place in seen.places]


def _own_random_numbers(module: LightningModule) -> Any:
    """Return a context in which draws leave the random numbers of training alone."""
    devices = [module.device] if module.device.type == "cuda" else []
    return torch.random.fork_rng(devices)
