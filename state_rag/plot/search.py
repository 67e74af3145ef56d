"""A picture of a search: the wanted effects on genes beside what the best candidates do."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from matplotlib.figure import Figure

from state_rag.plot.style import labels, plain, ticks


class Found(Protocol):
    """What a search found, as `state_rag.evidence.choices.search.Search` is."""

    @property
    def context(self) -> str:
        """Where the state is wanted."""

    @property
    def genes(self) -> Sequence[str]:
        """G names."""

    @property
    def target(self) -> np.ndarray:
        """[G], NaN where unknown."""

    @property
    def perturbations(self) -> Sequence[str]:
        """Best first."""

    @property
    def measured(self) -> np.ndarray:
        """Bool, of each."""

    @property
    def score(self) -> np.ndarray:
        """Of each."""

    @property
    def effects(self) -> np.ndarray:
        """[T, G]: of the best."""


def search_figure(found: Found, genes: int = 30, candidates: int = 10) -> Figure:
    """Return a map of the genes that the target wants to change most, beside the effects of the best candidates.

    Each column has its own scale, its largest effect on these genes, since a target may be in any unit.

    Parameters
    ----------
    found
        What `search` returns.
    genes, candidates
        Rows and columns at most.
    """
    size = np.abs(np.nan_to_num(found.target))
    rows = np.argsort(-size, kind="stable")[: min(genes, int((size > 0).sum()))]
    rows = rows[np.argsort(-found.target[rows], kind="stable")]
    count = min(candidates, len(found.effects))
    columns = np.stack([found.target[rows], *found.effects[:count, rows]], axis=1)
    columns = columns / np.maximum(np.abs(columns).max(0, keepdims=True), 1e-12)
    figure = Figure(figsize=(2.6 + 0.5 * (count + 1), 1.8 + 0.2 * len(rows)), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(columns, cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto", interpolation="nearest")
    axes.axvline(0.5, color="black", linewidth=2)
    known = zip(found.perturbations[:count], found.measured[:count], found.score[:count], strict=True)
    names = [f"{name}{' *' if measured else ''} ({score:.2f})" for name, measured, score in known]
    ticks(axes, labels([found.genes[row] for row in rows]), labels(["target", *names]))
    title = f"best candidates in {found.context} (score)" + ("; * measured" if found.measured[:count].any() else "")
    figure.suptitle(plain(title), fontsize=11, wrap=True)  # of the figure: there may be few columns, and a long name
    figure.colorbar(image, ax=axes, label="effect,\nof the column's largest", shrink=0.6)
    return figure
