"""The pretended device keeps to CUDA's rules, so that tests on it can fail."""

import pytest
import torch

from tests import pretend_gpu


def mix():
    return torch.ones(3, device="pretend") + torch.ones(3)


def index_with_the_cpu():
    return torch.ones(3, device="pretend")[torch.tensor([0, 2])].cpu().numpy()


def add_a_number():
    return (torch.ones(3, device="pretend") + torch.tensor(1.0)).cpu().numpy()


def read_as_numpy():
    return torch.ones(3, device="pretend").numpy()


def test_tensors_of_two_devices_do_not_mix_but_numbers_and_indices_may(on_pretend_gpu):
    with pytest.raises(RuntimeError, match="expected all tensors to be on the same device"):
        on_pretend_gpu(mix)
    with pytest.raises(RuntimeError):
        on_pretend_gpu(read_as_numpy)
    assert on_pretend_gpu(index_with_the_cpu).shape == (2,)
    assert on_pretend_gpu(add_a_number) == pytest.approx(2)


def count(action):
    values = torch.arange(4.0).to("pretend")
    index = torch.tensor([0, 2], device="pretend")
    with pretend_gpu.waits_counted() as waits:
        {
            "item": lambda: values.sum().item(),
            "bool": lambda: bool((values > 9).any()),
            "tolist": lambda: values.tolist(),
            "cpu": lambda: values.cpu(),
            "unique": lambda: values.unique(),
            "mask": lambda: values[values > 1],
            "nonzero": lambda: values.nonzero(),
            "list": lambda: torch.tensor([1, 2], device="pretend"),
            "compute": lambda: (values[index] * 2).softmax(0).sum(),
            "send": lambda: torch.tensor([1, 2]).to("pretend", non_blocking=True),
            "write": lambda: values.mul_(2)[1:].zero_(),
        }[action]()
    return len(waits)


@pytest.mark.parametrize("action", ["item", "bool", "tolist", "cpu", "unique", "mask", "nonzero", "list"])
def test_reading_a_value_waits(on_pretend_gpu, action):
    assert on_pretend_gpu(count, action) >= 1


@pytest.mark.parametrize("action", ["compute", "send", "write"])
def test_computing_does_not_wait(on_pretend_gpu, action):
    assert on_pretend_gpu(count, action) == 0


def sum_there():
    return float(torch.linspace(0, 1, 1000).to("pretend").sum())


def write_through_a_view():
    values = torch.eye(3).to("pretend")
    values.diagonal().fill_(7)
    return values.cpu().numpy()


def gradient_of_a_square():
    weight = torch.tensor([3.0], device="pretend", requires_grad=True)
    (weight * weight).sum().backward()
    return weight.grad.item()


def test_results_are_right_up_to_rounding(on_pretend_gpu):
    expected = float(torch.linspace(0, 1, 1000).sum())
    found = {on_pretend_gpu(sum_there) for _ in range(5)}
    assert len(found) > 1
    assert list(found) == pytest.approx([expected] * len(found), rel=1e-6)
    assert on_pretend_gpu(write_through_a_view).trace() == 21
    assert on_pretend_gpu(gradient_of_a_square) == pytest.approx(6)
