"""Pictures of designs: what experiments bring, designed and otherwise chosen."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from state_rag.plot.style import axes_or_current, stroke


def experiment_curves(
    experiments: Sequence[int],
    curves: Mapping[str, Sequence[float] | np.ndarray],
    quantity: str,
    intervals: Mapping[str, np.ndarray] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw a quantity against the number of experiments, one line a way to choose them.

    Parameters
    ----------
    experiments
        B numbers.
    curves
        Way to choose -> B values.
    quantity
        What is drawn.
    intervals
        Way to choose -> lower and upper ends [2, B], drawn as a band.
    ax
        Where to draw; pyplot's current axes by default.
    """
    ax = axes_or_current(ax)
    for number, (name, values) in enumerate(curves.items()):
        color, line_style = stroke(number)
        marker = "o" if len(experiments) < 12 else None
        ax.plot(experiments, values, color=color, linestyle=line_style, linewidth=1.5, marker=marker, label=name)
        if intervals and name in intervals:
            ax.fill_between(experiments, *intervals[name], color=color, alpha=0.15, linewidth=0)
    ax.set(xlabel="experiments", ylabel=quantity)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.grid(alpha=0.3)
    ax.legend(frameon=False)
    return ax
