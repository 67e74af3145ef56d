"""Turn an h5ad file that upstream cannot read into one that it can, saying every change."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from state_rag.contract.feature_names import MemoryMatrices
from state_rag.contract.space import read_space
from state_rag.datasets.formats.in_files import rewrite
from state_rag.datasets.preparing.alike import read_model, take_genes, take_hvgs
from state_rag.datasets.preparing.hvgs import fix_hvgs
from state_rag.datasets.preparing.labels import fix_indices, fix_obs, write_treatments
from state_rag.datasets.preparing.names import find_names, rename
from state_rag.datasets.preparing.values import fix_values
from state_rag.errors import StateRagError
from state_rag.h5ad_writing import write_h5ad


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
    mode_col: str | None = None,
    dose_col: str | None = None,
    time_col: str | None = None,
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
        Where to write; default: `NAME.prepared.h5ad` beside the input. A file there that says something else is kept,
        with `.before` at the end of its name.
    pert_col, cell_type_col, batch_col, control
        The obs columns and the control; found by their usual names where left out. Where there is no batch column,
        one is added that puts all cells in one batch.
    one_line
        The cell line of all cells, where no column names it: an obs column `cell_line` is added. Where no column looks
        like one, that happens by itself, and the line is called `one_line`.
    mode_col, dose_col, time_col
        Obs columns of mode, dose and time: perturbations become labels that tell them, such as `Afatinib:dose=0.5`.
    n_hvgs
        Genes of `X_hvg`. Given, `X_hvg` is made anew; left out, an `X_hvg` or a `var["highly_variable"]` in the file
        is kept, and else 2,000 genes (all, if there are fewer) are chosen.
    replogle_names
        Rename the columns and the control to `gene`, `cell_line`, `gem_group` and `non-targeting`.
    like
        An h5ad file, or the folder of a run: take its genes in its order, in `X` and in `X_hvg`, and what its cells
        come to over these. With `common` there may be several, and the file itself may be among them.
    common
        Take only the genes that `like` and the file all have, in the order of the first. Prepare several files with the
        same `like`, which names all of them.

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
        raise StateRagError("--one-line is for files without a column of cell lines; leave it or --cell-type-key out.")
    if common and not like:
        raise StateRagError("--common says which genes to keep beside those of other files; name them with --like.")
    if n_hvgs is not None and like:
        raise StateRagError("--n-hvgs chooses genes of X_hvg, and --like takes those of another file. Leave one out.")
    model = read_model([*like, *([file] if common else [])], common) if like else None
    names, one_line, plain = find_names(file, pert_col, cell_type_col, one_line, batch_col, control)
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
            f"{one_line!r} (--one-line NAME calls it otherwise; --cell-type-key COLUMN names a column)"
        )
    adata = fix_obs(adata, names, changes)
    changes += rewrite(adata.obs, names["pert_col"], plain)
    write_treatments(adata.obs, names["pert_col"], names["control"], (mode_col, dose_col, time_col), changes)
    fix_indices(adata, changes)
    before = None
    if model is not None:
        whole, adata = adata, take_genes(adata, model, common, changes)
        before = None if adata is whole or whole.X is None else read_space(MemoryMatrices(whole), "X").scale
        del whole
    fix_values(adata, file, None if model is None else model.total, changes, before)
    if model is None or not take_hvgs(adata, model, common, changes):
        fix_hvgs(adata, n_hvgs, changes)
    if replogle_names:
        names = rename(adata, names, changes)
    if changes or output is not None:
        write_h5ad(adata, target, keep=True)
    else:
        target = file
    return Prepared(
        path=target,
        changes=tuple(changes),
        n_hvgs=adata.obsm["X_hvg"].shape[1],
        cell_types=tuple(sorted(adata.obs[names["cell_type_col"]].cat.categories)),
        **names,
    )
