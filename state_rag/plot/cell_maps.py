"""Real and predicted cells of a few conditions in two dimensions: principal components, and UMAP."""

import logging
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from state_rag.effects.conditions import Pair
from state_rag.metrics.pca import fit_pca
from state_rag.plot import figures

logger = logging.getLogger(__name__)
MAP_CELLS = 300
"""At most so many cells of a kind (controls; real or predicted cells of a condition) are drawn."""
COMPONENTS, NEIGHBOURS, MIN_DIST, SEED = 50, 15, 0.3, 0


@dataclass(frozen=True)
class CellMap:
    """One picture: its name, the figure, and what it shows."""

    name: str
    figure: Figure
    caption: str


def cell_maps(pair: Pair, line: str, names: list[str]) -> list[CellMap]:
    """Draw the cells of some conditions of one cell line; none where there are too few cells for that.

    Principal components are fitted on the real cells drawn. UMAP (McInnes, Healy and Melville 2018, arXiv:1802.03426)
    places real, predicted and control cells together, from their first principal components; what it shows are
    neighbourhoods, while distances and sizes on it mean little.

    Parameters
    ----------
    pair
        From `conditions.open_pair`.
    line
        Cell line.
    names
        Perturbations.
    """
    rng = np.random.default_rng(SEED)
    counts: dict[str, tuple[int, int]] = {}

    def some(what: str, read: Callable[[np.ndarray], np.ndarray], rows: np.ndarray) -> np.ndarray:
        drawn = np.sort(rng.choice(rows, MAP_CELLS, replace=False)) if len(rows) > MAP_CELLS else rows
        before = counts.get(what, (0, 0))
        counts[what] = before[0] + len(drawn), before[1] + len(rows)
        return read(drawn)

    by_name = {condition.perturbation: condition for condition in pair.lines[line]}
    blocks = [some("control", pair.read_real, pair.controls[line][0])]
    for name in names:
        blocks.append(some("real", pair.read_real, by_name[name].real))
        blocks.append(some("predicted", pair.read_predicted, by_name[name].predicted))
    real = np.concatenate([blocks[0], *blocks[1::2]])
    if len(real) < 4 or pair.real.rows.shape[1] < 2 or not all(np.isfinite(block).all() for block in blocks):
        return []
    drawn = ", ".join(f"{shown} of {there} {what}" for what, (shown, there) in counts.items())
    space = fit_pca([real], COMPONENTS)
    share = 100 * space.variance / max(float(real.var(axis=0, ddof=1, dtype=np.float64).sum()), 1e-12)
    coordinates = space.project(np.concatenate(blocks))
    edges = np.cumsum([len(block) for block in blocks])[:-1]

    def picture(places: np.ndarray, labels: tuple[str, str]) -> Figure:
        control, *cells = np.split(places, edges)
        panels = [(f"{name} in {line}", cells[2 * at], cells[2 * at + 1]) for at, name in enumerate(names)]
        return figures.cell_map(panels, control, labels)

    maps = [
        CellMap(
            "cells",
            picture(coordinates[:, :2], (f"PC1 ({share[0]:.1f} % of variance)", f"PC2 ({share[1]:.1f} % of variance)")),
            f"Cells of {line} on the first principal components of the real cells drawn ({drawn} cells).",
        )
    ]
    placed = _umap(coordinates)
    if placed is not None:
        caption = (
            f"The same cells ({drawn}), placed together by UMAP from {coordinates.shape[1]} principal components "
            f"({NEIGHBOURS} neighbours, minimal distance {MIN_DIST}, seed {SEED}). Read neighbourhoods, not distances."
        )
        maps.append(CellMap("umap", picture(placed, ("UMAP 1 (no unit)", "UMAP 2 (no unit)")), caption))
    return maps


def _umap(cells: np.ndarray) -> np.ndarray | None:
    """Return UMAP coordinates `[n, 2]`, the same at every call; None for too few cells."""
    if len(cells) <= NEIGHBOURS + 2:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # umap-learn warns that a seed means one thread, which is what we ask for
        from umap import UMAP

        _keep_compiled()
        reducer = UMAP(n_neighbors=NEIGHBOURS, min_dist=MIN_DIST, random_state=SEED, n_jobs=1)
        return np.asarray(reducer.fit_transform(cells.astype(np.float32)))


def _keep_compiled() -> None:
    """Let Numba keep on disk what it compiles of umap-learn, which takes ten seconds of every process otherwise."""
    from umap import layouts, umap_, utils

    for module in (umap_, layouts, utils):
        for function in vars(module).values():
            if hasattr(function, "enable_caching"):
                with suppress(RuntimeError):  # Numba's, where it finds no folder that it may write to
                    function.enable_caching()
