"""Turn an h5ad file that upstream cannot read into one that it can, saying every change."""

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from state_rag.contract.feature_names import HVG, MemoryMatrices, column_names
from state_rag.contract.scale import LARGEST_LOG
from state_rag.contract.space import not_finite, read_space, unsuited
from state_rag.datasets.alike import read_model, rescale, take_genes, take_hvgs
from state_rag.datasets.columns import (
    BATCH_COLUMNS,
    CELL_TYPE_COLUMNS,
    PERTURBATION_COLUMNS,
    find_column,
    find_control,
)
from state_rag.datasets.effects_tables import refuse_effects_table
from state_rag.datasets.first_look import look_at
from state_rag.datasets.formats.in_files import names_by_format, rewrite, told_labels
from state_rag.datasets.guesses import guess_line
from state_rag.errors import StateRagError
from state_rag.h5ad import obs_columns, open_h5ad, read_column, write_h5ad

if TYPE_CHECKING:
    import anndata

DEFAULT_HVGS = 2000
REPLOGLE_NAMES = {
    "pert_col": "gene",
    "cell_type_col": "cell_line",
    "batch_col": "gem_group",
    "control": "non-targeting",
}
ONE_LINE = "one_line"
"""The cell line of all cells where no column names one and the user does not either."""


@dataclass(frozen=True)
class Prepared:
    """A file that upstream can read.

    Attributes
    ----------
    path
        Where it lies; the input itself where nothing had to change and no output was named.
    changes
        One sentence for each change; empty if there was none.
    pert_col, cell_type_col, batch_col, control
        What upstream has to be told (`data.kwargs.*`).
    n_hvgs
        Width of `obsm["X_hvg"]`.
    cell_types
        The cell lines, sorted.
    """

    path: Path
    changes: tuple[str, ...]
    pert_col: str
    cell_type_col: str
    batch_col: str
    control: str
    n_hvgs: int
    cell_types: tuple[str, ...]


def prepare(
    file: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    *,
    pert_col: str | None = None,
    cell_type_col: str | None = None,
    one_line: str | None = None,
    batch_col: str | None = None,
    control: str | None = None,
    n_hvgs: int | None = None,
    replogle_names: bool = False,
    like: Sequence[str | os.PathLike[str]] = (),
    common: bool = False,
) -> Prepared:
    """Write a copy of an h5ad file that upstream can read; the input is left as it is.

    Index names are taken away, labels that other formats write otherwise are rewritten (`formats`), the three obs
    columns become categorical without unused or missing values, a missing batch column is added, counts are normalised
    and log1p-transformed, matrices become float32 and CSR, and `obsm["X_hvg"]` is made where it is missing. The whole
    file is held in memory.

    Parameters
    ----------
    file
        The h5ad file.
    output
        Where to write; default: `NAME.prepared.h5ad` beside the input.
    pert_col, cell_type_col, batch_col, control
        The obs columns and the control; found by their usual names where left out. Where there is no batch column,
        one is added that puts all cells in one batch.
    one_line
        The cell line of all cells, where no column names it: an obs column `cell_line` is added. Where no column looks
        like one, that happens by itself, and the line is called `one_line`.
    n_hvgs
        Genes of `X_hvg`. Given, `X_hvg` is made anew; left out, an `X_hvg` or a `var["highly_variable"]` in the file
        is kept, and else 2,000 genes (all, if there are fewer) are chosen.
    replogle_names
        Rename the columns and the control to `gene`, `cell_line`, `gem_group` and `non-targeting`.
    like
        An h5ad file, or the folder of a run: take its genes in its order, in `X` and in `X_hvg`, and its total. With
        `common` there may be several.
    common
        Take only the genes that `like` and the file all have. Prepare the others with the same `like` and this file.

    Returns
    -------
    Prepared
        The file, the changes and the names to give to upstream.

    Raises
    ------
    StateRagError
        If the file cannot be read, a column or the control is not found, `X` holds NaN, infinite or negative values, or
        genes of `like` are missing.
    """
    import anndata

    file = Path(file)
    target = Path(output) if output is not None else file.with_name(f"{file.stem}.prepared.h5ad")
    if target.exists() and file.exists() and target.samefile(file):
        raise StateRagError(f"{target}: is the input itself; name another output with -o.")
    if n_hvgs is not None and n_hvgs < 1:
        raise StateRagError(f"--n-hvgs {n_hvgs}: expected at least 1.")
    if one_line is not None and cell_type_col is not None:
        raise StateRagError("--one-line is for files without a column of cell lines; leave it or --cell-type-col out.")
    if common and not like:
        raise StateRagError("--common says which genes to keep beside those of other files; name them with --like.")
    if n_hvgs is not None and like:
        raise StateRagError("--n-hvgs chooses genes of X_hvg, and --like takes those of another file. Leave one out.")
    model = read_model([*like, *([file] if common else [])], common) if like else None
    names, one_line, plain = _find_names(file, pert_col, cell_type_col, one_line, batch_col, control)
    try:
        adata = anndata.read_h5ad(file)
    except Exception as error:  # noqa: BLE001  # anndata wraps what HDF5 and the parsers raise in types of its own
        raise StateRagError(
            f"{file}: anndata cannot read it ({str(error).splitlines()[0] if str(error) else type(error).__name__}). "
            "The file is damaged or not an h5ad file; copy or download it again."
        ) from error
    changes: list[str] = []
    if one_line is not None:
        import pandas as pd

        adata.obs[names["cell_type_col"]] = pd.Categorical([one_line] * adata.n_obs)
        changes.append(
            f"added obs column {names['cell_type_col']!r}: no column names the cell line, so all cells are of one, "
            f"{one_line!r} (--one-line NAME calls it otherwise; --cell-type-col COLUMN names a column)"
        )
    adata = _fix_obs(adata, names, changes)
    changes += rewrite(adata.obs, names["pert_col"], plain)
    _fix_indices(adata, changes)
    if model is not None:
        adata = take_genes(adata, model, common, changes)
    _fix_values(adata, file, None if model is None else model.total, changes)
    if model is None or not take_hvgs(adata, model, common, changes):
        _fix_hvgs(adata, n_hvgs, changes)
    if replogle_names:
        names = _rename(adata, names, changes)
    if changes or output is not None:
        write_h5ad(adata, target)
    else:
        target = file
    return Prepared(
        path=target,
        changes=tuple(changes),
        n_hvgs=adata.obsm["X_hvg"].shape[1],
        cell_types=tuple(sorted(adata.obs[names["cell_type_col"]].cat.categories)),
        **names,
    )


def _find_names(
    path: Path,
    pert_col: str | None,
    cell_type_col: str | None,
    one_line: str | None,
    batch_col: str | None,
    control: str | None,
) -> tuple[dict[str, str], str | None, dict[str, str]]:
    """Return columns and control, reading obs only, the name of the line whose column is yet to be added, and labels.

    Labels are those that the file's format writes otherwise, each with how it is written here.

    The batch column may be one that is yet to be added, too.
    """
    with open_h5ad(path) as file:
        refuse_effects_table(file, control)
        pert_col, cell_type_col, batch_col, control = names_by_format(file, pert_col, cell_type_col, batch_col, control)
        pert_col = find_column(file, pert_col, PERTURBATION_COLUMNS, "perturbation", "--pert-col")
        if one_line is None and cell_type_col is None and not {*CELL_TYPE_COLUMNS} & {*obs_columns(file)}:
            _refuse_likely_line(path, pert_col)
            one_line = ONE_LINE
        if one_line is None:
            cell_type_col = find_column(file, cell_type_col, CELL_TYPE_COLUMNS, "cell line", "--cell-type-col")
        else:
            cell_type_col = REPLOGLE_NAMES["cell_type_col"]
            if cell_type_col in obs_columns(file):
                raise StateRagError(
                    f"{path}: --one-line adds obs column {cell_type_col!r}, and there is one already. Leave it out."
                )
        if batch_col is not None or any(name in obs_columns(file) for name in BATCH_COLUMNS):
            batch_col = find_column(file, batch_col, BATCH_COLUMNS, "batch", "--batch-col")
        categories, codes = read_column(file, pert_col, "--pert-col")
        plain = told_labels(file, pert_col)
    used = categories[np.unique(codes[codes >= 0])].tolist()
    control = find_control(used, control, f"{path}, obs column {pert_col!r}", "--control")
    found = {
        "pert_col": pert_col,
        "cell_type_col": cell_type_col,
        "batch_col": batch_col if batch_col is not None else REPLOGLE_NAMES["batch_col"],
        "control": control,
    }
    return found, one_line, plain


def _refuse_likely_line(path: Path, pert_col: str) -> None:
    """Refuse to take all cells for one line where an obs column of an unusual name looks like the cell line."""
    look = look_at(path)
    guess = guess_line(look, look.columns.get(pert_col))
    if guess.value is not None:
        raise StateRagError(
            f"{path}: no obs column with a usual name for the cell line ({', '.join(CELL_TYPE_COLUMNS)}), but "
            f"{guess.value!r} looks like one ({guess.why}). Say so with --cell-type-col {shlex.quote(guess.value)}; if "
            "all cells are of one line, name it: --one-line NAME."
        )


def _fix_obs(adata: "anndata.AnnData", names: dict[str, str], changes: list[str]) -> "anndata.AnnData":
    """Make the three columns categorical, without missing and unused values; add the batch column."""
    import pandas as pd

    if names["batch_col"] not in adata.obs:
        adata.obs[names["batch_col"]] = pd.Categorical(["1"] * adata.n_obs)
        changes.append(
            f"added obs column {names['batch_col']!r}: no batch column was found, so all cells are one batch"
        )
    columns = [names[key] for key in ("pert_col", "cell_type_col", "batch_col")]
    missing = adata.obs[columns].isna().any(axis=1).to_numpy()
    if missing.any():
        adata = adata[~missing].copy()
        changes.append(f"left out {int(missing.sum()):,} cells without a value in {', '.join(columns)}")
    for column in columns:
        values = adata.obs[column]
        if not isinstance(values.dtype, pd.CategoricalDtype):
            adata.obs[column] = pd.Categorical(_as_labels(values))
            changes.append(f"stored obs column {column!r} as categorical (was {values.dtype})")
            continue
        if not all(isinstance(category, str) for category in values.cat.categories):
            adata.obs[column] = pd.Categorical(_as_labels(values))
            changes.append(f"turned the values of obs column {column!r} into text")
        unused = len(values.cat.categories) - values.nunique()
        if unused:
            adata.obs[column] = adata.obs[column].cat.remove_unused_categories()
            changes.append(f"removed {unused} unused categories from obs column {column!r}")
    return adata


def _as_labels(values: Any) -> list[str]:
    """Return values as text; whole numbers stored as floats lose their `.0`."""
    return [str(int(v)) if isinstance(v, float) and v.is_integer() else str(v) for v in values.tolist()]


def _fix_indices(adata: "anndata.AnnData", changes: list[str]) -> None:
    """Take the index names away and make obs and var names unique."""
    for axis, frame in (("var", adata.var), ("obs", adata.obs)):
        if frame.index.name is not None:
            changes.append(f"removed the name {frame.index.name!r} of the {axis} index")
            frame.index.name = None
    if not adata.obs_names.is_unique:
        adata.obs_names_make_unique()
        changes.append("made the obs names unique")
    if not adata.var_names.is_unique:
        adata.var_names_make_unique()
        changes.append("made the var names unique")


def _fix_values(adata: "anndata.AnnData", path: Path, total: float | None, changes: list[str]) -> None:
    """Check X; make it float32, CSR where sparse, and log-normalised, to `total` where one is wanted."""
    from scipy import sparse

    matrix: Any = adata.X
    if matrix is None:
        raise StateRagError(f"{path}: has no X. Expected counts or log-normalised expression, cells x genes.")
    if sparse.issparse(matrix) and matrix.format != "csr":
        changes.append(f"stored X row by row (CSR, was {matrix.format.upper()})")
        matrix = matrix.tocsr()
    if sparse.issparse(matrix):
        matrix.sum_duplicates()
    values = matrix.data if sparse.issparse(matrix) else np.asarray(matrix)
    if not np.isfinite(values).all():
        raise StateRagError(
            f"{path}: X holds {int((~np.isfinite(values)).sum()):,} NaN or infinite values. Give counts or "
            "log-normalised expression without them."
        )
    if values.size and values.min() < 0:
        raise StateRagError(
            f"{path}: X holds negative values (least {float(values.min()):.3g}), so it was centred or scaled. Give "
            "counts or log-normalised expression; the unscaled matrix may lie in `raw` or `layers` of the file."
        )
    if matrix.dtype != np.float32:
        changes.append(f"stored X as float32 (was {matrix.dtype})")
        matrix = matrix.astype(np.float32)
    adata.X = matrix
    scale = read_space(MemoryMatrices(adata), "X").scale
    whole = scale.kind == "counts" and bool(np.all(values == np.floor(values)))
    if whole or scale.kind == "linear" or (values.size and float(values.max()) > LARGEST_LOG):
        _log_normalise(adata, whole, scale.maximum, total, changes)
        return
    adata.X = rescale(adata.X, scale, total, changes)
    if "log1p" not in adata.uns:
        adata.uns["log1p"] = {}
        changes.append(f"marked X as log1p-transformed (largest value {scale.maximum:.2f}, not whole numbers)")


def _log_normalise(
    adata: "anndata.AnnData", whole: bool, largest: float, total: float | None, changes: list[str]
) -> None:
    """Scale counts to a total (the median depth) and take log1p; data scaled but not logged only get the log."""
    import scanpy

    adata.uns.pop("log1p", None)
    if whole:
        scanpy.pp.normalize_total(adata, target_sum=total)
        depth = "the median depth" if total is None else f"{total:,.0f}"
        changes.append(f"X held counts (whole numbers): scaled each cell to {depth} and took log1p")
    else:
        changes.append(f"X was not log-transformed (largest value {largest:.4g}): took log1p")
    scanpy.pp.log1p(adata)
    adata.uns["log1p"] = {}
    if "X_hvg" in adata.obsm:
        names = column_names(MemoryMatrices(adata), HVG).names
        if names is not None and set(names) <= set(adata.var_names):
            adata.var["highly_variable"] = adata.var_names.isin(names)
        del adata.obsm["X_hvg"]
        changes.append("left out obsm['X_hvg'], which came from X as it was")


def _fix_hvgs(adata: "anndata.AnnData", n_hvgs: int | None, changes: list[str]) -> None:
    """Make `obsm["X_hvg"]`, or bring the one there is to dense float32."""
    from scipy import sparse

    from state_rag.datasets.hvg import highly_variable

    if n_hvgs is None and _keeps_hvgs(adata, changes):
        return
    own = adata.var.get("highly_variable")
    if own is not None and n_hvgs is None and own.to_numpy(dtype=bool).any():
        mask = own.to_numpy(dtype=bool)
        origin = "var['highly_variable'] of the file"
    else:
        mask = highly_variable(adata, DEFAULT_HVGS if n_hvgs is None else n_hvgs)
        origin = "all genes, since there are no more" if mask.all() else "the most variable genes, by scanpy"
    adata.var["highly_variable"] = mask
    chosen: Any = adata.X[:, mask]  # type: ignore[index]
    adata.obsm["X_hvg"] = (chosen.toarray() if sparse.issparse(chosen) else np.array(chosen)).astype(np.float32)
    changes.append(f"made obsm['X_hvg'] from {int(mask.sum()):,} genes ({origin})")


def _keeps_hvgs(adata: "anndata.AnnData", changes: list[str]) -> bool:
    """Keep an `X_hvg` that is there, as dense float32, if its values and names are sound; else take it away."""
    from scipy import sparse

    present: Any = adata.obsm.get("X_hvg")
    if present is None:
        return False
    space = read_space(MemoryMatrices(adata), HVG)
    wrong = not_finite(space) or next(iter(unsuited(space) or ()), "")
    if space.note or (not wrong and space.names is None and "highly_variable" in adata.var):
        wrong = space.note or "obsm['X_hvg'] has not the genes that var['highly_variable'] says."
    if wrong:
        if space.names is not None and set(space.names) <= set(adata.var_names):
            adata.var["highly_variable"] = adata.var_names.isin(space.names)
        elif space.note:
            adata.var = adata.var.drop(columns="highly_variable", errors="ignore")
        adata.uns.pop("hvg_names", None)
        changes.append(f"left out obsm['X_hvg'] as it was: {wrong}")
        return False
    if sparse.issparse(present) or not isinstance(present, np.ndarray) or present.dtype != np.float32:
        dense = present.toarray() if sparse.issparse(present) else np.asarray(present)
        adata.obsm["X_hvg"] = dense.astype(np.float32)
        changes.append("stored obsm['X_hvg'] as a dense float32 matrix")
    return True


def _rename(adata: "anndata.AnnData", names: dict[str, str], changes: list[str]) -> dict[str, str]:
    """Give the three columns and the control the names of the Replogle data."""
    for key in ("pert_col", "cell_type_col", "batch_col"):
        old, new = names[key], REPLOGLE_NAMES[key]
        if old == new:
            continue
        if new in adata.obs:
            adata.obs = adata.obs.rename(columns={new: f"{new}_original"})
            changes.append(f"renamed the obs column {new!r} that was there to '{new}_original'")
        adata.obs = adata.obs.rename(columns={old: new})
        changes.append(f"renamed obs column {old!r} to {new!r}")
    old, new = names["control"], REPLOGLE_NAMES["control"]
    if old != new:
        column = adata.obs[REPLOGLE_NAMES["pert_col"]]
        if new in column.cat.categories:
            raise StateRagError(
                f"obs column {names['pert_col']!r} has both {old!r} and {new!r}: --replogle-names would merge them. "
                f"Choose the control with --control {new}."
            )
        adata.obs[REPLOGLE_NAMES["pert_col"]] = column.cat.rename_categories({old: new})
        changes.append(f"renamed the control {old!r} to {new!r}")
    return dict(REPLOGLE_NAMES)
