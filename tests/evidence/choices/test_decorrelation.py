import numpy as np
import torch

from state_rag.evidence.choices.decorrelation import Decorrelation


def test_decorrelation_is_the_inverse_root_of_the_shrunken_covariance():
    rng = np.random.default_rng(0)
    for shape in ((7, 30), (40, 12)):
        effects = torch.from_numpy(rng.normal(size=shape) @ rng.normal(size=(shape[1], shape[1])))
        look = Decorrelation.of(effects)
        centred = (effects - effects.mean(1, keepdim=True)).numpy()
        covariance = centred.T @ centred / len(centred)
        mean = np.trace(covariance) / np.linalg.matrix_rank(centred)
        sizes, vectors = np.linalg.eigh(covariance + mean * np.eye(shape[1]))
        root = vectors / np.sqrt(sizes) @ vectors.T
        found = (look.directions * (look.factors - look.rest)) @ look.directions.T + look.rest * torch.eye(shape[1])
        np.testing.assert_allclose(found.numpy(), root, atol=1e-8)
