import numpy as np
import torch

from state_rag.evidence.fusion import Example, Fusion, correlations, effect_loss, judge, train_fusion
from state_rag.evidence.gene_features import ESTIMATES, FEATURES, GeneFeatures


def examples(count, truth_of, seed=0):
    generator = torch.Generator().manual_seed(seed)
    made = []
    for _ in range(count):
        estimates = torch.randn(len(ESTIMATES), 6, 30, generator=generator)
        features = torch.randn(len(FEATURES), 6, 30, generator=generator)
        made.append(Example(GeneFeatures(estimates, features), truth_of(estimates, features)))
    return made


def test_it_starts_as_kriging():
    (example,) = examples(1, lambda estimates, _: estimates[0])
    assert torch.equal(Fusion()(example.seen), example.seen.estimates[0])


def test_it_learns_what_kriging_cannot_say_and_the_judges_see_it():
    data = examples(30, lambda estimates, features: estimates[0] * (features[0] > 0))
    scores = judge(train_fusion(data[5:], seed=0, steps=150), data[:5])
    assert scores["fusion"] > scores["co-kriging"] + 0.05
    assert scores["co-kriging"] > scores["ridge"]


def test_the_same_seed_gives_the_same_network():
    data = examples(3, lambda estimates, _: estimates[0])
    first, again, other = (train_fusion(data, seed, steps=3).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_correlation_is_numpys_and_nothing_for_a_constant():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 4, 9))
    a[3] = 1.0
    expected = [np.corrcoef(a[row], b[row])[0, 1] for row in range(3)] + [0.0]
    np.testing.assert_allclose(correlations(torch.from_numpy(a), torch.from_numpy(b)), expected, atol=1e-9)


def test_the_loss_of_a_perfect_prediction_is_minus_one():
    truth = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    assert abs(float(effect_loss(truth, truth)) + 1) < 1e-6
