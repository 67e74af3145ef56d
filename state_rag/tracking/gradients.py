"""Vanishing and non-finite gradients, by module, with a warning that names the module."""

import logging
from collections import defaultdict

import torch
from torch import nn

logger = logging.getLogger(__name__)

VANISHING = 1e-8
"""Norm below which a module's gradient counts as vanished."""


class GradientCheck:
    """Look at the gradients of each top-level module every `interval` steps.

    Parameters
    ----------
    interval
        Steps between two looks.
    """

    def __init__(self, interval: int) -> None:
        self.interval = interval

    def __call__(self, model: nn.Module, step: int) -> dict[str, torch.Tensor]:
        """Return ``gradients/MODULE`` norms, or nothing between two looks; warn about unhealthy modules.

        Parameters
        ----------
        model
            Module after the backward pass.
        step
            Number of the optimiser step.
        """
        if step % self.interval:
            return {}
        squares: dict[str, list[torch.Tensor]] = defaultdict(list)
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                squares[name.split(".")[0]].append(parameter.grad.float().square().sum())
        norms = {name: torch.stack(parts).sum().sqrt() for name, parts in squares.items()}
        for name, norm in norms.items():
            if not torch.isfinite(norm):
                logger.warning("Step %d: the gradient of %s is not finite (norm %s).", step, name, norm.item())
            elif norm < VANISHING:
                logger.warning("Step %d: the gradient of %s has vanished (norm %.1e).", step, name, norm.item())
        return {f"gradients/{name}": norm for name, norm in norms.items()}
