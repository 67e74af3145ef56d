"""What a model retrieved in one pass, and the numbers that a reader of a run wants of it. Pure torch."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from state_rag.retrieval.trace import SELECTED_ABOVE

MAX_CELL_TYPES = 32
"""Cell types that get a series of their own."""


@dataclass(frozen=True)
class Observation:
    """The retrieval of R sets of S cells with K candidates each, without gradient, on the model's device.

    Attributes
    ----------
    queries
        Perturbation of each set, R names.
    places
        Position of each set in its batch, R numbers; a batch's controls are not retrieved for.
    rows
        Candidates as rows of the knowledge, most similar first; on the CPU where they were looked up there. [R, K]
    weights
        Weight of each candidate for each cell: inclusion, its probability, or attention. [R, S, K]
    scores
        The selector's scaled logits (exclude, include) [R, S, K, 2]; None in the attention modes.
    proposed
        Which of M sources of knowledge proposes each candidate, bool [R, K, M]; None with a single one.
    """

    queries: Sequence[str]
    places: Sequence[int]
    rows: Tensor
    weights: Tensor
    scores: Tensor | None
    proposed: Tensor | None = None

    @property
    def is_empty(self) -> bool:
        """Whether nothing was retrieved, as in a batch of controls."""
        return not self.weights.numel()


def rank_bands(k: int) -> dict[str, slice]:
    """Return bands of candidate ranks that double in width, so that their number grows with log K.

    Examples
    --------
    >>> list(rank_bands(20))
    ['rank_01', 'rank_02', 'rank_03-04', 'rank_05-08', 'rank_09-16', 'rank_17-20']
    """
    digits = max(2, len(str(k)))
    bands, first = {}, 1
    while first <= k:
        last = min(1 if first == 1 else 2 * (first - 1), k)
        name = f"rank_{first:0{digits}d}" if first == last else f"rank_{first:0{digits}d}-{last:0{digits}d}"
        bands[name] = slice(first - 1, last)
        first = last + 1
    return bands


def numbers(
    observation: Observation, cell_types: Sequence[str], shown: Collection[str], sources: Sequence[str] = ()
) -> dict[str, Tensor]:
    """Return the scalars of one batch, by name; nothing is read back from the device.

    With the selector: `n_selected` (mean over cells of the number of candidates with a weight above one half), the
    same by cell type as ``n_selected_by_cell_type/NAME``, ``inclusion/BAND`` (mean weight by rank), and mean and
    standard deviation of the score, which is the logit of inclusion less that of exclusion. With attention:
    `attention_entropy` in nats (log K when all candidates count alike), the same by cell type, `attention_max`, and
    ``attention/BAND``.

    Parameters
    ----------
    observation
        One that is not empty.
    cell_types
        Cell type of each set, R names.
    shown
        Cell types that have a series of their own.
    sources
        Names of the sources of knowledge: of several, ``inclusion_by_source/NAME`` is the mean weight of those that a
        source proposes (attention: ``attention_by_source/NAME``).
    """
    weights = observation.weights.float()
    found: dict[str, Tensor] = {}
    if observation.scores is not None:
        per_set = (weights > SELECTED_ABOVE).sum(-1, dtype=torch.float32).mean(-1)
        main, share = "n_selected", "inclusion"
        difference = (observation.scores[..., 1] - observation.scores[..., 0]).float()
        found["score_mean"], found["score_std"] = difference.mean(), difference.std()
    else:
        per_set = torch.special.entr(weights).sum(-1).mean(-1)
        main, share = "attention_entropy", "attention"
        found["attention_max"] = weights.amax(-1).mean()
    found[main] = per_set.mean()
    found.update({f"{main}_by_cell_type/{name}": mean for name, mean in _by_group(per_set, cell_types, shown).items()})
    by_rank = inclusion_by_rank(observation)
    found.update({f"{share}/{name}": by_rank[band].mean() for name, band in rank_bands(weights.shape[-1]).items()})
    if observation.proposed is not None:
        by = observation.proposed.to(weights)
        total = (weights.mean(1).unsqueeze(-1) * by).sum((0, 1)) / by.sum((0, 1)).clamp_min(1)
        found.update({f"{share}_by_source/{name}": mean for name, mean in zip(sources, total, strict=True)})
    return found


def inclusion_by_rank(observation: Observation) -> Tensor:
    """Return the mean weight of the candidates of each rank, [K]."""
    return observation.weights.float().mean((0, 1))


def _by_group(values: Tensor, groups: Sequence[str], shown: Collection[str]) -> dict[str, Tensor]:
    """Return the mean of `values` [R] in each group that is shown."""
    names = sorted(set(groups) & set(shown))
    number = {name: place for place, name in enumerate(names)}
    kept = [place for place, group in enumerate(groups) if group in number]
    index = torch.tensor([number[groups[place]] for place in kept], dtype=torch.long, device=values.device)
    chosen = values[kept] if len(kept) < len(groups) else values
    # Not `bincount`, which waits for the device to learn how many there are.
    sums, counts = (values.new_zeros(len(names)).index_add_(0, index, one) for one in (chosen, torch.ones_like(chosen)))
    return dict(zip(names, (sums / counts).unbind(), strict=True))


def jaccard(weights: Tensor, *, selects: bool) -> tuple[Tensor, Tensor]:
    r"""Return the mean Jaccard index between cell types, and over how many perturbations each mean is taken.

    .. math:: J(a, b) = \sum_k \min(a_k, b_k) / \sum_k \max(a_k, b_k)

    For sets, written as weights of 0 and 1, this is :math:`|A \cap B| / |A \cup B|` (PT-RAG, section 5); for
    attention, whose weights select nobody, it is the weighted index. Two empty sets have none and are left out.

    Parameters
    ----------
    weights
        Mean weight over cells, for L cell types, N perturbations and their K candidates. [L, N, K]
    selects
        Whether a candidate is selected, when its weight is above one half, or only weighted.

    Returns
    -------
    tuple of torch.Tensor
        [L, L] with NaN where no perturbation has an index, and counts [L, L].
    """
    values = (weights > SELECTED_ABOVE).float() if selects else weights.float()
    count = len(values)
    mean = values.new_full((count, count), math.nan)
    used = torch.zeros(count, count, dtype=torch.long)
    for first in range(count):
        for second in range(first, count):
            shared = torch.minimum(values[first], values[second]).sum(-1)
            either = torch.maximum(values[first], values[second]).sum(-1)
            index = (shared / either)[either > 0]
            used[first, second] = used[second, first] = len(index)
            if len(index):
                mean[first, second] = mean[second, first] = index.mean()
    return mean, used
