"""Cost of logging retrieval at Lightning's default frequency, every 50th step, to the CSV and an offline W&B logger.

One Trainer trains PT-RAG; blocks of 50 steps with our logging and without it take turns, so that both sides are
measured in this run. "Without" still has STATE's own losses logged. Printed are the ratio of process times (all
threads, W&B's included) and, since that ratio is as noisy as the machine, the share of the time that was
spent inside our logging. The model is small: a larger one takes longer for a step and no longer for logging it.

    python benchmarks/logging_cost.py [--blocks 24] [--validations 4]
"""

import argparse
import contextlib
import io
import logging
import os
import platform
import statistics
import tempfile
import time
import warnings
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import CSVLogger, WandbLogger

from state_rag.model import RagStateTransition
from state_rag.retrieval.knowledge import Knowledge
from state_rag.tracking.callback import RetrievalTracker

EVERY = 50
NAMES = [f"GENE{number}" for number in range(2009)]
WIDTH, GENES, SETS, CELLS, K, HIDDEN = 1536, 2000, 8, 32, 32, 64
LINES = ("k562", "rpe1", "jurkat", "hepg2")
MODEL = {
    "input_dim": GENES,
    "hidden_dim": HIDDEN,
    "output_dim": GENES,
    "gene_dim": GENES,
    "pert_dim": WIDTH,
    "output_space": "gene",
    "embed_key": "X_hvg",
    "cell_set_len": CELLS,
    "n_encoder_layers": 1,
    "n_decoder_layers": 1,
    "control_pert": "non-targeting",
    "gene_decoder_bool": False,
    "transformer_backbone_key": "llama",
    "transformer_backbone_kwargs": {
        "bidirectional_attention": False,
        "max_position_embeddings": CELLS,
        "hidden_size": HIDDEN,
        "intermediate_size": 4 * HIDDEN,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "head_dim": HIDDEN // 4,
        "use_cache": False,
    },
}
FLAGS = {
    "rag": True,
    "use_genept": True,
    "differentiable_rag": True,
    "retrieve_than_predict": True,
    "gumbel_sparsity_loss": True,
    "topk_rag": K,
    "rag_watch": NAMES[:4],
}


class Alternating(RetrievalTracker):
    """Logs in every second block, and times each block and itself."""

    def __init__(self) -> None:
        super().__init__()
        self.logs = False
        self.blocks: dict[bool, list[float]] = {False: [], True: []}
        self.inside = 0.0
        self._started = 0.0

    def on_train_batch_start(self, trainer: Any, model: Any, batch: Any, index: int) -> None:
        """Open a block at its first step."""
        if trainer.global_step % EVERY == 0:
            self.logs = (trainer.global_step // EVERY) % 2 == 1
            model.quiet = not self.logs
            self._started = time.process_time()
        if self.logs:
            with self._timed():
                super().on_train_batch_start(trainer, model, batch, index)

    def on_before_optimizer_step(self, trainer: Any, model: Any, optimizer: Any) -> None:
        """Look at gradients."""
        if self.logs:
            with self._timed():
                super().on_before_optimizer_step(trainer, model, optimizer)

    def on_train_batch_end(self, trainer: Any, model: Any, outputs: Any, batch: Any, index: int) -> None:
        """Log."""
        if self.logs:
            with self._timed():
                super().on_train_batch_end(trainer, model, outputs, batch, index)

    @contextlib.contextmanager
    def _timed(self):
        start = time.process_time()
        yield
        self.inside += time.process_time() - start


class Clock(pl.Callback):
    """Closes a block when its last step, and what the loggers wrote for it, is over."""

    def __init__(self, tracker: Alternating) -> None:
        self.tracker = tracker

    def on_train_batch_start(self, trainer: Any, model: Any, batch: Any, index: int) -> None:
        """Close the last block."""
        step = trainer.global_step
        if step and step % EVERY == 0:
            self.tracker.blocks[self.tracker.logs].append(time.process_time() - self.tracker._started)


def build() -> tuple[RagStateTransition, Alternating]:
    """Return a model whose own logging can be switched, and its tracker."""
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(len(NAMES), WIDTH, generator=generator)
    tracker = Alternating()

    class Switched(RagStateTransition.bound_to(Knowledge(NAMES, {"text": embeddings}))):  # type: ignore[misc]
        def configure_callbacks(self) -> list[Any]:
            return [Clock(tracker), tracker]

    with contextlib.redirect_stdout(io.StringIO()):
        return Switched(**MODEL, **FLAGS), tracker


def batches(count: int) -> list[dict[str, Any]]:
    """Return batches of sets of all lines."""
    generator = torch.Generator().manual_seed(1)
    made = []
    for _ in range(count):
        rows = torch.randint(len(NAMES), (SETS,), generator=generator).tolist()
        cells = torch.rand(2, SETS * CELLS, GENES, generator=generator)
        made.append(
            {
                "pert_name": [NAMES[row] for row in rows for _ in range(CELLS)],
                "cell_type": [LINES[i % 4] for i in range(SETS) for _ in range(CELLS)],
                "pert_emb": torch.zeros(SETS * CELLS, 1),
                "ctrl_cell_emb": cells[0],
                "pert_cell_emb": cells[1],
                "batch": torch.zeros(SETS * CELLS, dtype=torch.long),
            }
        )
    return made


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=24, help="blocks of 50 steps, half of them logged")
    parser.add_argument("--validations", type=int, default=4, help="times that the log of a validation is taken")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    os.environ.setdefault("WANDB_MODE", "offline")
    os.environ.setdefault("WANDB_SILENT", "true")
    model, tracker = build()
    data = batches(16)
    with tempfile.TemporaryDirectory() as folder:
        loggers = [CSVLogger(folder, name="csv"), WandbLogger(save_dir=folder, project="logging-cost")]
        trainer = pl.Trainer(
            max_steps=(args.blocks + 2) * EVERY + 1,
            accelerator="cpu",
            logger=loggers,
            log_every_n_steps=EVERY,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        endless = [data[step % len(data)] for step in range((args.blocks + 2) * EVERY + 1)]
        trainer.fit(model, torch.utils.data.DataLoader(endless, batch_size=None))  # type: ignore[arg-type]
        validation = time_validation(model, trainer, tracker, data, args.validations)
        loggers[1].experiment.finish()
    # The first block of each side warms up. Each logged block is compared with the two around it.
    off, on = tracker.blocks[False][1:], tracker.blocks[True]
    ratios = [2 * one / (before + after) for one, before, after in zip(on[1:], off, off[1:], strict=False)]
    medians = statistics.median(off), statistics.median(on[1:])
    share = tracker.inside / len(tracker.blocks[True]) / medians[0]
    machine = f"{platform.machine()} CPU, {torch.get_num_threads()} threads"
    print(f"torch {torch.__version__}, {machine}; {SETS} sets of {CELLS}, base {len(NAMES)} x {WIDTH}, K={K}")
    print(
        f"{EVERY} steps      without {medians[0]:.3f} s   with {medians[1]:.3f} s   "
        f"ratio {statistics.median(ratios):.4f} (median of {len(ratios)} blocks against their neighbours)"
    )
    print(f"inside our logging: {share:.2%} of the time of {EVERY} steps")
    default = 2000 / EVERY * medians[0]
    print(
        f"after a validation: {validation:.3f} s, {validation / default:.2%} of the time of 2000 steps, "
        "STATE's default between two"
    )


def time_validation(model: RagStateTransition, trainer: Any, tracker: Alternating, data: list, count: int) -> float:
    """Return the median process time of what is logged after a validation, with as much of it as there can be."""
    tracker.probe.validated = set(NAMES[:64])
    for one in data:
        tracker.probe.see(model, one)
    model.eval()
    model.log_dict = lambda *_, **__: None  # type: ignore[method-assign]
    seconds = []
    for _ in range(count):
        start = time.process_time()
        tracker.on_validation_epoch_end(trainer, model)
        seconds.append(time.process_time() - start)
    return statistics.median(seconds)


if __name__ == "__main__":
    main()
