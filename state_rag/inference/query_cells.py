"""The cells that `state tx infer` is asked about: controls, and cells that carry a perturbation's label."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from state_rag.errors import StateRagError
from state_rag.names import listing

if TYPE_CHECKING:
    import anndata


def query_cells(
    adata: "anndata.AnnData",
    names: Mapping[str, str | None],
    embed_key: str | None,
    perturbations: Sequence[str] | None,
    contexts: Sequence[str] | None,
    n_cells: int | None,
) -> "anndata.AnnData":
    """Return the cells to ask about: controls, and for each perturbation cells that carry its label.

    Cells that are not controls are only labels to `state tx infer`; `obs["_source"]` keeps each cell's row in `adata`.
    """
    import anndata

    for kind in ("perturbation", "context"):
        if names[kind] not in adata.obs:
            have = ", ".join(map(str, adata.obs.columns)) or "none"
            raise StateRagError(f"obs has no column {names[kind]!r}; it has {have}. Name the right one with `{kind}`.")
    if embed_key and embed_key not in adata.obsm:
        raise StateRagError(
            f"the run was trained on obsm[{embed_key!r}], which these cells lack; they have "
            f"{', '.join(adata.obsm) or 'none'}. `state-rag data prepare` makes X_hvg."
        )
    if n_cells is not None and (perturbations is None or n_cells < 1):
        raise StateRagError("n_cells: a number of at least 1, together with `perturbations`")
    lines, labels = (adata.obs[names[kind]].astype(str).to_numpy() for kind in ("context", "perturbation"))
    if contexts is not None:
        if absent := sorted(set(contexts) - set(lines)):
            raise StateRagError(f"contexts: no cells of {', '.join(absent)}; the cells are of {listing(set(lines))}")
        chosen = np.isin(lines, list(contexts))
    else:
        chosen = np.ones(len(lines), dtype=bool)
    control = chosen & (labels == names["control"])
    if lacking := sorted(set(lines[chosen]) - set(lines[control])):
        raise StateRagError(
            f"no control cells ({names['perturbation']} = {names['control']!r}) in {listing(lacking)}, and predictions "
            "start from them. Name the control's label with `control`, or leave these contexts out with `contexts`."
        )
    if perturbations is None:
        rows, own = np.flatnonzero(chosen), labels[chosen]
    else:
        wanted = [str(name) for name in dict.fromkeys(perturbations) if str(name) != names["control"]]
        parts = [np.flatnonzero(control)]
        own = [labels[control]]
        for line in sorted(set(lines[chosen])):
            of_line = np.flatnonzero(control & (lines == line))
            clones = of_line if n_cells is None else np.resize(of_line, n_cells)
            for name in wanted:
                parts.append(clones)
                own.append(np.full(len(clones), name, dtype=object))
        rows, own = np.concatenate(parts), np.concatenate(own)
    order = np.argsort(rows, kind="stable")  # backed files are read in order
    unique, place = np.unique(rows[order], return_inverse=True)
    part = adata[unique]
    back = np.empty_like(order)
    back[order] = place
    values = part.X[back]
    columns = [names[kind] for kind in ("context", "batch") if names[kind] and names[kind] in adata.obs]
    obs = adata.obs.iloc[rows][columns].copy()
    obs[names["perturbation"]] = pd.Categorical(np.asarray(own, dtype=object).astype(str))
    obs["_source"] = rows
    if perturbations is not None:
        obs.index = pd.Index([str(number) for number in range(len(rows))])
    obs.index = obs.index.astype(str)
    query = anndata.AnnData(values, obs=obs, var=pd.DataFrame(index=adata.var_names))
    for key in {embed_key, "X_hvg"} & set(adata.obsm):
        query.obsm[key] = np.asarray(part.obsm[key])[back]
    query.strings_to_categoricals()
    return query
