"""A picture of the evidence behind a prediction: measured responses beside the predicted one."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from state_rag.plot.style import BLUE, CYCLE, GREEN, GREY, ORANGE, axes_or_current, labels, plain

SAME, RESPONSES = "same perturbation elsewhere", "responses"
GAP = 0.45
"""Between blocks of columns, in widths of a column."""
NUMBERS_UP_TO = 16
"""Columns of which each cell's value is written."""


class Explained(Protocol):
    """An explanation, as `state_rag.evidence.explanation.Explanation` is one."""

    @property
    def context(self) -> str:
        """Where the effect was predicted."""

    @property
    def perturbation(self) -> str:
        """What was predicted."""

    @property
    def genes(self) -> Sequence[str]:
        """G names."""

    @property
    def prior(self) -> np.ndarray:
        """[G]: mean effect of the context."""

    @property
    def prediction(self) -> np.ndarray:
        """[G]: the predicted effect."""

    @property
    def conditions(self) -> Sequence[tuple[str, str]]:
        """(context, perturbation) of each, heaviest first."""

    @property
    def weights(self) -> np.ndarray:
        """[S], signed."""

    @property
    def why(self) -> Sequence[str]:
        """Reason of each."""

    @property
    def cells(self) -> np.ndarray:
        """Cells of each; NaN where unknown."""

    @property
    def effects(self) -> np.ndarray:
        """Return the conditions' measured effects [S, G]."""


def evidence(
    found: Explained,
    measured: np.ndarray | None = None,
    genes: Sequence[str] | int = 20,
    conditions: int = 8,
    ax: Axes | None = None,
) -> Axes:
    """Draw a predicted effect beside the measured effects that it was made of.

    A row is a gene. Columns are the predicted effect and, where it is known, the measured one; then the mean effect of
    the context, from which a prediction starts; then the conditions with the largest weights, each as it was measured.
    The bars above the latter are the weights, coloured by what makes a condition like the one predicted. All cells
    have one scale.

    Parameters
    ----------
    found
        What `Evidence.explain` or `Predictor.explanation` returns.
    measured
        The measured effect of the predicted condition [G], where it is known.
    genes
        Names to draw; or how many, of those with the largest predicted effect. They are drawn from the one raised most
        to the one lowered most.
    conditions
        How many of the contributing conditions at most.
    ax
        Where to draw; pyplot's current axes by default.

    Returns
    -------
    matplotlib.axes.Axes
        Of the map.
    """
    ax = axes_or_current(ax)
    place = {name: number for number, name in enumerate(found.genes)}
    order = np.argsort(-np.abs(found.prediction), kind="stable")[:genes] if isinstance(genes, int) else None
    rows = np.array([place[name] for name in genes]) if order is None else order  # type: ignore[union-attr]
    rows = rows[np.argsort(-found.prediction[rows], kind="stable")]
    shown = min(conditions, len(found.conditions))
    answer = [("predicted", found.prediction)] + ([] if measured is None else [("measured", np.asarray(measured))])
    blocks = [
        answer,
        [(f"mean of {found.context}", found.prior)],
        [(f"{name} in {context}", found.effects[at]) for at, (context, name) in enumerate(found.conditions[:shown])],
    ]
    values = np.stack([column[rows] for block in blocks for _, column in block], axis=1)
    limit = float(np.percentile(np.abs(values), 98)) or 1.0
    centres: list[float] = []
    start = 0.0
    for above, block in zip(("this condition", "start", "")[: 3 if shown else 2], blocks, strict=False):
        width, first = len(block), len(centres)
        edges = start + np.arange(width + 1) - 0.5
        ax.pcolormesh(
            edges,
            np.arange(len(rows) + 1) - 0.5,
            values[:, first : first + width],
            cmap="RdBu_r",
            vmin=-limit,
            vmax=limit,
            edgecolors="white",
            linewidth=0.6,
        )
        ax.text(edges[[0, -1]].mean(), -0.7, above, ha="center", va="bottom", fontsize=9, color="#555555")
        centres += (edges[:-1] + 0.5).tolist()
        start += width + GAP
    if len(centres) <= NUMBERS_UP_TO:
        _write_values(ax, values, centres, limit)
    names = labels(name for block in blocks for name, _ in block)
    ax.set_xticks(centres, names, rotation=40, ha="right", rotation_mode="anchor")
    ax.set_yticks(range(len(rows)), labels(found.genes[row] for row in rows))
    ax.tick_params(length=0)
    for tick in ax.get_xticklabels()[: len(answer)]:
        tick.set_fontweight("bold")
    ax.set(xlim=(-0.5, centres[-1] + 0.5), ylim=(len(rows) - 0.5, -0.5))
    ax.spines[:].set_visible(False)
    if shown:
        _weights(ax, found, centres[-shown], centres[-1])
    return ax


def evidence_figure(
    found: Explained, measured: np.ndarray | None = None, genes: Sequence[str] | int = 20, conditions: int = 8
) -> Figure:
    """Draw `evidence` as a figure of its own, with a title and the scale of the colours.

    Parameters
    ----------
    found, measured, genes, conditions
        As for `evidence`.
    """
    rows = min(genes, len(found.genes)) if isinstance(genes, int) else len(genes)
    columns = 2 + (measured is not None) + min(conditions, len(found.conditions))
    figure = Figure(figsize=(3.4 + 0.66 * columns, 3.4 + 0.25 * rows), layout="constrained")
    ax = evidence(found, measured, genes, conditions, figure.subplots())
    bar = figure.colorbar(ax.collections[0], ax=ax, shrink=0.6, extend="both", aspect=30)
    bar.set_label("effect (against controls)", fontsize=9)
    figure.suptitle(plain(f"{found.perturbation} in {found.context}: what the prediction was made of"), fontsize=11)
    return figure


def _write_values(ax: Axes, values: np.ndarray, centres: Sequence[float], limit: float) -> None:
    for (row, column), value in np.ndenumerate(values):
        colour = "white" if abs(value) > 0.55 * limit else "#333333"
        ax.text(centres[column], row, _short(value, "+"), ha="center", va="center", fontsize=6.5, color=colour)


def _weights(ax: Axes, found: Explained, first: float, last: float) -> None:
    """Draw the weights above their columns, whose centres reach from `first` to `last`."""
    count = round(last - first) + 1
    weights, why = found.weights[:count], list(found.why[:count])
    left, right = ax.get_xlim()
    bars = ax.inset_axes(((first - 0.5 - left) / (right - left), 1.02, count / (right - left), 0.2))
    colours: dict[str, str] = {SAME: GREEN, RESPONSES: ORANGE, "text": BLUE}
    for other in why:
        colours.setdefault(other, CYCLE[len(colours) % len(CYCLE)])
    bars.bar(range(count), weights, width=0.8, color=[colours[one] for one in why])
    bars.axhline(0, color=GREY, linewidth=0.7)
    span = max(float(np.abs(weights).max()), 1e-9)
    lowest, highest = min(0.0, float(weights.min())), max(0.0, float(weights.max()))
    bars.set(
        xlim=(-0.5, count - 0.5),
        ylim=(lowest - (0.35 * span if lowest < 0 else 0.0), highest + 0.3 * span),
        xticks=[],
        yticks=[],
    )
    bars.spines[:].set_visible(False)
    for number, weight in enumerate(weights.tolist()):
        away = 0.04 * span if weight >= 0 else -0.04 * span
        where = "bottom" if weight >= 0 else "top"
        bars.text(number, weight + away, _short(weight), ha="center", va=where, fontsize=8)
    bars.set_ylabel("weight", fontsize=9, rotation=0, ha="right", va="center")
    said = {RESPONSES: "response similarity"}
    handles = [Patch(color=colours[one], label=plain(said.get(one, one))) for one in dict.fromkeys(why)]
    bars.legend(
        handles=handles, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1.0), ncols=3, frameon=False, borderpad=0.0
    )


def _short(value: float, sign: str = "-") -> str:
    """Return a value with two decimals, without the zero before them and without the sign of a zero."""
    text = f"{value:{sign}.2f}" if abs(value) < 100 else f"{value:{sign}.0f}"
    return ".00" if not float(text) else text.replace("0.", ".", 1) if abs(value) < 1 else text
