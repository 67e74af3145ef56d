import itertools

import numpy as np
import pytest
import torch
from geomloss import SamplesLoss
from gge.metrics import MultivariateMMD

from state_rag.metrics import distances
from tests.metrics.test_sinkhorn import clouds, padded

ALL = [
    distances.energy_distance,
    distances.wasserstein_1,
    distances.wasserstein_2,
    distances.maximum_mean_discrepancy,
]


def energy_by_double_loop(x, y):
    def mean(a, b):
        return sum(float((i - j).norm()) for i, j in itertools.product(a, b)) / (len(a) * len(b))

    return mean(x, y) - mean(x, x) / 2 - mean(y, y) / 2


def test_energy_equals_a_double_loop_and_geomloss_in_a_padded_batch():
    left, right = clouds([9, 4, 14]), clouds([5, 11, 14], seed=2, scale=2.0)
    (x, n), (y, m) = padded(left), padded(right)
    found = distances.energy_distance(x, y, n, m).tolist()
    assert found == pytest.approx([energy_by_double_loop(a, b) for a, b in zip(left, right, strict=True)])
    losses = [float(SamplesLoss("energy")(a, b)) for a, b in zip(left, right, strict=True)]
    # GeomLoss smooths its square root at zero distance.
    assert found == pytest.approx(losses, rel=1e-4)


def test_mmd_equals_gges_multivariate_mmd_on_each_condition():
    left, right = clouds([9, 6]), clouds([12, 7], seed=2, scale=1.0)
    (x, n), (y, m) = padded(left), padded(right)
    expected = [
        MultivariateMMD().compute(a.numpy(), b.numpy()).aggregate_value for a, b in zip(left, right, strict=True)
    ]
    assert distances.maximum_mean_discrepancy(x, y, n, m).tolist() == pytest.approx(expected)


def test_mmd_needs_two_cells_on_each_side():
    (x, n), (y, m) = padded(clouds([1])), padded(clouds([5]))
    assert torch.isnan(distances.maximum_mean_discrepancy(x, y, n, m)).all()


@pytest.mark.parametrize("distance", ALL)
def test_a_cloud_has_no_distance_to_itself_and_order_does_not_matter(distance):
    (x, n), (y, m) = padded(clouds([12])), padded(clouds([10], seed=8))
    assert float(distance(x, x, n, n)) == pytest.approx(0, abs=1e-7)
    order = torch.from_numpy(np.random.default_rng(0).permutation(12))
    assert float(distance(x[:, order], y, n, m)) == pytest.approx(float(distance(x, y, n, m)), rel=1e-9)


def test_energy_scales_with_the_coordinates():
    (x, n), (y, m) = padded(clouds([8])), padded(clouds([8], seed=3))
    ratio = distances.energy_distance(2.5 * x, 2.5 * y, n, m) / distances.energy_distance(x, y, n, m)
    assert float(ratio) == pytest.approx(2.5)


def on(device, distance):
    (x, n), (y, m) = padded(clouds([30, 60], dimensions=50)), padded(clouds([40, 60], dimensions=50, seed=1))
    return distance(*(part.to(device) for part in (x, y, n, m))).cpu().numpy()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize("distance", ALL)
def test_a_gpu_gives_the_same_numbers(distance):
    np.testing.assert_allclose(on("cuda", distance), on("cpu", distance), rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("distance", ALL)
def test_another_device_gives_the_same_numbers(on_pretend_gpu, distance):
    there = on_pretend_gpu(on, "pretend", distance)
    assert not np.array_equal(there, on("cpu", distance))  # it does round otherwise
    np.testing.assert_allclose(there, on("cpu", distance), rtol=1e-4, atol=1e-8)
