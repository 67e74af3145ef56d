"""Predict for cells in memory from an evidence run: the same question and answer as for every other run."""

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse

from state_rag import __version__
from state_rag.cells.anchored import brought_to_mean, drawn_from
from state_rag.cells.answer import answer
from state_rag.cells.question import SOURCE, InputSpace, Names, Wanted, question
from state_rag.contract.feature_names import is_expression
from state_rag.datasets.treated_labels import TreatmentColumns, labels_in
from state_rag.engine.called import LAYER
from state_rag.engine.explaining.explain import contexts_of
from state_rag.engine.folder import EvidenceRun
from state_rag.engine.further import knowing, tell_unknown
from state_rag.engine.trust_table import OF_CELLS, columns_of_cells, trust_table
from state_rag.errors import StateRagError
from state_rag.names import listing, suggest
from state_rag.names.treatments import refuse_unit
from state_rag.progress import track

if TYPE_CHECKING:
    import anndata

logger = logging.getLogger(__name__)


def ask(
    run: EvidenceRun,
    cells: "anndata.AnnData",
    names: Names,
    wanted: Wanted,
    *,
    given_key: str | None = None,
    fill_missing: bool = False,
    seed: int = 42,
    progress: bool = False,
    record: dict[str, Any] | None = None,
) -> "anndata.AnnData":
    """Return predicted cells, with how far each can be trusted in `obs`.

    Layers, where known: the deviation of genes (`std`), and the probability that each changes (`probability_changed`).

    Parameters
    ----------
    run
        An evidence run that was fitted on cells.
    cells
        The user's own; predictions start from their controls.
    names, wanted
        Columns and control, and what to predict, as for `cells.question.question`.
    given_key
        Where the cells hold the run's space, if elsewhere.
    fill_missing
        Fill genes that the cells lack with the training controls' mean.
    seed
        Of the draw of controls.
    progress
        Whether to show a progress bar.
    record
        What goes into `uns["state_rag"]` beside the usual.

    Raises
    ------
    StateRagError
        If the run knows no cells, or the cells do not fit it.
    """
    if run.identity is None:
        raise StateRagError("this run was fitted on a table of effects, without cells, so no cells can be predicted.")
    key = run.key
    space = InputSpace(key, run.identity.spaces, given_key, fill_missing)
    asked = question(cells, names, wanted, space)
    values: Any = asked.X if key == "X" else asked.obsm[key.removeprefix("obsm/")]
    values = values.toarray() if sparse.issparse(values) else np.asarray(values)
    labels = asked.obs[names.perturbation].astype(str).to_numpy()
    if run.engine.bank.treatments is not None and wanted.perturbations is None:
        columns = TreatmentColumns.of(run.data)
        told = labels_in(asked.obs, names.perturbation, names.control, columns)
        for dose in [] if columns.dose is None else asked.obs[columns.dose][labels != names.control].unique():
            refuse_unit(str(dose), run.engine.bank.dose_unit)
        labels = told.labels[told.code].astype(str)
        asked.obs[names.perturbation] = pd.Categorical(labels)
    lines = names.contexts(asked.obs)
    known = contexts_of(run)
    new = sorted(set(np.unique(lines[labels != names.control]).tolist()) - set(known))
    if new and names.context is not None:
        logger.warning(
            "Nothing was measured in %s: taken for new cell lines, predicted from measurements in others (%s)%s.",
            *(listing(map(repr, new)), listing(known), suggest(new, known)),
        )
    run = knowing(run, np.unique(labels[labels != names.control]).tolist())
    _refuse_unknown(run, wanted.perturbations)
    tell_unknown(run, np.unique(labels[labels != names.control]).tolist())
    rng = np.random.default_rng(seed)
    predicted, sources = np.array(values, dtype=np.float32), np.arange(len(labels))
    control = np.flatnonzero(labels == names.control)
    trust: list[pd.DataFrame] = []
    kinds = {"std": bool(run.engine.calibrated), LAYER: bool(run.engine.callers)}
    layers = {name: np.zeros_like(predicted) for name, there in kinds.items() if there}
    for name in np.unique(labels).tolist():
        run.own_name(name)
    for line in np.unique(lines).tolist():
        here = lines == line
        pool = control[lines[control] == line]
        pool = pool if len(pool) else control
        base = values[pool].mean(axis=0, dtype=np.float64)
        queries = [name for name in np.unique(labels[here]).tolist() if name != names.control]
        found = run.engine.predict(line, queries)
        table = trust_table(found)
        if table is not None:
            trust.append(table)
        for number in track(range(len(queries)), f"predicting {line}", disable=not progress):
            rows = np.flatnonzero(here & (labels == queries[number]))
            drawn = drawn_from(pool, len(rows), rng)
            predicted[rows] = brought_to_mean(
                values[drawn], base + found.mean[number], rng, expression=is_expression(key)
            )
            sources[rows] = drawn
            if found.trust is not None:
                layers["std"][rows] = found.trust.std[number]
            if found.calls is not None:
                layers[LAYER][rows] = found.calls.probability[number]
    # cells that were predicted before may be asked about: what was said of those is not said of these
    obs = asked.obs.drop(columns=[name for name in OF_CELLS if name in asked.obs])
    obs[SOURCE] = obs[SOURCE].astype(str).to_numpy()[sources]
    about = {"version": __version__, "mode": "evidence", "seed": seed, "control": names.control, **(record or {})}
    genes = space.spaces[key].names
    if trust:
        obs = obs.join(columns_of_cells(pd.concat(trust), lines, labels).set_axis(obs.index))
    cells = answer(predicted, obs, key=key, names=genes, var=cells.var, record=about)
    if cells.shape == predicted.shape:
        cells.layers.update(layers)
    return cells


def _refuse_unknown(run: EvidenceRun, named: Sequence[str] | None) -> None:
    """Refuse perturbations that were asked for by name and of which nothing is known."""
    control = run.data.get("control_pert")
    unknown = [name for name in named or () if name != control and not run.engine.knows(name)]
    if unknown:
        raise StateRagError(
            f"nothing is known of {listing(unknown)}: neither a response nor an embedding, so the prediction would be "
            f"the mean effect of the cell line{suggest(unknown, run.engine.bank.offered)}"
        )
