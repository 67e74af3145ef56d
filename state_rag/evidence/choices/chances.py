"""Whether a score is more than luck: how often random targets, as much of each programme in them, score as high."""

import numpy as np
import torch
from torch import Tensor

from state_rag.evidence.kriging import BLOCK

DRAWS = 1000
"""Random targets."""

BINS = 4000


def chances(profiles: Tensor, target: Tensor, draws: int = DRAWS, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return how often random targets score as high: p [N] of the best of all candidates, and q [N].

    A random target has what the target has along each coordinate, its sign drawn anew: so genes go together as they
    do in responses, and a target of noise is one of its own random targets. p is the share of draws (and the target)
    whose highest score is not below the candidate's, which holds for all candidates together (Westfall and Young
    1993); q the mean number of random scores not below it over the number of candidates not below it, its least value
    at any lower score (Storey and Tibshirani 2003).

    Parameters
    ----------
    profiles
        float32 [N, K]: of the candidates, of length 1 at most.
    target
        float32 [K], of length 1.
    draws, seed
        Random targets.
    """
    rng = np.random.default_rng(seed)
    signs = torch.from_numpy(rng.integers(0, 2, size=(len(target), draws)).astype(np.float32) * 2 - 1)
    signed = target[:, None] * signs
    highest = torch.full((draws,), -torch.inf)
    counts = torch.zeros(BINS)
    for part in profiles.split(4 * BLOCK):
        random = part @ signed
        highest = torch.maximum(highest, random.amax(0))
        counts += torch.histc(random, BINS, -1.0, 1.0)
    score = (profiles @ target).double().numpy()
    above = draws - np.searchsorted(np.sort(highest.double().numpy()), score - 1e-6)
    p = (1 + above) / (1 + draws)
    place = np.clip(((score + 1) / 2 * BINS).astype(int), 0, BINS - 1)
    expected = counts.double().flip(0).cumsum(0).flip(0).numpy()[place] / draws
    order = np.argsort(-score, kind="stable")
    rate = expected[order] / np.arange(1, len(score) + 1)
    q = np.empty(len(score))
    q[order] = np.minimum(np.minimum.accumulate(rate[::-1])[::-1], 1.0)
    return p, q
