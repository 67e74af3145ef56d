"""Measured responses of what a split trains on, or of a file of mean effects."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from state_rag.datasets.effects_tables import LABELS
from state_rag.datasets.treated_labels import TreatmentColumns, labels_in
from state_rag.effects.changes import changes_in, changes_of
from state_rag.effects.mean_effects import PREDICTED, MeanEffects
from state_rag.errors import StateRagError
from state_rag.evidence.responses import Responses
from state_rag.h5ad import open_h5ad
from state_rag.names import listing
from state_rag.names.combinations import parts_of
from state_rag.names.controls import SURELY, control_likeness
from state_rag.names.gene_ids import unversioned_genes

if TYPE_CHECKING:
    import anndata

logger = logging.getLogger(__name__)


def responses_of(effects: MeanEffects, names: Sequence[str], control: str, *, treated: bool = False) -> Responses:
    """Return the responses that the evidence engine is fitted on.

    Parameters
    ----------
    effects
        With totals of cells; which genes each condition changes is told where these have squares.
    names
        Of the genes.
    control
        Label of control cells.
    treated
        Whether perturbations are labels that tell modes, doses or times.

    Raises
    ------
    StateRagError
        If no condition can be used.
    """
    totals = effects.totals
    assert totals is not None
    keys = [(line, name) for line in sorted(effects.effects) for name in sorted(effects.effects[line])]
    if not keys:
        why = "; ".join(f"{line}: {reason}" for line, reason in effects.lines_left_out.items())
        raise StateRagError(
            "nothing to fit: no cell line has both controls and perturbed training cells"
            + (f" ({why})." if why else ".")
        )
    return Responses(
        np.stack([effects.effects[line][name] for line, name in keys]),
        [line for line, _ in keys],
        [name for _, name in keys],
        names,
        cells=[totals.cells[key] for key in keys],
        controls={line: totals.mean((line, control)) for line in sorted(effects.effects)},
        changes=changes_of(effects, control),
        treated=treated,
    )


def responses_in(
    effects: "anndata.AnnData", *, mode: str | None = None, dose: str | None = None, time: str | None = None
) -> Responses:
    """Return the responses in a table of effects, which the evidence engine is fitted on.

    Parameters
    ----------
    effects
        A row a condition, `obs` with `perturbation` and `context`. `obs["n_cells"]` and `varm["control_mean"]` are used
        where they are there, as `sr.effects.read` writes them; where deviations of cells are there too, so is which
        genes changed. `X` [conditions, genes] may be any signed score (mean differences, log fold changes, signed
        significance). Rows that are named like controls are left out, and told.
    mode, dose, time
        Columns of `obs` that tell mode (CRISPRi, CRISPRa, KO, drug), dose and time of a row; without any, perturbations
        are names, unless the table says that they are labels of all this, as `sr.effects.read` says.

    Raises
    ------
    StateRagError
        If a column is missing or has no value in some row, holds what is no dose or time, or no value of `X` is below
        zero, as it is of means, or the effects are predicted ones.

    Examples
    --------
    >>> import state_rag as sr
    >>> effects = sr.effects.from_anndata(sr.datasets.screen(n_perturbations=4, n_genes=40))
    >>> len(sr.evidence.from_effects(effects))
    16
    """
    for column in LABELS:
        if column not in effects.obs:
            raise StateRagError(
                "a table of effects has a row a condition, with obs columns `perturbation` and `context`; this one has "
                f"{', '.join(map(str, effects.obs.columns)) or 'none'}."
            )
    about = effects.uns.get("state_rag")
    if isinstance(about, Mapping) and about.get("kind") == PREDICTED:
        raise StateRagError(
            "these effects were predicted by an evidence engine, and measured ones teach what cells do. Give "
            "those; if predictions are meant, delete uns['state_rag'] of the table."
        )
    effects = _without_controls(effects)
    values = effects.X.toarray() if hasattr(effects.X, "toarray") else np.asarray(effects.X)
    _refuse_means(values)
    means = effects.varm.get("control_mean")
    columns = TreatmentColumns(mode, dose, time)
    treated = isinstance(about, Mapping) and bool(about.get("treated"))
    if treated and columns:
        raise StateRagError(
            "this table's perturbations are labels that tell mode, dose or time already; name no columns of these."
        )
    names = effects.obs["perturbation"].astype(str).tolist()
    if columns:
        control = str(about.get("control", "")) if isinstance(about, Mapping) else ""
        told = labels_in(effects.obs, "perturbation", control, columns)
        names = [str(label) for label in told.labels[told.code].tolist()]
    return Responses(
        values,
        effects.obs["context"].astype(str).tolist(),
        names,
        unversioned_genes(effects.var_names.astype(str).tolist()),
        cells=effects.obs["n_cells"].to_numpy() if "n_cells" in effects.obs else None,
        controls=None if means is None else {str(line): means[line].to_numpy() for line in means},
        changes=changes_in(effects),
        treated=treated or bool(columns),
    )


def _without_controls(effects: "anndata.AnnData") -> "anndata.AnnData":
    """Return the rows that are not named like a control; refuse rows without labels, and two names of one condition."""
    for column in LABELS:
        missing = effects.obs[column].isna() | (effects.obs[column].astype(str).str.strip() == "")
        if missing.any():
            raise StateRagError(
                f"{int(missing.sum()):,} rows have no value in the obs column `{column}`, the first of them "
                f"{listing(effects.obs_names[missing], 3)}; name them, or leave them out."
            )
    conditions = zip(effects.obs["context"].astype(str), effects.obs["perturbation"].astype(str), strict=True)
    first: dict[tuple[str, tuple[str, ...]], str] = {}
    for context, name in conditions:
        other = first.setdefault((context, parts_of(name)), name)
        if other != name:
            raise StateRagError(
                f"{other} and {name} in {context} are one condition under two names; give it once, such as averaged."
            )
    about = effects.uns.get("state_rag")
    control = about.get("control") if isinstance(about, Mapping) else None
    names = effects.obs["perturbation"].astype(str)
    found = {name for name in set(names) if name == control or control_likeness(name) == SURELY}
    if not found:
        return effects
    kept = ~names.isin(found).to_numpy()
    logger.warning(
        "Left out %d rows that are named like controls (%s): effects are differences from controls.",
        int((~kept).sum()),
        listing(sorted(found)),
    )
    return effects[kept]


def _refuse_means(values: np.ndarray) -> None:
    """Refuse a table whose values are those of expression rather than differences."""
    if values.size and not (values < 0).any() and (values > 0).any():
        raise StateRagError(
            "no value is below zero, so these are means of expression (pseudobulk), or scores without a sign, and "
            "effects have both signs. Give each condition's difference from the controls of its context (or log fold "
            "changes, or other signed scores); of cells, `sr.effects.from_anndata` makes them."
        )


def read_table(path: Path, treatment: TreatmentColumns | None = None) -> Responses:
    """Read the responses in a file of effects; the columns are looked at before anything large is read.

    Parameters
    ----------
    path
        The file.
    treatment
        Columns of mode, dose and time, as for `responses_in`.

    Raises
    ------
    StateRagError
        If it holds something else, such as cells.
    """
    import anndata

    with open_h5ad(path) as file:
        columns = set(file["obs"]) - {"_index"}
    if not set(LABELS) <= columns:
        raise StateRagError(
            f"{path}: no table of effects, which has a row a condition and the obs columns `perturbation` and "
            f"`context` (it has {listing(sorted(columns)) or 'none'}). If these are cells, write a split and fit on "
            f"that: `state-rag data split {path} --held-out LINE -o split.toml`."
        )
    named = treatment or TreatmentColumns()
    try:
        return responses_in(anndata.read_h5ad(path), mode=named.mode, dose=named.dose, time=named.time)
    except StateRagError as error:
        raise StateRagError(f"{path}: {error}") from error
