"""Gradients by module: which have vanished or are not finite, and how large they are beside each other."""

import logging
import math
from collections import defaultdict
from collections.abc import Mapping

import torch
from torch import nn
from torch.nn.utils import get_total_norm

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
        self._unreached: set[str] = set()

    def __call__(self, model: nn.Module, step: int) -> dict[str, float]:
        """Return ``gradients/MODULE`` norms, or nothing between two looks; warn about unhealthy modules.

        A module none of whose trainable parameters has a gradient takes no part in training: its norm is 0, which
        is warned about once. Frozen modules are left out.

        Parameters
        ----------
        model
            Module after the backward pass.
        step
            Number of the optimiser step.
        """
        if step % self.interval:
            return {}
        gradients: dict[str, list[torch.Tensor]] = defaultdict(list)
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                own = gradients[name.split(".")[0]]
                if parameter.grad is not None:
                    own.append(parameter.grad.float())
        found = {name: get_total_norm(own) for name, own in gradients.items() if own}
        # One transfer for all modules.
        values = torch.stack([norm.float() for norm in found.values()]).tolist() if found else []
        norms = dict.fromkeys(gradients, 0.0) | dict(zip(found, values, strict=True))
        for name, norm in norms.items():
            if name not in found:
                if name not in self._unreached:
                    logger.warning("Step %d: no gradient reaches %s.", step, name)
                self._unreached.add(name)
            elif not math.isfinite(norm):
                logger.warning("Step %d: the gradient of %s is not finite (norm %s).", step, name, norm)
            elif norm < VANISHING:
                logger.warning("Step %d: the gradient of %s has vanished (norm %.1e).", step, name, norm)
        return {f"gradients/{name}": norm for name, norm in norms.items()}


def norms_of_parts(parts: Mapping[str, nn.Module]) -> dict[str, torch.Tensor]:
    """Return ``train/gradient_norm_NAME`` of each part that has a gradient, and `train/gradient_norm_ratio`.

    Parameters
    ----------
    parts
        `selector` and `backbone`; the ratio is the first's norm over the second's, where both have gradients.
    """
    norms = {}
    for name, module in parts.items():
        gradients = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
        if gradients:
            norms[name] = get_total_norm([gradient.float() for gradient in gradients])
    found = {f"train/gradient_norm_{name}": norm for name, norm in norms.items()}
    if {"selector", "backbone"} <= set(norms):
        found["train/gradient_norm_ratio"] = norms["selector"] / norms["backbone"]
    return found
