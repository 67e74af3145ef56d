"""Which genes measured conditions change, told from the moments of their cells; effects alone do not tell it."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from state_rag.effects.group_totals import GroupTotals
from state_rag.effects.mean_effects import MeanEffects
from state_rag.metrics.degs import WelchMoments, changes

if TYPE_CHECKING:
    import anndata


def changes_of(effects: MeanEffects, control: str) -> np.ndarray | None:
    """Return which genes each condition changes, by line and perturbation in the order of their names.

    Parameters
    ----------
    effects
        Of cells.
    control
        Label of control cells.

    Returns
    -------
    numpy.ndarray or None
        float32 [N, G], as `metrics.degs.changes` says; None where deviations between cells are not known.
    """
    totals = effects.totals
    if totals is None or not totals.squares:
        return None
    found = []
    for line in sorted(effects.effects):
        against = _moments(totals, (line, control))
        found += [changes(_moments(totals, (line, name)), against) for name in sorted(effects.effects[line])]
    return np.stack(found) if found else None


def changes_in(effects: "anndata.AnnData") -> np.ndarray | None:
    """Return which genes each row of a table of effects changes; None where it lacks deviations or numbers of cells.

    Parameters
    ----------
    effects
        As `sr.effects.read` returns it: `layers` `mean` and `std`, `obs` `n_cells`, `varm` `control_mean` and
        `control_std`, and `uns["state_rag"]["control_n_cells"]`.

    Returns
    -------
    numpy.ndarray or None
        float32 [N, G], rows as in the table, as `metrics.degs.changes` says; NaN in contexts without such controls.
    """
    about = effects.uns.get("state_rag")
    counts = json.loads(about["control_n_cells"]) if isinstance(about, Mapping) and "control_n_cells" in about else {}
    parts = (*(name in effects.layers for name in ("mean", "std")), "n_cells" in effects.obs)
    if not (counts and all(parts) and all(name in effects.varm for name in ("control_mean", "control_std"))):
        return None
    mean, std, cells = effects.layers["mean"], effects.layers["std"], effects.obs["n_cells"].to_numpy()
    of_controls = effects.varm["control_mean"], effects.varm["control_std"]

    lines = effects.obs["context"].astype(str).tolist()
    controls = {line: WelchMoments(effects.n_vars) for line in lines}
    for line in controls.keys() & counts.keys():
        if all(line in table for table in of_controls):
            controls[line] = WelchMoments.of(int(counts[line]), *(table[line].to_numpy() for table in of_controls))
    rows = (WelchMoments.of(int(n), mean[row], std[row]) for row, n in enumerate(cells))
    return np.stack([changes(moments, controls[line]) for moments, line in zip(rows, lines, strict=True)])


def _moments(totals: GroupTotals, group: tuple[str, str]) -> WelchMoments:
    return WelchMoments.of(totals.cells[group], totals.mean(group), totals.std(group))
