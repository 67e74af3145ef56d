"""The size of a predicted effect over doses or times."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from state_rag.plot.style import BLUE, ORANGE, plain

UNITS = {"dose": "dose, in the unit of the data", "time": "time, hours"}


def size_figure(table: pd.DataFrame, axis: str, title: str) -> Figure:
    """Return a picture of sizes over the logarithm of doses or times; 0 stands a step left of the least.

    Parameters
    ----------
    table
        Columns `dose` or `time`, `size`, and `measured`, NaN where nothing was.
    axis
        `dose` or `time`.
    title
        Above the picture.
    """
    figure = Figure(figsize=(5, 3.5), layout="constrained")
    axes = figure.subplots()
    values = table[axis].to_numpy(dtype=float)
    above = np.sort(values[values > 0])
    step = above[1] / above[0] if len(above) > 1 else 10.0
    places = np.where(values > 0, values, above[0] / step)
    axes.plot(places, table["size"], color=BLUE, marker="o", label="predicted")
    if table["measured"].notna().any():
        axes.plot(places, table["measured"], color=ORANGE, marker="s", linestyle="none", label="measured")
    axes.set_xscale("log")
    if len(values) <= 12:
        axes.set_xticks(places, [f"{value:g}" for value in values])
        axes.set_xticks([], minor=True)
    axes.set_ylim(bottom=0)
    axes.set_xlabel(UNITS[axis])
    axes.set_ylabel("size of the effect (RMS over genes)")
    axes.set_title(plain(title))
    axes.legend(frameon=False)
    return figure
