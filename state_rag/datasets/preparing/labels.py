"""Columns of labels and indices as upstream needs them: categorical, without missing values, unique, without a name."""

from typing import TYPE_CHECKING, Any

from state_rag.datasets.treated_labels import TreatmentColumns, labels_in
from state_rag.names import listing

if TYPE_CHECKING:
    import anndata
    import pandas as pd


def fix_obs(adata: "anndata.AnnData", names: dict[str, str], changes: list[str]) -> "anndata.AnnData":
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


def write_treatments(
    obs: "pd.DataFrame", perturbation: str, control: str, columns: tuple[str | None, ...], changes: list[str]
) -> None:
    """Write mode, dose and time of cells into the labels of their perturbations, where columns of these are named."""
    import pandas as pd

    treatment = TreatmentColumns(*columns)
    if not treatment:
        return
    told = labels_in(obs, perturbation, control, treatment)
    obs[perturbation] = pd.Categorical(told.labels[told.code].astype(str))
    written = [label for label in obs[perturbation].cat.categories if label != control]
    changes.append(
        f"wrote {', '.join(sorted(set(treatment.to_data().values())))} into the labels of obs column {perturbation!r}, "
        f"which are {len(written)} now ({listing(written, 3)})"
    )


def _as_labels(values: Any) -> list[str]:
    """Return values as text; whole numbers stored as floats lose their `.0`."""
    return [str(int(v)) if isinstance(v, float) and v.is_integer() else str(v) for v in values.tolist()]


def fix_indices(adata: "anndata.AnnData", changes: list[str]) -> None:
    """Take the index names away and make obs and var names unique."""
    for axis, frame in (("var", adata.var), ("obs", adata.obs)):
        if frame.index.name is not None:
            changes.append(f"removed the name {frame.index.name!r} of the {axis} index")
            frame.index.name = None
    if not adata.obs_names.is_unique:
        adata.obs_names_make_unique()
        changes.append("made the obs names unique")
    if not adata.var_names.is_unique:
        _tell_genes_apart(adata, changes)


def _tell_genes_apart(adata: "anndata.AnnData", changes: list[str]) -> None:
    """Give genes of one name each a name of its own: with its id, which is the same in other files, or a number."""
    names = adata.var_names.astype(str)
    repeated = names.duplicated(keep=False)
    several = listing(dict.fromkeys(names[repeated]), 3)
    column = _ids_of(adata.var)
    if column is None:
        adata.var_names_make_unique()
        changes.append(
            f"made the var names unique by numbers ({several}): in a file where these genes are in another order, "
            "NAME and NAME-1 are others"
        )
        return
    ids = adata.var[column].astype(str).to_numpy()
    adata.var_names = [f"{name}_{own}" if more else name for name, own, more in zip(names, ids, repeated, strict=True)]
    if not adata.var_names.is_unique:
        adata.var_names_make_unique()
    changes.append(f"made the var names unique: those of several genes ({several}) end in var[{column!r}]")


def _ids_of(var: "pd.DataFrame") -> str | None:
    """Return the column of text that differs in all genes, one that is named after ids first; None without."""
    import pandas as pd

    text = [str(name) for name in var.columns if not pd.api.types.is_numeric_dtype(var[name]) and var[name].is_unique]
    return next(iter(sorted(text, key=lambda name: "id" not in name.lower())), None)
