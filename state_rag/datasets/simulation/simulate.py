"""A screen shaped like Replogle-Nadig, with the truth known: for demonstrations, tests and trials without downloads."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from state_rag.datasets.simulation.screen_sizes import PRESETS, ScreenSizes
from state_rag.datasets.simulation.screen_truth import ScreenTruth, draw_truth
from state_rag.errors import StateRagError
from state_rag.files import atomic_path, reason
from state_rag.h5ad_writing import write_h5ad

if TYPE_CHECKING:
    import anndata
    from scipy.sparse import csr_matrix

CONTROL = "non-targeting"
_DISPERSION = 4.0  # size parameter of the negative binomial: variance = mean + mean^2 / 4
_DEPTH_SPREAD = 0.35  # standard deviation of the log sequencing depth between cells
_BATCH_SPREAD = 0.05  # standard deviation of the log expression of a gene between batches
_BLOCK = 4096  # cells drawn at once
_HVG_CELLS = 20_000  # cells that highly variable genes are chosen by, at least


@dataclass(frozen=True)
class SimulatedScreen:
    """Where the files of a simulated screen lie.

    Attributes
    ----------
    h5ad
        The cells: `X` log-normalised (CSR, float32), `obsm["X_hvg"]`, obs `gene`, `cell_line`, `gem_group`.
    embeddings
        Text embeddings of the perturbations (safetensors).
    truth
        JSON: module and topic of each perturbation, its mates and misleading neighbours, seed and parameters.
    truth_effects
        NPZ: expected shift of mean expression for each perturbation and line; see `simulate_screen`.
    """

    h5ad: Path
    embeddings: Path
    truth: Path
    truth_effects: Path


def simulate_screen(folder: str | os.PathLike[str], **parameters: Any) -> SimulatedScreen:
    """Write a simulated screen: `screen.h5ad`, `embeddings.safetensors`, `truth.json`, `truth_effects.npz`.

    Counts are negative binomial around a level that a line, a batch and the perturbation's log fold change set; they
    are scaled to the median depth and log1p-transformed. The names of perturbations show their module (`RIBOSM2`).

    Parameters
    ----------
    folder
        Where to write; made if missing. Files of an earlier simulation there are replaced.
    **parameters
        Those of `ScreenSizes`, by name.

    Returns
    -------
    SimulatedScreen
        The paths. `truth_effects.npz` holds `perturbations` [P], `lines` [L], `genes` [G], `effects` [P, L, G]
        (difference to control of the expected log-normalised expression, batches left out), and
        `highly_variable` [G]. `effects` follows from the parameters; no simulated cell goes into it.

    Raises
    ------
    StateRagError
        If a parameter makes no screen, or a file cannot be written. Parameters are checked before anything is written.
    """
    sizes = ScreenSizes(**parameters)
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise StateRagError(f"{folder}: is a file, expected a folder to write the screen into. Choose another name.")
    return _write(folder, _draw(sizes))


def screen(**parameters: Any) -> "anndata.AnnData":
    """Return a small simulated screen in memory, within seconds: cells whose true effects are known.

    Parameters
    ----------
    **parameters
        Those of `ScreenSizes`, by name; by default its preset `small` (24 perturbations, 4 lines, 80 genes), seed 0.

    Returns
    -------
    anndata.AnnData
        Cells as `simulate_screen` writes them, and `uns["embeddings"]`, a table of the perturbations' text embeddings
        (perturbations x width).

    Raises
    ------
    StateRagError
        If a parameter makes no screen.

    Examples
    --------
    >>> import state_rag as sr
    >>> cells = sr.datasets.screen(n_perturbations=4, n_genes=40)
    >>> cells.obs["cell_line"].nunique(), cells.n_vars
    (4, 40)
    """
    import pandas as pd

    small = {name: value for name, value in PRESETS["small"].items()}
    if "n_genes" in parameters:
        small["n_hvgs"] = min(small["n_hvgs"], parameters["n_genes"])
    if "n_perturbations" in parameters:
        small["n_modules"] = min(small["n_modules"], parameters["n_perturbations"])
    drawn = _draw(ScreenSizes(**{**small, **parameters}))
    kept = [i for i, name in enumerate(drawn.truth.perturbations) if name not in drawn.missing]
    drawn.adata.uns["embeddings"] = pd.DataFrame(
        drawn.truth.embeddings[kept], index=pd.Index([drawn.truth.perturbations[i] for i in kept], dtype=str)
    ).rename(columns=str)
    return drawn.adata


@dataclass(frozen=True)
class _Drawn:
    """A screen in memory, and the perturbations without embedding and without cells."""

    sizes: ScreenSizes
    truth: ScreenTruth
    adata: "anndata.AnnData"
    effects: np.ndarray
    missing: list[str]
    unseen: list[str]


def _draw(sizes: ScreenSizes) -> _Drawn:
    truth_rng, pick_rng, level_rng, cell_rng, grid_rng = np.random.default_rng(sizes.seed).spawn(5)
    truth = draw_truth(
        truth_rng,
        n_perturbations=sizes.n_perturbations,
        n_modules=sizes.n_modules,
        n_genes=sizes.n_genes,
        lines=tuple(sizes.lines),
        embedding_width=sizes.embedding_width,
        misleading_fraction=sizes.misleading_fraction,
        active_fraction=sizes.active_fraction,
        flip_fraction=sizes.flip_fraction,
        effect_scale=sizes.effect_scale,
    )
    picked = pick_rng.permutation(sizes.n_perturbations)
    unseen_names = [truth.perturbations[i] for i in sorted(picked[: sizes.unseen])]
    missing_names = [truth.perturbations[i] for i in sorted(picked[sizes.unseen : sizes.unseen + sizes.missing])]
    log_level = _draw_levels(level_rng, sizes)
    adata = _draw_cells(cell_rng, sizes, truth, log_level, set(unseen_names))
    effects = _expected_effects(grid_rng, sizes, truth, log_level)
    return _Drawn(sizes, truth, adata, effects, missing_names, unseen_names)


def _draw_levels(rng: np.random.Generator, sizes: ScreenSizes) -> np.ndarray:
    """Return the log expression level of each gene in each line, `[L, G]`."""
    shared = rng.normal(0.0, 1.0, sizes.n_genes)
    return shared + rng.normal(0.0, 0.5, (len(sizes.lines), sizes.n_genes))


def _draw_cells(
    rng: np.random.Generator, sizes: ScreenSizes, truth: ScreenTruth, log_level: np.ndarray, without_cells: set[str]
) -> "anndata.AnnData":
    """Draw the cells of every line and condition and return them log-normalised, with `X_hvg`."""
    import anndata
    import pandas as pd
    from scipy.sparse import vstack

    from state_rag.datasets.hvg import highly_variable

    seen = [i for i, name in enumerate(truth.perturbations) if name not in without_cells]
    blocks, genes, lines, groups = [], [], [], []
    control = len(truth.perturbations)
    for line in range(len(sizes.lines)):
        condition = np.concatenate(
            [np.repeat(seen, sizes.cells_per_condition), np.full(sizes.controls_per_line, control)]
        )
        condition = rng.permutation(condition)
        group = rng.integers(0, sizes.gem_groups_per_line, len(condition))
        batch_shift = rng.normal(0.0, _BATCH_SPREAD, (sizes.gem_groups_per_line, sizes.n_genes))
        change = np.concatenate([truth.log_fold_change[:, line], np.zeros((1, sizes.n_genes), dtype=np.float32)])
        for start in range(0, len(condition), _BLOCK):
            rows = slice(start, start + _BLOCK)
            blocks.append(_draw_block(rng, sizes, log_level[line] + change[condition[rows]] + batch_shift[group[rows]]))
        genes.append(condition)
        lines.append(np.full(len(condition), line))
        groups.append(group + 1 + line * sizes.gem_groups_per_line)

    names = [*truth.perturbations, CONTROL]
    obs = pd.DataFrame(
        {
            "gene": pd.Categorical([names[i] for i in np.concatenate(genes)]),
            "cell_line": pd.Categorical([sizes.lines[i] for i in np.concatenate(lines)]),
            "gem_group": pd.Categorical([str(i) for i in np.concatenate(groups)]),
        },
    )
    obs.index = pd.Index([f"cell_{i:07d}" for i in range(len(obs))])
    var = pd.DataFrame({"gene_name": list(truth.genes)}, index=pd.Index(list(truth.genes)))
    adata = anndata.AnnData(X=vstack(blocks, format="csr"), obs=obs, var=var)
    adata.uns["log1p"] = {}
    some = adata[:: max(1, adata.n_obs // _HVG_CELLS)].copy()
    adata.var["highly_variable"] = highly_variable(some, sizes.n_hvgs)
    adata.obsm["X_hvg"] = adata.X[:, adata.var["highly_variable"].to_numpy()].toarray()
    return adata


def _draw_block(rng: np.random.Generator, sizes: ScreenSizes, log_level: np.ndarray) -> "csr_matrix":
    """Draw counts for `[cells, G]` log levels; return them scaled to the median depth and log1p-transformed."""
    from scipy.sparse import csr_matrix

    target = sizes.counts_per_gene * sizes.n_genes
    depth = target * np.exp(rng.normal(0.0, _DEPTH_SPREAD, (len(log_level), 1)))
    counts = rng.poisson(depth * _shares(log_level) * rng.gamma(_DISPERSION, 1 / _DISPERSION, log_level.shape))
    scale = target / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return csr_matrix(np.log1p(counts * scale).astype(np.float32))


def _expected_effects(
    rng: np.random.Generator, sizes: ScreenSizes, truth: ScreenTruth, log_level: np.ndarray, draws: int = 40_000
) -> np.ndarray:
    """Return the expected shift of log-normalised expression, `[P, L, G]` float32.

    The expectation of log1p(scaled count) depends on a gene's share of the counts only. It is taken once over
    `draws` cells on a grid of shares and interpolated, so its error (about 0.003) does not grow with the screen.
    """
    target = sizes.counts_per_gene * sizes.n_genes
    control = _shares(log_level)
    lowest, highest = control.min(), control.max()
    for line, level in enumerate(log_level):
        changed = _shares(level + truth.log_fold_change[:, line])
        lowest, highest = min(lowest, changed.min()), max(highest, changed.max())
    grid = np.linspace(np.log(lowest), np.log(highest), 160)
    depth = target * np.exp(rng.normal(0.0, _DEPTH_SPREAD, draws))
    size = depth * rng.gamma(_DISPERSION, 1 / _DISPERSION, draws)
    expected = np.array([np.log1p(rng.poisson(size * np.exp(point)) * target / depth).mean() for point in grid])
    effects = np.empty(truth.log_fold_change.shape, dtype=np.float32)
    for line, level in enumerate(log_level):
        changed = np.log(_shares(level + truth.log_fold_change[:, line]))
        effects[:, line] = np.interp(changed, grid, expected) - np.interp(np.log(control[line]), grid, expected)
    return effects


def _shares(log_level: np.ndarray) -> np.ndarray:
    """Return each gene's share of a cell's counts, along the last axis."""
    share = np.exp(log_level)
    return share / share.sum(axis=-1, keepdims=True)


def _write(folder: Path, drawn: _Drawn) -> SimulatedScreen:
    """Write the four files."""
    from state_rag.embeddings.table import Embeddings
    from state_rag.embeddings.writers import write_embeddings

    paths = SimulatedScreen(
        h5ad=folder / "screen.h5ad",
        embeddings=folder / "embeddings.safetensors",
        truth=folder / "truth.json",
        truth_effects=folder / "truth_effects.npz",
    )
    sizes, truth, adata = drawn.sizes, drawn.truth, drawn.adata
    kept = [i for i, name in enumerate(truth.perturbations) if name not in drawn.missing]
    table = Embeddings(
        names=tuple(truth.perturbations[i] for i in kept),
        vectors=truth.embeddings[kept],
        source="simulated",
        provenance={"made_by": "state-rag data simulate", "seed": str(sizes.seed)},
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_h5ad(adata, paths.h5ad)
        write_embeddings(paths.embeddings, table)
        with atomic_path(paths.truth) as temporary:
            temporary.write_text(json.dumps(_describe(sizes, truth, drawn.missing, drawn.unseen), indent=1) + "\n")
        with atomic_path(paths.truth_effects) as temporary:
            np.savez_compressed(
                temporary,
                perturbations=np.array(truth.perturbations),
                lines=np.array(truth.lines),
                genes=np.array(truth.genes),
                highly_variable=adata.var["highly_variable"].to_numpy(),
                effects=drawn.effects,
            )
    except OSError as error:
        raise StateRagError(
            f"{folder}: the simulated screen cannot be written ({reason(error)}). Free disk space, or choose another "
            "folder."
        ) from error
    return paths


def _describe(sizes: ScreenSizes, truth: ScreenTruth, missing: list[str], unseen: list[str]) -> dict[str, Any]:
    """Return the contents of `truth.json`."""
    names = truth.perturbations
    return {
        "control": CONTROL,
        "module": {name: truth.modules[truth.module_of[i]] for i, name in enumerate(names)},
        "topic": {name: truth.modules[truth.topic_of[i]] for i, name in enumerate(names)},
        "mates": {name: truth.mates(i) for i, name in enumerate(names)},
        "misleading": {name: truth.misleading(i) for i, name in enumerate(names)},
        "gain": {
            module: {line: round(float(truth.gain[m, j]), 4) for j, line in enumerate(truth.lines)}
            for m, module in enumerate(truth.modules)
        },
        "missing_embedding": missing,
        "unseen": unseen,
        "seed": sizes.seed,
        "parameters": {name: value for name, value in asdict(sizes).items() if name != "seed"},
    }
