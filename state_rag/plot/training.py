"""Pictures of training. Each function draws on one `Axes` and returns it."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes

from state_rag.plot.style import axes_or_current, labels, stroke


def learning_curves(curves: Mapping[str, pd.DataFrame], column: str, ax: Axes | None = None) -> Axes:
    """Draw a logged quantity against the training step, one line a run.

    Parameters
    ----------
    curves
        Run to its logged values: `step` and the column; rows without the quantity are left out.
    column
        What was logged, such as `val_loss`.
    ax
        Where to draw; pyplot's current axes by default.
    """
    ax = axes_or_current(ax)
    for number, (name, table) in enumerate(zip(labels(curves), curves.values(), strict=True)):
        rows = table.dropna(subset=[column])
        color, line_style = stroke(number)
        ax.plot(rows["step"], rows[column], color=color, linestyle=line_style, linewidth=1.3, label=name)
    ax.set(xlabel="training step", ylabel=column)
    ax.grid(alpha=0.3)
    return ax
