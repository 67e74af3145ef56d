"""A picture of trust: the correlation that predictions expected against the one observed."""

import pandas as pd
from matplotlib.figure import Figure

from state_rag.plot.style import BLUE, GREY


def trust_figure(conditions: pd.DataFrame) -> Figure:
    """Return expected against observed correlation, a point a condition, with its 90 % interval.

    Parameters
    ----------
    conditions
        `expected_pearson`, `expected_pearson_low`, `expected_pearson_high`, `observed_pearson`.
    """
    known = conditions.dropna(subset=["expected_pearson", "observed_pearson"])
    expected, observed = known["expected_pearson"], known["observed_pearson"]
    figure = Figure(figsize=(4.2, 4.0), layout="constrained")
    axes = figure.subplots()
    low = min(0.0, float(min(expected.min(), observed.min())))
    axes.plot([low, 1], [low, 1], color=GREY, linewidth=1, zorder=1)
    axes.vlines(
        expected, known["expected_pearson_low"], known["expected_pearson_high"], color=GREY, alpha=0.35, linewidth=0.8
    )
    axes.scatter(expected, observed, s=12, color=BLUE, zorder=2, linewidths=0)
    axes.set_xlabel("expected Pearson delta")
    axes.set_ylabel("observed Pearson delta")
    return figure
