"""Checkpoints of format 1: the keys they have, and the numbers that a model loaded from one gives."""

import pytest
import torch

from state_rag.checkpoint import CHECKPOINT_KEY
from state_rag.model import RagStateTransition
from tests import tiny_model as tiny

LINEAR = ("weight", "bias")
KEYS = {
    "vanilla": [f"attention.{layer}.{part}" for layer in ("project", "query", "key", "value") for part in LINEAR],
    "hidden": [f"hidden.attention.{layer}.{part}" for layer in ("query", "key", "value") for part in LINEAR],
    "differentiable": [
        "selector.score_std",
        "selector.score_batches",
        *(f"selector.{layer}.{part}" for layer in ("norm", "scorer_in", "scorer_out", "project") for part in LINEAR),
    ],
}
"""What format 1 calls the parameters and buffers of the part that retrieves, in the order of the state dict."""

NUMBERS = {
    "vanilla": ([0.702585, 0.526003, 0.769602], [0.0, 2.19817, 1.648186, 0.0, 0.0, 0.125922, 1.679179, 0.134377]),
    "hidden": ([0.407075, 0.526003, 0.556349], [0.313513, 1.371008, 0.692596, 0.0, 0.0, 0.147114, 0.553881, 0.0]),
    "differentiable": ([0.49798, 0.526003, 0.498965], [0.0, 1.436791, 1.416295, 0.0, 0.0, 0.0, 0.988368, 0.316991]),
}
"""Mean of each set and first genes of the first cell, as the version that introduced the format predicted them."""


def written(mode, path):
    """Write a checkpoint in format 1 with weights that are a function of their place alone."""
    model = tiny.build(mode, rag_weight=0.5 if mode == "hidden" else 0.0)
    state = {
        name: torch.sin(torch.arange(value.numel(), dtype=torch.float64) * 0.7 + place)
        .mul(0.4)
        .reshape(value.shape)
        .float()
        if value.is_floating_point() and value.numel() > 1
        else value
        for place, (name, value) in enumerate(model.state_dict().items())
    }
    content = {
        "format": 1,
        "settings": {**tiny.FLAGS[mode], "rag_weight": model.settings.rag_weight},
        "knowledge": tiny.knowledge().to_state(),
    }
    parameters = {**tiny.FLAGS[mode], **tiny.arguments(rag_weight=model.settings.rag_weight)}
    torch.save(
        {
            "state_dict": state,
            "hyper_parameters": parameters,
            "pytorch-lightning_version": "2.4.0",
            CHECKPOINT_KEY: content,
        },
        path,
    )


@pytest.mark.parametrize("mode", KEYS)
def test_the_keys_of_a_checkpoint_are_those_of_format_1(mode):
    retrieving = [
        key for key in tiny.build(mode).state_dict() if key.split(".")[0] in ("selector", "attention", "hidden")
    ]
    assert retrieving == KEYS[mode]


@pytest.mark.parametrize("mode", NUMBERS)
def test_a_checkpoint_of_format_1_gives_the_numbers_that_it_always_gave(mode, tmp_path):
    written(mode, tmp_path / "run.ckpt")
    model = RagStateTransition.load_from_checkpoint(tmp_path / "run.ckpt", weights_only=True).eval()
    with torch.no_grad():
        predicted = model(tiny.batch(["GENE0", tiny.CONTROL, "GENE3"])).view(3, tiny.CELLS, -1)
    means, genes = (torch.tensor(values) for values in NUMBERS[mode])
    torch.testing.assert_close(predicted.mean((1, 2)), means, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(predicted[0, 0, :8], genes, rtol=1e-5, atol=1e-5)
