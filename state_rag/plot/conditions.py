"""Pictures of predicted and real conditions. Each function draws on one `Axes` and returns it."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from state_rag.metrics.registry import BY_NAME, Metric
from state_rag.plot.style import BLUE, CYCLE, GREY, ORANGE, RED, axes_or_current, labels, plain


def distribution(tables: Mapping[str, pd.DataFrame], metric: Metric | str, ax: Axes | None = None) -> Axes:
    """Draw box plots of one metric's values over conditions, one box a predictor.

    Boxes span the quartiles, whiskers reach 1.5 times that far, the triangle is the mean.

    Parameters
    ----------
    tables
        Predictor to its table, one row a condition, with the metric's column (`state_rag.metrics.evaluate`).
    metric
        The metric, or its name.
    ax
        Where to draw; pyplot's current axes by default.

    Examples
    --------
    >>> import pandas as pd
    >>> from matplotlib.figure import Figure
    >>> ax = Figure().subplots()
    >>> distribution({"model": pd.DataFrame({"mse": [0.1, 0.3]})}, "mse", ax).get_title()
    'MSE'
    """
    ax = axes_or_current(ax)
    metric = BY_NAME[metric] if isinstance(metric, str) else metric
    boxes = ax.boxplot(
        [table[metric.name].dropna().to_numpy() for table in tables.values()],
        orientation="horizontal",
        patch_artist=True,
        showmeans=True,
        widths=0.65,
        flierprops={"markersize": 2, "alpha": 0.4},
        meanprops={"marker": "^", "markerfacecolor": "white", "markeredgecolor": "black", "markersize": 5},
        medianprops={"color": "black"},
    )
    for number, box in enumerate(boxes["boxes"]):
        box.set_facecolor(CYCLE[number % len(CYCLE)])
    ax.set_title(plain(metric.label), fontsize=10)
    ax.set_xlabel("higher is better" if metric.higher_is_better else "lower is better", fontsize=8)
    ax.set_yticks(range(1, len(tables) + 1), labels(tables))
    ax.invert_yaxis()
    ax.grid(axis="x", alpha=0.3)
    return ax


def effect_scatter(
    real: np.ndarray,
    predicted: np.ndarray,
    degs: np.ndarray | None = None,
    title: str = "",
    ax: Axes | None = None,
) -> Axes:
    """Draw one condition's predicted against its real effect, a point a gene.

    Parameters
    ----------
    real, predicted
        Effects `[G]`, in log expression.
    degs
        Differential genes, boolean `[G]`; drawn apart where given.
    title
        Put above, before the Pearson correlation over all genes.
    ax
        Where to draw; pyplot's current axes by default.
    """
    from state_rag.metrics.profile import pearson

    ax = axes_or_current(ax)
    real, predicted = np.asarray(real), np.asarray(predicted)
    not_told = degs is None
    degs = np.zeros(len(real), dtype=bool) if degs is None else np.asarray(degs, dtype=bool)
    r = float(pearson(real[None], predicted[None])[0])
    ax.axline((0, 0), slope=1, color="black", linewidth=0.7, linestyle="--")
    ax.scatter(real[~degs], predicted[~degs], s=8, color=GREY, alpha=0.5, linewidths=0, label="other genes")
    ax.scatter(real[degs], predicted[degs], s=12, color=RED, alpha=0.8, linewidths=0, label="DEGs")
    limit = 1.05 * max(np.abs(real).max(), np.abs(predicted).max(), 1e-6)
    ax.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(5, symmetric=True))
    counted = "" if not_told else f", {int(degs.sum())} DEGs"
    ax.set_title(f"{plain(title)}\nr = {r:.2f}{counted}".lstrip(), fontsize=10)
    ax.set_xlabel("real effect (difference of mean log expression)", fontsize=8)
    ax.set_ylabel("predicted effect", fontsize=9)
    return ax


def cells(
    control: np.ndarray, real: np.ndarray, predicted: np.ndarray, title: str = "", ax: Axes | None = None
) -> Axes:
    """Draw control, real and predicted cells of one condition in two dimensions.

    Parameters
    ----------
    control, real, predicted
        Coordinates `[n, 2]`.
    title
        Put above.
    ax
        Where to draw; pyplot's current axes by default.
    """
    ax = axes_or_current(ax)
    for places, color, marker, label in (
        (control, "#C8C8C8", "o", "control"),
        (real, BLUE, "o", "real"),
        (predicted, ORANGE, "^", "predicted"),
    ):
        ax.scatter(places[:, 0], places[:, 1], s=14, color=color, marker=marker, alpha=0.75, linewidths=0, label=label)
    ax.set_title(plain(title), fontsize=10)
    return ax
