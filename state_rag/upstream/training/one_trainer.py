"""Lightning's trainer, as several processes need it to come to what one would."""

import os
from datetime import timedelta
from typing import Any, ClassVar

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.plugins.environments import LightningEnvironment, SLURMEnvironment
from lightning.pytorch.strategies import DDPStrategy
from torch import distributed


class OneTrainer(Trainer):
    """A trainer whose processes log the mean over all of them, and pass over what the loss never reaches.

    Attributes
    ----------
    timeout
        How long a process waits for the others; None leaves the strategy that was asked for.
    nodes
        Nodes that the processes are spread over.
    """

    timeout: ClassVar[timedelta | None] = None
    nodes: ClassVar[int] = 1

    def __init__(self, **given: Any) -> None:
        given["num_nodes"] = type(self).nodes
        if type(self).timeout is not None:
            given["strategy"] = DDPStrategy(timeout=type(self).timeout)
        if SLURMEnvironment.detect() and os.environ.get("SLURM_NTASKS") == "1":
            # a job of one task, such as one of submitit: Lightning would wait for processes that Slurm does not start
            given["plugins"] = [*(given.get("plugins") or []), LightningEnvironment()]
        super().__init__(**given)

    def fit(self, model: LightningModule, *args: Any, **given: Any) -> None:  # type: ignore[override]
        """Train."""
        known = list(getattr(model, "_ddp_params_and_buffers_to_ignore", []))
        model._ddp_params_and_buffers_to_ignore = known + unreached(model, given.get("datamodule"))
        model.log = _log_together(model, self, model.log)
        try:
            super().fit(model, *args, **given)
        finally:
            del model.log


def unreached(model: LightningModule, data: Any) -> list[str]:
    """Return the parameters that no loss reaches: of STATE's decoder, where the data has no counts to decode to."""
    if getattr(data, "store_raw_expression", True) and getattr(data, "output_space", "") != "embedding":
        return []
    return [
        name for name, value in model.named_parameters() if name.startswith("gene_decoder.") and value.requires_grad
    ]


def _log_together(model: LightningModule, trainer: Trainer, log: Any) -> Any:
    """Return what takes the place of `model.log`: values of a step are means over all processes.

    All processes log the same names in a step. In training they are asked for at logging steps alone.
    """

    def log_mean(name: str, value: Any, *args: Any, **given: Any) -> None:
        where = model._current_fx_name
        is_logged = (trainer.global_step + 1) % trainer.log_every_n_steps == 0
        if where == "validation_step":
            given["sync_dist"] = True
        elif where == "training_step" and is_logged and trainer.world_size > 1:
            value = torch.as_tensor(value, device=model.device).detach().clone()
            distributed.all_reduce(value)
            value /= trainer.world_size
        log(name, value, *args, **given)

    return log_mean
