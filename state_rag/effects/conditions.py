"""Pairs of predicted and real cells, condition by condition.

A condition is one perturbation in one cell line. Controls are no condition: they are what effects are measured
against. Nothing here loads a whole matrix.
"""

import logging
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from state_rag.contract.matrices import ArrayRows, Rows, open_rows
from state_rag.contract.scale import ScaleTally
from state_rag.datasets.doubled_labels import refuse_doubled_in_memory
from state_rag.datasets.treated_labels import TreatmentColumns
from state_rag.errors import StateRagError
from state_rag.h5ad import obs_columns, open_h5ad
from state_rag.names import listing, suggest
from state_rag.names.combinations import in_order
from state_rag.names.gene_ids import unversioned

logger = logging.getLogger(__name__)

_CELLS_COMPARED = 500


@dataclass(frozen=True)
class Columns:
    """Names in `obs`: the perturbation column, the cell-line column and the value that marks controls.

    Training data may tell mode, dose and time in further columns (`treatment`); then labels tell them too, as those of
    predicted cells do.
    """

    perturbation: str = "gene"
    cell_line: str = "cell_line"
    control: str = "non-targeting"
    treatment: TreatmentColumns = TreatmentColumns()

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> "Columns":
        """Return the names under `data.kwargs` of a run."""
        return cls(data["pert_col"], data["cell_type_key"], data["control_pert"], TreatmentColumns.of(data))


@dataclass(frozen=True)
class Condition:
    """One perturbation in one cell line, and the rows of its real and predicted cells."""

    perturbation: str
    cell_line: str
    real: np.ndarray
    predicted: np.ndarray

    @property
    def key(self) -> str:
        """Return the form of GGE's condition keys, `perturbation####cell line`."""
        return f"{self.perturbation}####{self.cell_line}"


@dataclass
class Side:
    """One of the two files: its matrix, its cells' labels and its feature names (None where it has none).

    `pseudobulk` says whether its rows are marked as pseudobulks.
    """

    name: str
    rows: Rows
    obs: pd.DataFrame
    features: list[str] | None
    pseudobulk: bool = False


@dataclass
class Pair:
    """Predicted and real cells that were checked to describe the same conditions in the same features."""

    real: Side
    predicted: Side
    columns: Columns
    features: list[str]
    lines: dict[str, list[Condition]]
    controls: dict[str, tuple[np.ndarray, np.ndarray]]
    gene_order: np.ndarray | None = field(default=None)
    genes_left_out: list[str] = field(default_factory=list)

    def read_real(self, rows: np.ndarray) -> np.ndarray:
        """Return real cells as float32 `[len(rows), genes]`."""
        return self.real.rows.read(rows)

    def read_predicted(self, rows: np.ndarray) -> np.ndarray:
        """Return predicted cells as float32 `[len(rows), genes]`, in the gene order of the real ones."""
        cells = self.predicted.rows.read(rows)
        return cells if self.gene_order is None else cells[:, self.gene_order]

    @property
    def pseudobulk(self) -> bool:
        """Return whether both sides are pseudobulks: marked as such, or with one row for each condition."""
        conditions = [condition for some in self.lines.values() for condition in some]
        alone = all(len(condition.real) == len(condition.predicted) == 1 for condition in conditions)
        return alone or (self.real.pseudobulk and self.predicted.pseudobulk)

    @property
    def n_conditions(self) -> int:
        """Return the number of conditions over all cell lines."""
        return sum(map(len, self.lines.values()))


def open_pair(
    predicted: Any,
    real: Any,
    columns: Columns,
    *,
    matrix: str = "X",
    features: list[str] | None = None,
    keep: set[str] | None = None,
    conditions: Collection[tuple[str, str]] | None = None,
) -> Pair:
    """Open and check a pair of predicted and real cells.

    Parameters
    ----------
    predicted, real
        Paths of h5ad files, or AnnData objects.
    columns
        Names in `obs` and the control's label.
    matrix
        `X` or `obsm/NAME`: where the cells' values lie.
    features
        Names of the columns, for files that carry none (what `state tx predict` writes).
    keep
        Perturbations to evaluate; None for all.
    conditions
        Pairs of cell line and perturbation to evaluate; None for all.

    Returns
    -------
    Pair
        Conditions sorted by cell line and perturbation. A combination whose members the predictions have in another
        order is called as in the real cells.

    Raises
    ------
    StateRagError
        If a file, column or matrix is missing, a cell line has no controls, the two sides' conditions differ, or
        their features cannot be brought into one order.
    """
    sides = [_open_side(source, name, columns, matrix) for source, name in ((real, "real"), (predicted, "predicted"))]
    names, gene_order, left_out = _match_features(sides[0], sides[1], features)
    _warn_of_other_scale(sides[0], sides[1])
    groups = [_group_rows(side, columns) for side in sides]
    groups[1] = _as_in(groups[0], groups[1])
    _check_same_conditions(groups[0], groups[1], sides)
    chosen = None if conditions is None else set(conditions)
    lines: dict[str, list[Condition]] = {}
    controls: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for perturbation, line in sorted(groups[0], key=lambda key: (key[1], key[0])):
        rows = groups[0][perturbation, line], groups[1][perturbation, line]
        if perturbation == columns.control:
            controls[line] = rows
        elif (keep is None or perturbation in keep) and (chosen is None or (line, perturbation) in chosen):
            lines.setdefault(line, []).append(Condition(perturbation, line, *rows))
    if not lines:
        raise StateRagError(
            f"{sides[0].name}: no perturbed cells to evaluate"
            + (f" among the {len(keep)} perturbations asked for" if keep is not None else "")
        )
    if missing := sorted(set(lines) - set(controls)):
        labels = sorted({perturbation for perturbation, line in groups[0] if line in missing})[:8]
        raise StateRagError(
            f"{sides[0].name}: no control cells for {columns.cell_line} = {', '.join(missing)}: nothing in column "
            f"'{columns.perturbation}' equals '{columns.control}' (found {', '.join(labels)}, ...). "
            "Give the control's label with --control"
        )
    return Pair(sides[0], sides[1], columns, names, lines, controls, gene_order, left_out)


def _open_side(source: Any, role: str, columns: Columns, matrix: str) -> Side:
    """Open one file or AnnData object and check its columns."""
    if isinstance(source, (str, os.PathLike)):
        from anndata.io import read_elem

        file, name = open_h5ad(source), str(source)
        rows: Rows = open_rows(file, matrix)
        try:
            named = (columns.perturbation, columns.cell_line)
            # Not the whole of obs: barcodes of a million cells take more memory than a block of them.
            obs = pd.DataFrame({name: read_elem(file["obs"][name]) for name in named if name in file["obs"]})
            have, var = obs_columns(file), read_elem(file["var"])
        except (KeyError, OSError) as error:
            raise StateRagError(f"{source}: obs or var cannot be read ({error}); expected an h5ad file") from error
    else:
        name = f"{role} AnnData"
        values = source.X if matrix == "X" else source.obsm[matrix.removeprefix("obsm/")]
        rows, obs, var, have = ArrayRows(values), source.obs, source.var, list(map(str, source.obs.columns))
    for column, option in ((columns.perturbation, "--pert-col"), (columns.cell_line, "--cell-type-key")):
        if column not in obs.columns:
            raise StateRagError(
                f"{name}: obs has no column '{column}'; it has {', '.join(have)}{suggest([column], have)}. Name the "
                f"right one with {option}"
            )
    if rows.shape[0] != len(obs):
        raise StateRagError(f"{name}: '{matrix}' has {rows.shape[0]} rows, obs has {len(obs)}")
    names = [unversioned(str(value)) for value in var.index] if matrix == "X" else None
    if names == [str(number) for number in range(rows.shape[1])]:
        names = None
    # `state tx predict --pseudobulk` adds this column, behind underscores where the data have one of that name.
    return Side(name, rows, obs, names, any(column.lstrip("_") == "pseudobulk_n_cells" for column in have))


def _match_features(
    real: Side, predicted: Side, given: list[str] | None
) -> tuple[list[str], np.ndarray | None, list[str]]:
    """Return the common feature names, where needed the predicted columns in the real order, and those left out."""
    if real.features is not None and predicted.features is not None and real.features != predicted.features:
        position = {name: number for number, name in enumerate(predicted.features)}
        missing = [name for name in real.features if name not in position]
        if missing:
            raise StateRagError(
                f"{predicted.name}: {len(missing)} of the {len(real.features)} genes of {real.name} are missing: "
                f"{listing(missing)}; predict with the genes of the real data"
            )
        wanted = set(real.features)
        for side in (predicted, real):
            if side.features is not None and len(set(side.features)) != len(side.features):
                raise StateRagError(
                    f"{side.name}: gene names are not unique, so the two files cannot be brought into one order; make "
                    "them unique (`adata.var_names_make_unique()`) in both"
                )
        left_out = [name for name in predicted.features if name not in wanted]
        if left_out:
            logger.warning(
                "%s: %d of its %d genes are not in %s and were left out: %s.",
                predicted.name,
                len(left_out),
                len(predicted.features),
                real.name,
                listing(left_out),
            )
        else:
            logger.info("The predicted genes are in another order than the real ones; they were reordered by name.")
        return real.features, np.array([position[name] for name in real.features]), left_out
    if real.rows.shape[1] != predicted.rows.shape[1]:
        raise StateRagError(
            f"{predicted.name} has {predicted.rows.shape[1]} columns, {real.name} has {real.rows.shape[1]}; "
            "without gene names on both sides they must be the same genes in the same order"
        )
    names = real.features or predicted.features
    if names is None and given is not None and len(given) == real.rows.shape[1]:
        names = list(given)
    return names or [f"feature_{number}" for number in range(real.rows.shape[1])], None, []


def _warn_of_other_scale(real: Side, predicted: Side) -> None:
    """Say so where one side looks like counts and the other like logarithms: metrics of such a pair mean nothing."""
    scales = []
    for side in (real, predicted):
        tally = ScaleTally(side.rows.shape[1])
        chosen = np.linspace(0, side.rows.shape[0] - 1, min(_CELLS_COMPARED, side.rows.shape[0])).astype(np.int64)
        tally.add(side.rows.read(np.unique(chosen)))
        scales.append(tally.finish(side.rows.shape[0]))
    kinds = {scale.kind for scale in scales}
    if "log1p" in kinds and kinds & {"counts", "linear"}:
        logger.warning(
            "%s holds %s, %s holds %s: bring both to one scale, or every metric compares apples with pears.",
            real.name,
            scales[0].words,
            predicted.name,
            scales[1].words,
        )


def _group_rows(side: Side, columns: Columns) -> dict[tuple[str, str], np.ndarray]:
    """Return the rows of every (perturbation, cell line)."""
    labels = side.obs[[columns.perturbation, columns.cell_line]].reset_index(drop=True)
    if labels.isna().any().any():
        count = int(labels.isna().any(axis=1).sum())
        raise StateRagError(f"{side.name}: {count} cells have no {columns.perturbation} or {columns.cell_line}")
    labels = labels.apply(lambda column: column.astype("category").cat.rename_categories(str))
    found = labels.groupby(list(labels.columns), observed=True).indices
    try:
        refuse_doubled_in_memory({str(key[0]) for key in found}, columns.control, columns.perturbation)
    except StateRagError as error:
        raise StateRagError(f"{side.name}: {error}") from error
    return {(str(key[0]), str(key[1])): np.asarray(rows) for key, rows in found.items()}


def _as_in(real: dict, predicted: dict) -> dict:
    """Return predicted rows by the real side's labels, where these have the members of `A+B` in another order."""
    own = {in_order(name): name for name, _ in real}
    return {(own.get(in_order(name), name), line): rows for (name, line), rows in predicted.items()}


def _check_same_conditions(real: dict, predicted: dict, sides: list[Side]) -> None:
    """Refuse two sides that describe different conditions, naming some of the differing ones."""
    for mine, other, where, lacking in (
        (real, predicted, sides[0], sides[1]),
        (predicted, real, sides[1], sides[0]),
    ):
        if only := sorted(set(mine) - set(other)):
            shown = ", ".join(f"{perturbation} in {line}" for perturbation, line in only[:4])
            raise StateRagError(
                f"{Path(lacking.name).name} lacks {len(only)} of the {len(mine)} conditions of "
                f"{Path(where.name).name} ({shown}{', ...' if len(only) > 4 else ''}): the two files are not from "
                "one prediction; predict again"
            )
