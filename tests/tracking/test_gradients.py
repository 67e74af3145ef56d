import logging
import math

import pytest
import torch
from torch import nn

from state_rag.tracking.gradients import VANISHING, GradientCheck, norms_of_parts


def model_with(**gradients):
    """A model with a two-layer module of each name, all of whose gradients have the given value."""
    model = nn.ModuleDict({name: nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2)) for name in gradients})
    for name, value in gradients.items():
        for parameter in model[name].parameters():
            parameter.grad = None if value is None else torch.full_like(parameter, value)
    return model


def test_the_norm_of_a_module_is_over_all_of_its_parameters():
    model = model_with(encoder=0.5, decoder=2.0)
    norms = GradientCheck(1)(model, 0)
    assert set(norms) == {"gradients/encoder", "gradients/decoder"}
    for name, norm in norms.items():
        parameters = model[name.split("/")[1]].parameters()
        expected = sum(value**2 for parameter in parameters for value in parameter.grad.flatten().tolist()) ** 0.5
        assert float(norm) == pytest.approx(expected)


def test_between_two_looks_nothing_is_reported():
    check, model = GradientCheck(3), model_with(encoder=1.0)
    assert [bool(check(model, step)) for step in range(7)] == [True, False, False, True, False, False, True]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_gradient_that_is_not_finite_is_warned_about_by_module_and_step(caplog, value):
    with caplog.at_level(logging.WARNING):
        GradientCheck(1)(model_with(encoder=1.0, decoder=value), 12)
    (record,) = caplog.records
    assert "Step 12: the gradient of decoder is not finite" in record.getMessage()


def test_a_vanished_gradient_is_warned_about(caplog):
    with caplog.at_level(logging.WARNING):
        norms = GradientCheck(1)(model_with(encoder=VANISHING / 100, decoder=1.0), 5)
    (record,) = caplog.records
    assert "Step 5: the gradient of encoder has vanished" in record.getMessage()
    assert set(norms) == {"gradients/encoder", "gradients/decoder"}


def test_healthy_gradients_are_not_warned_about(caplog):
    with caplog.at_level(logging.WARNING):
        GradientCheck(1)(model_with(encoder=1e-6, decoder=1e6), 0)
    assert not caplog.records


def test_a_module_that_no_gradient_reaches_has_norm_zero_and_is_warned_about_once(caplog):
    check, model = GradientCheck(1), model_with(cut_off=None, trained=1.0)
    with caplog.at_level(logging.WARNING):
        norms = [check(model, step)["gradients/cut_off"] for step in (3, 4)]
    assert norms == [0.0, 0.0]
    assert [record.getMessage() for record in caplog.records] == ["Step 3: no gradient reaches cut_off."]


def test_frozen_modules_are_left_out(caplog):
    model = model_with(frozen=None, trained=1.0)
    model["frozen"].requires_grad_(False)
    assert set(GradientCheck(1)(model, 0)) == {"gradients/trained"}
    assert not caplog.records


def test_the_selectors_gradient_is_put_beside_the_backbones():
    parts = model_with(selector=2.0, backbone=0.5)
    found = norms_of_parts(dict(parts.items()))
    assert float(found["train/gradient_norm_ratio"]) == pytest.approx(4.0)
    size = sum(parameter.numel() for parameter in parts["selector"].parameters())
    assert float(found["train/gradient_norm_selector"]) == pytest.approx(2 * size**0.5)


def test_a_frozen_backbone_has_no_norm_and_no_ratio():
    found = norms_of_parts(dict(model_with(selector=1.0, backbone=None).items()))
    assert set(found) == {"train/gradient_norm_selector"}


def test_half_precision_gradients_do_not_overflow_in_the_square():
    model = model_with(encoder=1.0).to(torch.float16)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 1000.0)
    assert math.isfinite(GradientCheck(1)(model, 0)["gradients/encoder"])


def test_gradients_are_not_changed_by_looking():
    model = model_with(encoder=0.25)
    GradientCheck(1)(model, 0)
    assert all((parameter.grad == 0.25).all() for parameter in model.parameters())
