"""How like real cells predicted ones are, by the way they are made from a predicted mean.

    python benchmarks/cell_shape.py cells.h5ad --pert-col condition --cell-type-key cell_type --control control

A file of cells of expression. Its conditions are dealt into folds; of each fold the engine predicts the mean effects
from all others, and cells are made in each way: from controls of the line, or from cells of its other conditions. The
score is the energy distance to the real cells, unbiased, over all genes and over the file's first 50 principal
components: a row a way and seed, with the mean over conditions and Wilcoxon's p-value against what we do. `--means`
takes the real means instead, or means half-way between these and the line's mean effect, to judge the shape alone.

Every way makes the same number of cells, and starts from none twice: repeated cells are too near to each other, and
fewer cells with an exact mean score better than many. A way that starts from a larger pool would win by that alone.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anndata
import numpy as np
from evidence_accuracy import write
from rich.console import Console
from rich.table import Table
from scipy.spatial.distance import cdist
from scipy.stats import wilcoxon

import state_rag as sr
from state_rag.cells.anchored import brought_to_mean, drawn_from, scaled_to_mean
from state_rag.engine.bank import responses_in
from state_rag.evidence.estimator import Evidence
from state_rag.evidence.responses import Responses
from state_rag.evidence.training import Settings

FOLDS, MOST, COMPONENTS = 5, 200, 50
OURS = "controls, zeros moved, then scaled (what we do)"
COLUMNS = ["seed", "cells", "n", "energy", "p", "energy_pca", "p_pca"]


def main() -> None:
    """Make the cells and print the table."""
    options = parse()
    cells = anndata.read_h5ad(options.cells)
    values = cells.X.toarray() if hasattr(cells.X, "toarray") else np.asarray(cells.X)
    values = values.astype(np.float32)
    effects = sr.effects.from_anndata(
        cells, perturbation=options.pert_col, context=options.cell_type_key, control=options.control
    )
    responses = responses_in(effects)
    lines = cells.obs[options.cell_type_key].astype(str).to_numpy()
    labels = cells.obs[options.pert_col].astype(str).to_numpy()
    rows = {
        (line, name): np.flatnonzero((lines == line) & (labels == name)) for line in set(lines) for name in set(labels)
    }
    shown = Table(title=f"{options.cells.name}: energy distance to the real cells, means: {options.means}")
    for column in COLUMNS:
        shown.add_column(column, justify="left" if column == "cells" else "right")
    table = []
    for seed in options.seeds:
        rng = np.random.default_rng(seed)
        axes = components(values, rng)
        found: dict[str, list[tuple[float, float]]] = {}
        for (line, name), effect, known in predicted(responses, options.means, seed, rng):
            controls, real = values[rows[line, options.control]], values[rows[line, name]][:MOST]
            donors = {other: values[rows[line, other]] for other in known if other != options.control}
            for way, made in ways(controls, np.maximum(controls.mean(0) + effect, 0), donors, rng).items():
                found.setdefault(way, []).append((energy(made, real), energy(made @ axes, real @ axes)))
        table += judged({way: np.array(scores) for way, scores in found.items()}, seed)
    for row in table:
        shown.add_row(*(f"{row[c]:.3g}" if isinstance(row[c], float) else str(row[c]) for c in COLUMNS))
    Console(width=120).print(shown)
    if options.output:
        write(options.output, table)


def predicted(
    responses: Responses, means: str, seed: int, rng: np.random.Generator
) -> Iterator[tuple[tuple[str, str], np.ndarray, list[str]]]:
    """Yield each condition, its mean effect [G] and the other perturbations known in its line."""
    fold = rng.permutation(len(responses)) % FOLDS
    for number in range(FOLDS):
        known = responses.take(np.flatnonzero(fold != number).tolist())
        engine = Evidence(Settings(seed=seed, calibrating=0)).fit(known, {}) if means == "predicted" else None
        for row in np.flatnonzero(fold == number).tolist():
            line, name = responses.conditions[row]
            here = [place for place, (where, _) in enumerate(known.conditions) if where == line]
            effect = responses.effects[row].astype(float)
            if engine is not None:
                effect = engine.predict(line, [name], trust=False).mean[0]
            elif means == "half-way":
                effect = (effect + known.effects[here].mean(0)) / 2
            yield (line, name), effect, [known.conditions[place][1] for place in here]


def ways(
    controls: np.ndarray, mean: np.ndarray, donors: dict[str, np.ndarray], rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Return as many cells made in each way, none of them from the same cell twice."""
    near = sorted(donors, key=lambda name: float(np.square(donors[name].mean(0) - mean).sum()))[:3]
    nearest, every = (np.concatenate([donors[name] for name in names]) for names in (near, list(donors)))
    residuals = np.concatenate([cells - cells.mean(0) for cells in donors.values()])
    within = sum(np.square(cells - cells.mean(0)).sum(0) for cells in donors.values()) / (len(every) - len(donors))
    count = min(MOST, *map(len, (controls, nearest)))
    drawn, nearest, every, residuals = (
        pool[drawn_from(np.arange(len(pool)), count, rng)] for pool in (controls, nearest, every, residuals)
    )
    fifth = count // 5
    rest = (mean * count - drawn[:fifth].sum(0)) / (count - fifth)
    ours = brought_to_mean(drawn, mean, rng, expression=True)
    return {
        "controls as they are": drawn,
        "controls scaled": scaled_to_mean(drawn, mean),
        OURS: ours,
        "a fifth left as controls, the rest as we do": np.concatenate(
            [drawn[:fifth], brought_to_mean(drawn[fifth:], rest, rng, expression=True)]
        ),
        "as we do, spread as within other conditions": scaled_to_mean(
            spread(ours, within / np.maximum(controls.var(0, ddof=1), 1e-9)), mean
        ),
        "cells of the three nearest conditions, as we do": brought_to_mean(nearest, mean, rng, expression=True),
        "cells of all other conditions, as we do": brought_to_mean(every, mean, rng, expression=True),
        "cells of all others, their own means swapped for it": np.maximum(residuals + mean, 0).astype(np.float32),
    }


def spread(cells: np.ndarray, ratio: np.ndarray) -> np.ndarray:
    """Return cells whose variance [G] is changed by a ratio, up to four, by the values of cells that show the gene."""
    showing = cells > 0
    number = np.maximum(showing.sum(0), 1)
    level = cells.sum(0) / number
    share = showing.mean(0)
    between = share * (1 - share) * np.square(level)
    own = share * np.where(showing, np.square(cells - level), 0).sum(0) / number
    wanted = cells.var(0) * np.clip(ratio, 1 / 4, 4) - between
    factor = np.sqrt(np.clip(np.divide(wanted, own, out=np.ones_like(own), where=own > 0), 1 / 4, 4))
    return np.where(showing, np.maximum(level + (cells - level) * factor, 1e-3), 0).astype(np.float32)


def components(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the first principal axes [G, 50] of up to 6,000 cells."""
    part = values[rng.permutation(len(values))[:6000]]
    return np.linalg.svd(part - part.mean(0), full_matrices=False)[2][:COMPONENTS].T


def energy(first: np.ndarray, second: np.ndarray) -> float:
    """Return the unbiased energy distance of two sets of cells."""
    own = (cdist(cells, cells).sum() / len(cells) / (len(cells) - 1) for cells in (first, second))
    return float(2 * cdist(first, second).mean() - sum(own))


def judged(scores: dict[str, np.ndarray], seed: int) -> list[dict[str, Any]]:
    """Return a row a way."""
    rows = []
    for way, values in scores.items():
        p = [1.0 if way == OURS else float(wilcoxon(values[:, one], scores[OURS][:, one]).pvalue) for one in (0, 1)]
        mean = values.mean(0)
        row = (seed, way, len(values), float(mean[0]), p[0], float(mean[1]), p[1])
        rows.append(dict(zip(COLUMNS, row, strict=True)))
    return rows


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cells", type=Path, help=".h5ad of cells, X is expression")
    parser.add_argument("--pert-col", required=True)
    parser.add_argument("--cell-type-key", required=True)
    parser.add_argument("--control", required=True)
    parser.add_argument("--means", choices=("predicted", "real", "half-way"), default="predicted")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("-o", "--output", type=Path, help="CSV")
    return parser.parse_args()


if __name__ == "__main__":
    main()
