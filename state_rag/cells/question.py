"""The cells that a model is asked about: controls, and cells that carry a label, in the run's own genes and order."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse

from state_rag.contract.fitting import fitted
from state_rag.contract.space import Space
from state_rag.errors import StateRagError
from state_rag.names import listing, suggest

if TYPE_CHECKING:
    import anndata

SOURCE = "source_cell"
"""Column of `obs`: the name of the cell whose values a row holds."""


@dataclass(frozen=True)
class Names:
    """What the columns of `obs` and the control are called; `context` and `batch` may be None where there is none."""

    perturbation: str
    context: str | None
    control: str
    batch: str | None = None

    def contexts(self, obs: pd.DataFrame) -> np.ndarray:
        """Return the context of each cell, str `[cells]`; all are of one where no column names them."""
        return np.full(len(obs), "all") if self.context is None else obs[self.context].astype(str).to_numpy()


@dataclass(frozen=True)
class Wanted:
    """What is to be predicted.

    Attributes
    ----------
    perturbations
        In every context, from its controls; None predicts what the cells are labelled with, as many as there are.
    contexts
        None for all.
    n_cells
        Cells of each perturbation and context; None for as many as the context has controls.
    controls_everywhere
        Whether a context without controls is an error.
    asked_with
        What the user calls `contexts` and the control's label, for messages.
    """

    perturbations: Sequence[str] | None = None
    contexts: Sequence[str] | None = None
    n_cells: int | None = None
    controls_everywhere: bool = True
    asked_with: tuple[str, str] = ("`contexts`", "`control`")


@dataclass(frozen=True)
class InputSpace:
    """The space that a run starts from, and how cells are to be brought into it.

    Attributes
    ----------
    key
        `X` or `obsm/NAME` in the run.
    spaces
        What is known of the run's spaces, by key; empty for a run of which nothing is known.
    given_key
        Where the cells hold it, if elsewhere.
    fill_missing, refuse
        As in `contract.fitting.fitted`.
    """

    key: str
    spaces: Mapping[str, Space] = field(default_factory=dict)
    given_key: str | None = None
    fill_missing: bool = False
    refuse: bool = True


def question(adata: "anndata.AnnData", names: Names, wanted: Wanted, space: InputSpace) -> "anndata.AnnData":
    """Return the cells to ask about.

    Returns
    -------
    anndata.AnnData
        Controls, and cells that carry the label of a perturbation (only labels: predictions start from controls), with
        the columns of `adata.obs` and `obs["source_cell"]`. The run's input space is there, in the run's genes and
        order; no other matrix is.

    Raises
    ------
    StateRagError
        If a column, the input space, genes of it or the controls are missing, or cells have no value in a column that
        says what to predict.
    """
    import anndata

    rows, own = _rows(adata, names, wanted)
    order = np.argsort(rows, kind="stable")  # backed files are read in order
    unique, place = np.unique(rows[order], return_inverse=True)
    part = adata[unique]
    if adata.isbacked:
        spaces = {key: part.obsm[key] for key in part.obsm}
        part = anndata.AnnData(part.X, obs=part.obs, var=part.var, obsm=spaces, uns=dict(adata.uns))
    back = np.empty_like(order)
    back[order] = place
    labels = adata.obs[names.perturbation].astype(str).to_numpy()[unique]
    controls = np.flatnonzero(labels == names.control)
    lines = None if names.context is None else names.contexts(part.obs)[controls]
    values, var = _values(part, space, controls, lines)
    obs = adata.obs.iloc[rows].copy()
    obs[SOURCE] = np.asarray(adata.obs_names, dtype=object)[rows].astype(str)
    obs[names.perturbation] = pd.Categorical(np.asarray(own, dtype=object).astype(str))
    if wanted.perturbations is not None:
        obs.index = pd.Index([str(number) for number in range(len(rows))])
    obs.index = obs.index.astype(str)
    asked = anndata.AnnData(values.pop("X")[back], obs=obs, var=var)
    for key, matrix in values.items():
        asked.obsm[key.removeprefix("obsm/")] = matrix[back]
    asked.strings_to_categoricals()
    return asked


def _rows(adata: "anndata.AnnData", names: Names, wanted: Wanted) -> tuple[np.ndarray, np.ndarray]:
    """Return rows of the cells to ask about, with the label that each shall carry."""
    if wanted.n_cells is not None and (wanted.perturbations is None or wanted.n_cells < 1):
        raise StateRagError("n_cells: a number of at least 1, together with `perturbations`")
    for kind, column in (("perturbation", names.perturbation), ("context", names.context)):
        if column is not None and column not in adata.obs:
            have = ", ".join(map(str, adata.obs.columns)) or "none"
            close = suggest([column], list(map(str, adata.obs.columns)))
            raise StateRagError(
                f"obs has no column {column!r}; it has {have}{close}. Name the right one with `{kind}`."
            )
    labels = adata.obs[names.perturbation].astype(str).to_numpy()
    lines = names.contexts(adata.obs)
    chosen = np.ones(len(lines), dtype=bool)
    if wanted.contexts is not None:
        if absent := sorted(set(wanted.contexts) - set(lines)):
            there = listing(sorted(set(lines)))
            close = suggest(absent, sorted(set(lines)))
            raise StateRagError(
                f"{wanted.asked_with[0]}: no cells of {', '.join(absent)}; the cells are of {there}{close}"
            )
        chosen = np.isin(lines, list(wanted.contexts))
    told_by = ((names.perturbation, wanted.perturbations), (names.context, wanted.contexts))
    for column in [column for column, given in told_by if column is not None and given is None]:
        if missing := int((chosen & adata.obs[column].isna().to_numpy()).sum()):
            raise StateRagError(
                f"{missing:,} cells have no value in the obs column {column!r}, so nobody knows what to predict for "
                f"them; leave them out: cells[cells.obs[{column!r}].notna()]."
            )
    control = chosen & (labels == names.control)
    lacking = sorted(set(lines[chosen]) - set(lines[control]))
    if lacking and (wanted.controls_everywhere or not control.any()):
        close = "" if control.any() else suggest([names.control], sorted(set(labels) - {names.control}))
        raise StateRagError(
            f"no control cells ({names.perturbation} = {names.control!r}) in {listing(lacking)}, and predictions "
            f"start from them{close}. Name the control's label with {wanted.asked_with[1]}, or leave these contexts "
            f"out with {wanted.asked_with[0]}."
        )
    if wanted.perturbations is None:
        return np.flatnonzero(chosen), labels[chosen]
    asked = [str(name) for name in dict.fromkeys(wanted.perturbations) if str(name) != names.control]
    parts, own = [np.flatnonzero(control)], [labels[control]]
    for line in sorted(set(lines[control])):
        of_line = np.flatnonzero(control & (lines == line))
        clones = of_line if wanted.n_cells is None else np.resize(of_line, wanted.n_cells)
        for name in asked:
            parts.append(clones)
            own.append(np.full(len(clones), name, dtype=object))
    return np.concatenate(parts), np.concatenate(own)


def _values(
    part: "anndata.AnnData", space: InputSpace, controls: np.ndarray, lines: np.ndarray | None
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Return the matrices of the question by key, `X` among them, and the table of the genes of `X`."""
    key, given, known = space.key, space.given_key or space.key, space.spaces.get(space.key)
    if known is None:
        values = {"X": part.X, given: part.X} if given == "X" else {"X": part.X, given: _obsm(part, given)}
        return values, part.var
    found = fitted(
        part, known, key=given, controls=controls, lines=lines, fill_missing=space.fill_missing, refuse=space.refuse
    ).values
    genes = space.spaces.get("X")
    if given == "X" == key:
        names = list(known.names) if known.names is not None else [f"X_{number}" for number in range(known.width)]
        return {"X": found}, _var(part, names)
    found = found.toarray() if sparse.issparse(found) else found
    # Nothing of X is read: it is only where the genes are written to, if the run predicts them.
    names = [] if genes is None else list(genes.names or map(str, range(genes.width)))
    empty = sparse.csr_matrix((part.n_obs, len(names)), dtype=np.float32)
    return {"X": empty, given: found}, _var(part, names)


def _var(part: "anndata.AnnData", names: Sequence[str]) -> pd.DataFrame:
    """Return the table of genes for these names, with the cells' own columns where the names are theirs."""
    index = pd.Index(list(names), dtype=str)
    if part.var_names.is_unique and index.is_unique and index.isin(part.var_names).all():
        return part.var.reindex(index)
    return pd.DataFrame(index=index)


def _obsm(part: "anndata.AnnData", key: str) -> np.ndarray:
    name = key.removeprefix("obsm/")
    if name not in part.obsm:
        raise StateRagError(
            f"the run was trained on obsm[{name!r}], which these cells lack; they have "
            f"{', '.join(part.obsm) or 'none'}. `state-rag data prepare` makes X_hvg."
        )
    return np.asarray(part.obsm[name])
