import pytest
import torch
from geomloss import SamplesLoss

from state_rag.metrics.sinkhorn import sinkhorn_divergence


def clouds(sizes, dimensions=7, seed=0, scale=3.0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(size, dimensions, generator=generator, dtype=torch.float64) * scale for size in sizes]


def padded(parts):
    out = torch.full((len(parts), max(map(len, parts)), parts[0].shape[1]), 1e3, dtype=torch.float64)
    for row, part in enumerate(parts):
        out[row, : len(part)] = part
    return out, torch.tensor([len(part) for part in parts])


@pytest.mark.parametrize("p", [1, 2])
def test_each_pair_of_a_mixed_batch_equals_geomloss_on_that_pair_alone(p):
    left, right = clouds([5, 30, 17, 2]), clouds([8, 30, 4, 40], seed=1, scale=5.0)
    right[3] = right[3] * 40
    (x, n), (y, m) = padded(left), padded(right)
    expected = [float(SamplesLoss("sinkhorn", p=p, blur=0.01)(a, b)) for a, b in zip(left, right, strict=True)]
    found = sinkhorn_divergence(x, y, n, m, p=p).tolist()
    assert found == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("p", [1, 2])
def test_a_cloud_has_no_distance_to_itself(p):
    x, n = padded(clouds([12, 6]))
    assert sinkhorn_divergence(x, x, n, n, p=p).abs().max() < 1e-9


def test_w1_scales_with_the_coordinates_and_w2_with_their_square():
    (x, n), (y, m) = padded(clouds([20])), padded(clouds([20], seed=4))
    for p, power in ((1, 1), (2, 2)):
        plain = sinkhorn_divergence(x, y, n, m, p=p, blur=0.01)
        scaled = sinkhorn_divergence(3 * x, 3 * y, n, m, p=p, blur=0.03)
        assert float(scaled / plain) == pytest.approx(3**power, rel=1e-4)


def test_a_pure_shift_costs_its_length_and_half_its_square():
    x, n = padded(clouds([15]))
    y = x + torch.tensor([3.0, 4.0, 0, 0, 0, 0, 0], dtype=torch.float64)
    assert float(sinkhorn_divergence(x, y, n, n, p=1)) == pytest.approx(5, rel=0.02)
    assert float(sinkhorn_divergence(x, y, n, n, p=2)) == pytest.approx(12.5, rel=0.02)


def test_other_powers_are_refused():
    x, n = padded(clouds([3]))
    with pytest.raises(ValueError, match="expected 1 or 2"):
        sinkhorn_divergence(x, x, n, n, p=3)
