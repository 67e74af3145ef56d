"""What a forward pass, a training step and a pass over cells cost by counts, which no machine changes."""

import pytest

from benchmarks import counts

HOW = "If it is worth that, accept it: python -m benchmarks.counts --write, and say why in the commit."


@pytest.fixture(scope="module")
def now():
    return counts.counts()


def test_no_count_grows(now):
    accepted = counts.expected()
    if counts.version() not in accepted:
        pytest.skip(f"counts.json knows torch {', '.join(accepted)}, this is {counts.version()}")
    grown = counts.grown(now, accepted[counts.version()])
    assert not grown, "\n".join([*grown, HOW])


@pytest.mark.parametrize("ours", ["ptrag", "ptrag-paper"])
@pytest.mark.parametrize(("what", "limit"), [("predict", 1.25), ("forward", 1.25), ("step", 1.3)])
def test_kernels_are_few_more_than_states(ours, what, limit, now):
    assert now[f"{ours}/{what}/kernels"] <= limit * now[f"state/{what}/kernels"]


def test_a_pass_over_cells_reads_each_of_them_once(now):
    assert 1 <= now["effects/bytes read"] < 1.05  # and the first ones for their scale


def test_sets_are_predicted_from_cells_and_controls_that_are_read_once(now):
    assert 1 < now["prediction/bytes read"] < 2


def test_what_has_grown_is_said_with_both_numbers():
    said = counts.grown({"a": 110, "b": 100.5, "c": 90, "new": 1}, {"a": 100, "b": 100, "c": 100})
    assert said == ["a has grown from 100 to 110 (+10.0 %)", "new is 1, and was not counted before"]


def test_views_and_what_the_host_does_are_no_kernels():
    import torch

    with counts.Operations() as seen:
        made = torch.ones(4, 4)
        made.T[0].add_(1)
        seen.on_host = True
        made * 2
    assert dict(seen.kernels) == {"ones": 1, "add_": 1}
    assert (seen.allocations, seen.bytes) == (1, 64)
