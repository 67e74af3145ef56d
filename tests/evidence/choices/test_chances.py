import numpy as np
import pytest
import torch

from state_rag.evidence.choices.chances import chances


def test_chances_count_random_signs():
    rng = np.random.default_rng(0)
    profiles = torch.nn.functional.normalize(torch.from_numpy(rng.normal(size=(6, 3)))).float()
    target = torch.tensor([0.6, 0.48, 0.64])
    p, q = chances(profiles, target, draws=4000)
    every = np.array([[a, b, c] for a in (-1, 1) for b in (-1, 1) for c in (-1, 1)]) * target.numpy()
    scores, random = (profiles @ target).numpy(), profiles.numpy() @ every.T
    for place in range(6):
        assert p[place] == pytest.approx(np.mean(random.max(0) >= scores[place] - 1e-6), abs=0.03)
        rates = [
            (random >= s - 1e-6).sum(0).mean() / (scores >= s - 1e-6).sum() for s in scores if s <= scores[place] + 1e-6
        ]
        assert q[place] == pytest.approx(min(1, *rates), abs=0.06)
