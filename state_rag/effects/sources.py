"""Mean effects of cells that lie in memory, in a backed file, in many files, or in what a split trains on."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse

from state_rag.cell_files import CellFile, is_store, text_at
from state_rag.contract.feature_names import names_in_anndata, names_in_file
from state_rag.contract.matrices import ArrayRows, Block, Rows, open_rows, without_repeats
from state_rag.datasets.data_files import find_data_files, is_pattern
from state_rag.datasets.doubled_labels import refuse_doubled_in_files, refuse_doubled_in_memory
from state_rag.datasets.effects_tables import refuse_effects_table
from state_rag.datasets.formats.known import names_or_usual
from state_rag.datasets.splitting.split_toml import read_split
from state_rag.datasets.treated_labels import TreatmentColumns, labels_in
from state_rag.effects.cell_scale import refuse_mixed_scales, tell_scale
from state_rag.effects.conditions import Columns
from state_rag.effects.group_totals import GroupTotals
from state_rag.effects.mean_effects import KIND, MeanEffects, is_mean_effects
from state_rag.effects.shard_pass import CellsOf, add_files
from state_rag.effects.shards import grouped
from state_rag.effects.training_effects import training_effects
from state_rag.effects.workers import Workers
from state_rag.errors import StateRagError
from state_rag.h5ad import obs_columns, open_cells, open_h5ad, read_column
from state_rag.names import suggest

if TYPE_CHECKING:
    import anndata


class _BackedRows:
    """Rows of a matrix of a backed AnnData object, read as they are asked for."""

    def __init__(self, adata: "anndata.AnnData", matrix: str, shape: tuple[int, int]):
        self.adata, self.matrix, self.shape = adata, matrix, shape

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Return the given rows, in the given order, as float32 `[len(rows), features]`."""
        order = np.argsort(rows, kind="stable")
        part = _values(self.adata[rows[order]], self.matrix)
        out = np.empty((len(rows), self.shape[1]), dtype=np.float32)
        out[order] = part.toarray() if sparse.issparse(part) else part
        return out

    def block(self, start: int, stop: int) -> Block:
        """Return the rows from `start` to before `stop` as they are stored: dense, or CSR."""
        part = _values(self.adata[start:stop], self.matrix)
        return without_repeats(part.tocsr()) if sparse.issparse(part) else np.asarray(part)


def from_anndata(
    adata: "anndata.AnnData",
    *,
    perturbation: str | None = None,
    context: str | None = None,
    control: str | None = None,
    matrix: str = "X",
    mode: str | None = None,
    dose: str | None = None,
    time: str | None = None,
    progress: bool = False,
) -> "anndata.AnnData":
    """Return the mean effect of every perturbation in every context (cell line) of some cells.

    Parameters
    ----------
    adata
        Cells, in memory or backed; a backed file is read in chunks.
    perturbation, context
        Columns of `obs`. Cells without a label in either are left out. By default those of the format that `obs` has
        (`datasets.formats`), else `gene` and `cell_line`.
    control
        Label of control cells; by default that of the format, else `non-targeting`. A context without them is left out
        and named in `uns["state_rag"]["left_out"]`.
    matrix
        `X`, `layers/NAME` or `obsm/NAME`: log-normalised expression, dense or CSR.
    mode, dose, time
        Columns of `obs` that tell mode (CRISPRi, CRISPRa, KO, drug), dose and time; then a condition is one of these
        too, and `obs["perturbation"]` has labels such as `TP53:CRISPRi` or `Afatinib:dose=0.5:time=24`.
    progress
        Whether to show a progress bar.

    Returns
    -------
    anndata.AnnData
        One row a condition, controls aside, by context and perturbation: `X` the effect (mean minus the mean of the
        context's controls), `layers["mean"]`, `layers["std"]` (between cells, unbiased variance), `obs` with
        `perturbation`, `context`, `n_cells`, `varm["control_mean"]` and `varm["control_std"]` (genes x contexts).

    Raises
    ------
    StateRagError
        If a column or matrix is missing, a combination has two labels (`A+B`, `B+A`), or no context has both controls
        and perturbed cells.

    Examples
    --------
    >>> import state_rag as sr
    >>> cells = sr.datasets.screen(n_perturbations=4, n_genes=40)
    >>> effects = sr.effects.from_anndata(cells)
    >>> effects.shape, sorted(effects.layers)
    ((16, 40), ['mean', 'std'])
    """
    perturbation, context, control = names_or_usual(
        list(map(str, adata.obs.columns)), lambda column: _labels_of(adata.obs, column), perturbation, context, control
    )
    columns = Columns(perturbation, context, control, TreatmentColumns(mode, dose, time))
    for column, parameter in ((perturbation, "perturbation"), (context, "context")):
        if column not in adata.obs:
            raise StateRagError(
                f"obs has no column {column!r}; it has {', '.join(map(str, adata.obs.columns))}"
                f"{suggest([column], map(str, adata.obs.columns))}. Name the right one with `{parameter}`."
            )
    refuse_doubled_in_memory(_labels_of(adata.obs, perturbation), control, perturbation)
    values = _values(adata, matrix)
    shape = int(values.shape[0]), int(values.shape[1])
    rows: Rows = _BackedRows(adata, matrix, shape) if adata.isbacked else ArrayRows(values)
    tell_scale(rows, matrix)
    groups, group_of = _groups(adata.obs, columns)
    totals = GroupTotals(squares=True)
    totals.add(rows, groups, group_of, "mean effects", progress)
    source = [str(adata.filename)] if adata.isbacked else []
    names = names_in_anndata(adata, matrix) or [f"feature_{number}" for number in range(shape[1])]
    found = MeanEffects.from_totals(totals, control, source)
    return found.to_anndata(names, control, treated=bool(columns.treatment))


def read(
    source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    perturbation: str | None = None,
    context: str | None = None,
    control: str | None = None,
    matrix: str = "X",
    mode: str | None = None,
    dose: str | None = None,
    time: str | None = None,
    progress: bool = True,
    scheduler: str | None = None,
    workers: int | None = None,
) -> "anndata.AnnData":
    """Return mean effects that were written, or of the cells of files, which are read in blocks.

    Parameters
    ----------
    source
        A file that `write` made (read as it is); or h5ad files or zarr stores of cells: one, several, a folder or a
        pattern (`shards/*.h5ad`) of them; or a split (`.toml`), of which only training cells count.
    perturbation, context, control, matrix, mode, dose, time, progress
        As in `from_anndata`; `matrix` is `X` or `obsm/NAME`.
    scheduler
        Address of a Dask scheduler whose workers read the files; they see them at the same places.
    workers
        So many Dask workers of its own read them, a process each. By default threads of this process do.

    Returns
    -------
    anndata.AnnData
        As `from_anndata` returns it. Cells of one condition count together whichever file they lie in. Genes are those
        of the first file, in its order; in other files they are found by name.

    Raises
    ------
    StateRagError
        If a file is missing or unreadable, lacks genes of the first or has values on another scale, or a combination
        has two labels; if a file holds effects that `write` did not make, which `anndata.read_h5ad` reads.
    """
    readers = Workers(scheduler, workers)
    given = [source] if isinstance(source, (str, os.PathLike)) else list(source)
    treatment = TreatmentColumns(mode, dose, time)
    if len(given) == 1 and Path(given[0]).suffix == ".toml":
        return _of_split(Path(given[0]), (perturbation, context, control), treatment, matrix, readers, progress)
    files = list(dict.fromkeys(file for place in given for file in _cell_files(place)))
    if not files:
        raise StateRagError("no files are given; name h5ad files or zarr stores of cells, or a split")
    if len(files) == 1 and (stored := _stored(files[0])) is not None:
        return stored
    for file in files:
        with open_cells(file) as opened:
            if _kind(opened) == KIND:
                raise StateRagError(f"{file}: holds mean effects, not cells; read it alone")
    if len(files) == 1 and not is_store(files[0]):
        with open_h5ad(files[0]) as opened:
            refuse_effects_table(opened, control)
    columns = Columns(*_names_in(files[0], perturbation, context, control), treatment)
    refuse_doubled_in_files(files, columns.control, columns.perturbation)
    refuse_mixed_scales(files, matrix)
    totals = GroupTotals(squares=True)
    sources = [CellsOf(file) for file in files]
    aligned = add_files(totals, sources, columns, matrix, workers=readers, progress=progress)
    names = aligned.names or [f"feature_{number}" for number in range(aligned.width or 0)]
    effects = MeanEffects.from_totals(totals, columns.control, [str(file) for file in files])
    return effects.to_anndata(names, columns.control, treated=bool(columns.treatment))


def _names_in(file: Path, perturbation: str | None, context: str | None, control: str | None) -> tuple[str, str, str]:
    """Return columns and control as `names_or_usual` finds them in a file of cells."""
    with open_cells(file) as opened:
        return names_or_usual(
            obs_columns(opened),
            lambda column: read_column(opened, column, "perturbation")[0].tolist(),
            perturbation,
            context,
            control,
        )


def _labels_of(obs: pd.DataFrame, column: str) -> list[str]:
    return obs[column].dropna().astype(str).unique().tolist()


def _of_split(
    path: Path,
    named: tuple[str | None, str | None, str | None],
    treatment: TreatmentColumns,
    matrix: str,
    workers: Workers,
    progress: bool,
) -> "anndata.AnnData":
    split = read_split(path)
    for place in split.datasets.values():
        file = _cell_files(place)[0]
        columns = Columns(*_names_in(file, *named), treatment)
        every = [one for where in split.datasets.values() for one in _cell_files(where)]
        refuse_doubled_in_files(every, columns.control, columns.perturbation)
        refuse_mixed_scales(every, matrix)
        with open_cells(file) as opened:
            width = open_rows(opened, matrix).shape[1]
            names = names_in_file(opened, matrix)
        found = training_effects(
            split, columns, matrix, width, names=names, squares=True, progress=progress, workers=workers
        )
        features = names or [f"feature_{number}" for number in range(width)]
        return found.to_anndata(features, columns.control, treated=bool(columns.treatment))
    raise StateRagError(f"{path}: names no data")


def _cell_files(place: str | os.PathLike[str]) -> list[Path]:
    """Return the files of cells that a name stands for: itself, those of a folder, or matches of a pattern."""
    found = Path(place).exists() or is_pattern(place)
    return find_data_files(str(place), str(place)) if found else [Path(place)]


def _kind(file: CellFile) -> str | None:
    found = text_at(file, "uns/state_rag/kind")
    return None if found is None else str(found[0])


def _stored(path: Path) -> "anndata.AnnData | None":
    """Return the mean effects in a file, or None if it holds something else."""
    with open_cells(path) as file:
        if _kind(file) != KIND:
            return None
    import anndata

    adata = anndata.read_zarr(path) if is_store(path) else anndata.read_h5ad(path)
    return adata if is_mean_effects(adata) else None


def _values(adata: "anndata.AnnData", matrix: str) -> Any:
    kind, _, name = matrix.partition("/")
    try:
        if kind == "X" and not name:
            return adata.X
        return {"layers": adata.layers, "obsm": adata.obsm}[kind][name]
    except KeyError:
        have = ["X", *(f"layers/{key}" for key in adata.layers), *(f"obsm/{key}" for key in adata.obsm)]
        raise StateRagError(f"there is no matrix '{matrix}'; choose from {', '.join(have)} with `matrix`") from None


def _groups(obs: pd.DataFrame, columns: Columns) -> tuple[list[tuple[str, str]], np.ndarray]:
    """Return the (context, perturbation) pairs, and each cell's number among them; -1 without a label."""
    lines = obs[columns.cell_line].astype("category").cat
    told = labels_in(obs, columns.perturbation, columns.control, columns.treatment)
    keys, group_of = grouped(lines.categories.to_numpy(), np.asarray(lines.codes, dtype=np.int64), told)
    return [(line, label) for line, label, _ in keys], group_of
