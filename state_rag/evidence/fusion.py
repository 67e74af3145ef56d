"""Fusion: a correction of the kriging mean gene by gene.

Kriging has one set of weights for all genes. A small network sees, for one gene of one query, several estimates and
how reliable they are (`gene_features`), and returns a mix of the estimates plus a correction. It is trained on
episodes, and kept only where episodes that it was not trained on say that it wins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from state_rag.evidence.gene_features import ESTIMATES, FEATURES, GeneFeatures


@dataclass(frozen=True)
class Example:
    """An episode as fusion sees it.

    Attributes
    ----------
    seen
        Estimates and features.
    truth
        float32 [Q, G].
    context
        Number of the context asked about.
    queries
        Numbers of the perturbations asked about, long [Q]; None where nobody has to know.
    """

    seen: GeneFeatures
    truth: Tensor
    context: int = 0
    queries: Tensor | None = None


class Fusion(nn.Module):
    """Mix of estimates plus a network of one gene's features.

    Parameters
    ----------
    width
        Of the two hidden layers.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        n_inputs = len(ESTIMATES) + len(FEATURES)
        mix = torch.zeros(len(ESTIMATES))
        mix[0] = 1.0
        self.mix = nn.Parameter(mix)
        self.network = nn.Sequential(
            nn.Linear(n_inputs, width), nn.GELU(), nn.Linear(width, width), nn.GELU(), nn.Linear(width, 1)
        )
        # the correction starts from nothing
        nn.init.zeros_(self.network[-1].weight)
        nn.init.zeros_(self.network[-1].bias)
        self.register_buffer("deviation", torch.ones(n_inputs))

    def forward(self, seen: GeneFeatures) -> Tensor:
        """Return the prediction [Q, G]."""
        inputs = torch.cat([seen.estimates, seen.features]) / self.get_buffer("deviation")[:, None, None]
        mixed = torch.einsum("e,eqg->qg", self.mix, seen.estimates)
        return mixed + self.network(inputs.permute(1, 2, 0)).squeeze(-1)


def effect_loss(predicted: Tensor, truth: Tensor) -> Tensor:
    """Return mean squared error over mean square of the truth, minus the mean Pearson correlation over genes.

    Parameters
    ----------
    predicted, truth
        [Q, G].
    """
    error = (predicted - truth).square().mean() / truth.square().mean().clamp_min(1e-20)
    return error - correlations(predicted, truth).mean()


def correlations(predicted: Tensor, truth: Tensor) -> Tensor:
    """Return the Pearson correlation over genes of each row [Q]; 0 where a row is constant."""
    a = predicted - predicted.mean(1, keepdim=True)
    b = truth - truth.mean(1, keepdim=True)
    return (a * b).sum(1) / ((a * a).sum(1) * (b * b).sum(1)).clamp_min(1e-20).sqrt()


def train_fusion(
    examples: Sequence[Example], seed: int, steps: int = 800, rate: float = 3e-3, queries: int = 16
) -> Fusion:
    """Return a fusion trained on examples.

    Parameters
    ----------
    examples
        Episodes.
    seed
        Of the network's start and the order of examples.
    steps, rate
        Of Adam; the rate falls to nothing along a half cosine.
    queries
        Queries of a step.
    """
    # layers draw from torch's global stream, which belongs to the caller
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fusion = Fusion()
    fusion.get_buffer("deviation").copy_(_deviation(examples))
    optimiser = torch.optim.Adam(fusion.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        example = examples[int(rng.integers(len(examples)))]
        some = torch.from_numpy(np.sort(rng.permutation(len(example.truth))[:queries]))
        seen = GeneFeatures(example.seen.estimates[:, some], example.seen.features[:, some])
        optimiser.zero_grad()
        effect_loss(fusion(seen), example.truth[some]).backward()
        optimiser.step()
        schedule.step()
    return fusion.requires_grad_(False)


def judge(fusion: Fusion, examples: Sequence[Example]) -> dict[str, float]:
    """Return the mean correlation over examples of the fusion (`fusion`) and of each estimate."""
    with torch.no_grad():
        scores = {"fusion": _score([fusion(example.seen) for example in examples], examples)}
        for number, name in enumerate(ESTIMATES):
            scores[name] = _score([example.seen.estimates[number] for example in examples], examples)
    return scores


def _score(predicted: Sequence[Tensor], examples: Sequence[Example]) -> float:
    rows = [correlations(p, example.truth) for p, example in zip(predicted, examples, strict=True)]
    return float(torch.cat(rows).mean())


def _deviation(examples: Sequence[Example]) -> Tensor:
    columns = [torch.cat([e.seen.estimates, e.seen.features]).flatten(1) for e in examples]
    count = sum(column.shape[1] for column in columns)
    square = sum(
        (column.double().square().sum(1) for column in columns), torch.zeros(len(columns[0]), dtype=torch.float64)
    )
    deviation = (square / count).sqrt()
    return torch.where(deviation > 0, deviation, torch.ones_like(deviation)).float()
