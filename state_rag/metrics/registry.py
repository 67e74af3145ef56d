"""Every metric as data: name, label, direction, what computes it, and what it means to a reader."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from state_rag.errors import StateRagError
from state_rag.metrics import distances, effects, profile
from state_rag.metrics.inputs import Profiles
from state_rag.metrics.rounding import difference
from state_rag.names import suggest


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes
    ----------
    name
        Column name in every table.
    label
        What a reader sees.
    higher_is_better
        Direction.
    on
        `profiles`: `compute(Profiles) -> [C]`. `cells`: `compute(x, y, n, m) -> [B]` on cells in PCA space.
        `raw`: `compute(RawCells) -> float` on one condition's cells (metrics that come from GGE).
    space
        Where it is computed: `genes`, `degs` (fitted per condition) or `pca` (fitted once per cell line).
    compute
        The function.
    in_paper
        Whether Table 1 of the paper reports it.
    compares_conditions
        Whether a condition's value depends on the other conditions of its cell line.
    meaning
        One sentence for a reader.
    formula
        Plain text; `glossary.SYMBOLS` says what the letters stand for.
    values
        Smallest and largest value, unit, and what a predictor without knowledge gets.
    source
        Where the definition comes from.
    """

    name: str
    label: str
    higher_is_better: bool
    on: Literal["profiles", "cells", "raw"]
    space: Literal["genes", "degs", "pca"]
    compute: Callable
    in_paper: bool = False
    compares_conditions: bool = False
    meaning: str = ""
    formula: str = ""
    values: str = ""
    source: str = ""


def _deltas(inputs: Profiles, reference: str = "control") -> tuple[np.ndarray, np.ndarray]:
    """Return real and predicted effects.

    `control`: both against the real control mean. `own`: the prediction against the model's own control, which
    cancels an error it makes everywhere. `centre`: both against the mean over perturbations, which leaves what is
    specific to each (Systema; Vinas Torne et al. 2025).
    """
    base = inputs.centre if reference == "centre" else inputs.control
    predicted_base = inputs.own_control if reference == "own" else base
    return difference(inputs.real, base, ROUNDING), difference(inputs.predicted, predicted_base, ROUNDING)


def _mse_pca(inputs: Profiles) -> np.ndarray:
    if inputs.space is None:
        return np.full(len(inputs.real), np.nan)
    return profile.mean_squared_error(inputs.space.project(inputs.real), inputs.space.project(inputs.predicted))


ROUNDING = 1e-7
"""Share of the level below which a difference of mean profiles is rounding: those of files are kept in float32.

Without it a prediction that equals the controls would be scored by how its mean was rounded."""
PAPER = "PT-RAG, section 4"
SYSTEMA = "Systema (Vinas Torne et al. 2025)"
EFFECT = "GGE, equation 1 (perturbation-effect correlation)"
CORRELATION = "-1 to 1"
EFFECT_CORRELATION = "-1 to 1; no effect: 0"
SQUARED = "0 and up, squared expression units"
EXPRESSION = "0 and up, expression units"

METRICS: tuple[Metric, ...] = (
    Metric(
        "pearson_deg",
        "Pearson (DEG)",
        True,
        "profiles",
        "degs",
        lambda i: profile.pearson(i.real, i.predicted, i.degs),
        True,
        meaning="Correlation of predicted and real expression over the genes that change; high for controls too.",
        formula="corr_d(r, q)",
        values=CORRELATION,
        source=PAPER,
    ),
    Metric(
        "spearman_deg",
        "Spearman (DEG)",
        True,
        "profiles",
        "degs",
        lambda i: profile.spearman(i.real, i.predicted, i.degs),
        True,
        meaning="Whether the genes that change are ordered by expression as in the real cells.",
        formula="corr_d(rank(r), rank(q))",
        values=CORRELATION,
        source=PAPER,
    ),
    Metric(
        "mse",
        "MSE",
        False,
        "profiles",
        "genes",
        lambda i: profile.mean_squared_error(i.real, i.predicted),
        True,
        meaning="Mean squared error of the mean profile.",
        formula="mean_g (r - q)^2",
        values=SQUARED,
        source=PAPER,
    ),
    Metric(
        "rmse",
        "RMSE",
        False,
        "profiles",
        "genes",
        lambda i: profile.root_mean_squared_error(i.real, i.predicted),
        True,
        meaning="Root of the mean squared error, rooted for each condition.",
        formula="sqrt(mean_g (r - q)^2)",
        values=EXPRESSION,
        source=PAPER,
    ),
    Metric(
        "mae",
        "MAE",
        False,
        "profiles",
        "genes",
        lambda i: profile.mean_absolute_error(i.real, i.predicted),
        True,
        meaning="Mean absolute error of the mean profile.",
        formula="mean_g |r - q|",
        values=EXPRESSION,
        source=PAPER,
    ),
    Metric(
        "mse_pca50",
        "MSE PCA-50",
        False,
        "profiles",
        "pca",
        _mse_pca,
        True,
        meaning="Mean squared error of the mean profile in PCA coordinates.",
        formula="mean_j (Pr - Pq)^2",
        values=SQUARED,
        source=PAPER,
    ),
    Metric(
        "w1_pca50",
        "W1",
        False,
        "cells",
        "pca",
        distances.wasserstein_1,
        True,
        meaning="Least mean distance over which real cells must be moved to become the predicted ones.",
        formula="S(x, y) = OT(x, y) - OT(x, x)/2 - OT(y, y)/2, cost |x - y|, blur 0.01",
        values=EXPRESSION,
        source=f"{PAPER}; Sinkhorn divergence, Feydy et al. 2019",
    ),
    Metric(
        "w2_pca50",
        "W2",
        False,
        "cells",
        "pca",
        distances.wasserstein_2,
        True,
        meaning="Least mean of half the squared distance over which cells must be moved; far moves weigh more.",
        formula="S(x, y) as for W1, cost |x - y|^2 / 2, blur 0.01",
        values=SQUARED,
        source=f"{PAPER}; Sinkhorn divergence, Feydy et al. 2019",
    ),
    Metric(
        "energy_pca50",
        "Energy",
        False,
        "cells",
        "pca",
        distances.energy_distance,
        True,
        meaning="How much farther real and predicted cells lie from each other than among themselves.",
        formula="E|x - y| - E|x - x'|/2 - E|y - y'|/2",
        values=EXPRESSION,
        source=f"{PAPER}; half the energy distance of Szekely and Rizzo 2013",
    ),
    Metric(
        "mmd_pca50",
        "MMD",
        False,
        "cells",
        "pca",
        distances.maximum_mean_discrepancy,
        meaning="Squared distance of the two clouds under a Gaussian kernel, unbiased, not below 0.",
        formula="E k(x, x') + E k(y, y') - 2 E k(x, y), k = exp(-|x - y|^2 / (2 median |.|^2))",
        values="0 to 2, no unit",
        source="Gretton et al. 2012, equation 3; kernel width as in GGE",
    ),
    Metric(
        "r2",
        "R2",
        True,
        "profiles",
        "genes",
        lambda i: profile.r_squared(i.real, i.predicted),
        meaning="Share of the variance of expression over genes that the prediction explains.",
        formula="1 - sum_g (r - q)^2 / sum_g (r - mean_g r)^2",
        values="1 and down",
        source="GGE (r_squared)",
    ),
    Metric(
        "pearson_delta",
        "Pearson delta",
        True,
        "profiles",
        "genes",
        lambda i: profile.pearson(*_deltas(i)),
        meaning="Correlation of predicted and real effects, both against the real controls.",
        formula="corr_g(r - c, q - c)",
        values=EFFECT_CORRELATION,
        source=EFFECT,
    ),
    Metric(
        "spearman_delta",
        "Spearman delta",
        True,
        "profiles",
        "genes",
        lambda i: profile.spearman(*_deltas(i)),
        meaning="Rank correlation of predicted and real effects, both against the real controls.",
        formula="corr_g(rank(r - c), rank(q - c))",
        values=EFFECT_CORRELATION,
        source=EFFECT,
    ),
    Metric(
        "pearson_delta_deg",
        "Pearson delta (DEG)",
        True,
        "profiles",
        "degs",
        lambda i: profile.pearson(*_deltas(i), i.degs),
        meaning="Correlation of predicted and real effects over the genes that change.",
        formula="corr_d(r - c, q - c)",
        values=EFFECT_CORRELATION,
        source=EFFECT,
    ),
    Metric(
        "spearman_delta_deg",
        "Spearman delta (DEG)",
        True,
        "profiles",
        "degs",
        lambda i: profile.spearman(*_deltas(i), i.degs),
        meaning="Rank correlation of predicted and real effects over the genes that change.",
        formula="corr_d(rank(r - c), rank(q - c))",
        values=EFFECT_CORRELATION,
        source=EFFECT,
    ),
    Metric(
        "direction_deg",
        "Direction (DEG)",
        True,
        "profiles",
        "degs",
        lambda i: effects.direction_agreement(*_deltas(i), i.degs),
        meaning="Share of the genes that change whose predicted effect has the real sign.",
        formula="mean_d (sign(r - c) sign(q - c) + 1) / 2",
        values="0 to 1; chance and no effect: 0.5",
        source="state-rag",
    ),
    Metric(
        "discrimination",
        "Discrimination",
        True,
        "profiles",
        "genes",
        lambda i: effects.discrimination(i.real, i.predicted),
        compares_conditions=True,
        meaning="Share of the cell line's other conditions that the prediction is farther from than from its own.",
        formula="1 - #{j: sum_g |q - r_j| < sum_g |q - r|} / (C - 1), ties count one half",
        values="0 to 1; chance and no effect: 0.5",
        source="Virtual Cell Challenge (Roohani et al. 2025)",
    ),
    Metric(
        "pearson_delta_own",
        "Pearson delta, own control",
        True,
        "profiles",
        "genes",
        lambda i: profile.pearson(*_deltas(i, "own")),
        meaning="Correlation of effects, the predicted one against the model's own prediction for controls.",
        formula="corr_g(r - c, q - c')",
        values=EFFECT_CORRELATION,
        source=f"{EFFECT}, with the model's own control",
    ),
    Metric(
        "pearson_delta_deg_own",
        "Pearson delta (DEG), own control",
        True,
        "profiles",
        "degs",
        lambda i: profile.pearson(*_deltas(i, "own"), i.degs),
        meaning="Correlation of effects over the genes that change, the predicted one against the model's controls.",
        formula="corr_d(r - c, q - c')",
        values=EFFECT_CORRELATION,
        source=f"{EFFECT}, with the model's own control",
    ),
    Metric(
        "pearson_delta_centred",
        "Pearson delta, centred",
        True,
        "profiles",
        "genes",
        lambda i: profile.pearson(*_deltas(i, "centre")),
        meaning="Correlation of what is specific to a perturbation: both against the mean over perturbations.",
        formula="corr_g(r - m, q - m)",
        values=CORRELATION,
        source=SYSTEMA,
    ),
    Metric(
        "pearson_delta_deg_centred",
        "Pearson delta (DEG), centred",
        True,
        "profiles",
        "degs",
        lambda i: profile.pearson(*_deltas(i, "centre"), i.degs),
        meaning="Correlation of what is specific to a perturbation, over the genes that change.",
        formula="corr_d(r - m, q - m)",
        values=CORRELATION,
        source=SYSTEMA,
    ),
)

BY_NAME: dict[str, Metric] = {metric.name: metric for metric in METRICS}


def choose(names: list[str] | None, flag: str = "--metrics") -> tuple[Metric, ...]:
    """Return the named metrics, or all for None.

    Raises
    ------
    StateRagError
        For an unknown name; the message has close spellings and lists the known ones.
    """
    if names is None:
        return METRICS
    refuse_unknown(names, flag)
    return tuple(BY_NAME[name] for name in names)


def refuse_unknown(names: list[str], flag: str, known: list[str] | None = None) -> None:
    """Refuse metrics that are not among `known` (by default the registry's)."""
    known = list(BY_NAME) if known is None else known
    if unknown := [name for name in names if name not in known]:
        hint = suggest(unknown[:1], known)
        raise StateRagError(
            f"{flag}: no metric '{unknown[0]}'{hint}. Known, and explained by `state-rag metrics`: {', '.join(known)}"
        )
