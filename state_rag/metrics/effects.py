r"""Agreement of perturbation effects, rather than of the expression level that controls share.

An effect (delta) is a mean profile minus a reference profile. The reference is the cell line's real control mean
unless said otherwise; GGE's paper calls the correlation of such deltas the perturbation-effect correlation (eq. 1).
"""

import numpy as np

from state_rag.metrics.row_blocks import RowBlocks, row_blocks

DISCRIMINATION_BLOCK = 256


def direction_agreement(real_effect: np.ndarray, predicted_effect: np.ndarray, degs: np.ndarray) -> np.ndarray:
    """Return the share of differential genes whose predicted effect has the real sign.

    Parameters
    ----------
    real_effect, predicted_effect
        Deltas `[C, G]`.
    degs
        Boolean `[C, G]`.

    Returns
    -------
    numpy.ndarray
        `[C]` in [0, 1]; chance is 0.5. A predicted effect of exactly zero has no direction and counts as one half,
        so that "no effect" scores chance. NaN without differential genes, or with NaN or infinity in an effect.
    """
    signs = np.sign(real_effect) * np.sign(predicted_effect)
    count = degs.sum(axis=1)
    right = (np.where(degs, (signs + 1) / 2, 0.0)).sum(axis=1)
    value = np.divide(right, count, out=np.full(len(degs), np.nan), where=count > 0)
    value[~np.isfinite(real_effect + predicted_effect).all(axis=1)] = np.nan
    return value


def discrimination(real: RowBlocks, predicted: RowBlocks) -> np.ndarray:
    r"""Return how well each predicted profile singles out its own condition among all of the cell line.

    .. math:: s_i = 1 - \frac{\#\{j \ne i : d_{ij} < d_{ii}\} + \frac12 \#\{j \ne i : d_{ij} = d_{ii}\}}{C - 1},
        \quad d_{ij} = \sum_g |q_{ig} - r_{jg}|

    (the perturbation discrimination score of the Virtual Cell Challenge, Roohani et al. 2025, with L1 distances of
    mean profiles; no gene is left out).

    Parameters
    ----------
    real, predicted
        Mean profiles `[C, G]`, read in slices of rows.

    Returns
    -------
    numpy.ndarray
        `[C]`: 1 if the own condition is the nearest, 0.5 at chance, 0 if it is the farthest; NaN if it is the only
        condition or has NaN. Conditions with NaN are nobody's competitors.
    """
    import torch

    blocks = list(row_blocks(len(real), DISCRIMINATION_BLOCK))
    usable = np.concatenate([np.isfinite(real[b]).all(axis=1) & np.isfinite(predicted[b]).all(axis=1) for b in blocks])
    result = np.full(len(real), np.nan)
    if usable.sum() < 2:
        return result
    for mine in blocks:
        q, r = (_tensor(side, mine, usable) for side in (predicted, real))
        own = (q - r).abs().sum(dim=1, keepdim=True)
        # Identical profiles differ by rounding only; that much is a tie.
        near = own * 1e-12
        nearer, equal = torch.zeros(len(q)), -torch.ones(len(q))
        for theirs in blocks:
            distance = torch.cdist(q, _tensor(real, theirs, usable), p=1)
            nearer += (distance < own - near).sum(dim=1)
            equal += ((distance - own).abs() <= near).sum(dim=1)
        result[mine][usable[mine]] = (1 - (nearer + 0.5 * equal).double() / (usable.sum() - 1)).numpy()
    return result


def _tensor(profiles: RowBlocks, rows: slice, usable: np.ndarray):
    """Return the usable ones of some rows as a float64 tensor."""
    import torch

    return torch.from_numpy(profiles[rows][usable[rows]].astype(np.float64))
