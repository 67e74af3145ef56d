"""Trainings of a tiny model in this process."""

import csv
from pathlib import Path

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import CSVLogger

from state_rag.model import RagStateTransition
from tests import tiny_model as tiny

LINES = ("k562", "rpe1", "hepg2")


def batch(seed: int, perturbations=("GENE0", "GENE3", "GENE5", tiny.CONTROL), first: int = 0) -> dict:
    """Sets of cells of several cell types."""
    made = tiny.batch(perturbations, seed=seed)
    made["cell_type"] = [LINES[(first + i) % 3] for i in range(len(perturbations)) for _ in range(tiny.CELLS)]
    return made


def loader(batches: list[dict]) -> torch.utils.data.DataLoader:
    return torch.utils.data.DataLoader(batches, batch_size=None)


def train(
    model: RagStateTransition,
    folder: Path | str | None,
    steps: int = 6,
    every: int = 2,
    accumulate: int = 1,
    checkpoint: Path | None = None,
    **more: object,
) -> pl.Trainer:
    """Train; every third step is followed by a validation with sets of one cell line only."""
    torch.manual_seed(0)
    trainer = pl.Trainer(
        max_steps=steps,
        accelerator="cpu",
        logger=[CSVLogger(folder, name="", version=0)] if folder else False,
        log_every_n_steps=every,
        check_val_every_n_epoch=None,
        val_check_interval=3 * accumulate,
        accumulate_grad_batches=accumulate,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        **more,  # type: ignore[arg-type]
    )
    batches = [batch(seed, first=seed) for seed in range(steps * accumulate)]
    validation = [batch(100, ("GENE1", "GENE2", "GENE4"))]
    for one in validation:
        if "cell_type" in one:
            one["cell_type"] = ["hepg2"] * len(one["cell_type"])
    trainer.fit(model, loader(batches), loader(validation), ckpt_path=checkpoint)
    return trainer


def metrics(folder: Path) -> list[dict[str, str]]:
    """Rows of the CSV logger's file, without empty cells."""
    with open(folder / "version_0" / "metrics.csv", newline="") as stream:
        return [{key: value for key, value in row.items() if value} for row in csv.DictReader(stream)]
