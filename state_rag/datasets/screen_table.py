"""Which perturbations a screen has in which cell lines, and how many cells of each: from `obs` alone."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from state_rag.datasets.columns import CELL_TYPE_COLUMNS, PERTURBATION_COLUMNS, find_column, find_control
from state_rag.datasets.data_files import find_data_files
from state_rag.datasets.doubled_labels import refuse_doubled
from state_rag.datasets.effects_tables import refuse_effects_table
from state_rag.datasets.formats.in_files import names_by_format
from state_rag.datasets.value_check import refuse_other_genes
from state_rag.errors import StateRagError
from state_rag.h5ad import open_cells, read_column
from state_rag.names import suggest


@dataclass(frozen=True)
class ScreenTable:
    """Cells of every cell line and perturbation.

    Attributes
    ----------
    given
        The file, folder or pattern, as it was named.
    pert_col, cell_type_col, control
        The columns and the control, given or found.
    counts
        Cell line -> perturbation -> number of cells, over all files; the control is among them, zeros are not.
    """

    given: str
    pert_col: str
    cell_type_col: str
    control: str
    counts: dict[str, dict[str, int]]

    @property
    def path(self) -> Path:
        """Return the absolute path, folder or pattern."""
        return Path(os.path.abspath(self.given))

    @property
    def lines(self) -> list[str]:
        """Return the cell lines, sorted."""
        return sorted(self.counts)

    @property
    def perturbations(self) -> list[str]:
        """Return the perturbations of all lines, sorted, without the control."""
        return sorted(set().union(*self.counts.values()) - {self.control})

    def of_line(self, line: str) -> list[str]:
        """Return the perturbations of a line, sorted, without the control."""
        return sorted(set(self.counts[line]) - {self.control})

    def elsewhere(self, line: str) -> set[str]:
        """Return the perturbations of the other lines."""
        return {name for other in self.counts if other != line for name in self.of_line(other)}

    def refuse_unknown_line(self, line: str) -> None:
        """Refuse a line that the data lack.

        Raises
        ------
        StateRagError
            Lists those present.
        """
        if line not in self.counts:
            raise StateRagError(
                f"{self.given}: no cell line {line!r} (from --held-out) in obs column {self.cell_type_col!r}. Cell "
                f"lines present: {', '.join(self.lines)}{suggest([line], self.lines)}."
            )

    def refuse_without_controls(self, line: str) -> None:
        """Refuse a line that has no controls, from which upstream would predict.

        Raises
        ------
        StateRagError
            Names the line.
        """
        if not self.counts[line].get(self.control):
            raise StateRagError(
                f"{self.given}: cell line {line!r} has no {self.control!r} cells. Upstream predicts from the controls "
                "of the same line; hold out another line or add its controls."
            )


def read_screen_table(
    h5ad: str | os.PathLike[str],
    *,
    pert_col: str | None = None,
    cell_type_col: str | None = None,
    control: str | None = None,
) -> ScreenTable:
    """Count the cells of a screen.

    Parameters
    ----------
    h5ad
        An h5ad file, a folder of them, or a glob pattern.
    pert_col, cell_type_col, control
        The obs columns and the control; found by their usual names where left out.

    Raises
    ------
    StateRagError
        If there is no file, a column or the control is missing, a combination has two labels, or files have other genes
        or another order of them.
    """
    counts: dict[str, dict[str, int]] = {}
    found_in: dict[str, set[Path]] = {}
    files = find_data_files(os.path.abspath(h5ad), f"{h5ad}")
    for path in files:
        with open_cells(path) as file:
            refuse_effects_table(file, control)
            pert_col, cell_type_col, _, control = names_by_format(file, pert_col, cell_type_col, None, control)
            pert_col = find_column(file, pert_col, PERTURBATION_COLUMNS, "perturbation", "--pert-col")
            cell_type_col = find_column(file, cell_type_col, CELL_TYPE_COLUMNS, "cell line", "--cell-type-key")
            perts, pert_codes = read_column(file, pert_col, "--pert-col")
            types, type_codes = read_column(file, cell_type_col, "--cell-type-key")
        labelled = (pert_codes >= 0) & (type_codes >= 0)
        pairs, cells = np.unique(type_codes[labelled] * len(perts) + pert_codes[labelled], return_counts=True)
        for pair, number in zip(pairs.tolist(), cells.tolist(), strict=True):
            in_line = counts.setdefault(str(types[pair // len(perts)]), {})
            name = str(perts[pair % len(perts)])
            in_line[name] = in_line.get(name, 0) + number
            found_in.setdefault(name, set()).add(path)
    assert pert_col is not None
    assert cell_type_col is not None
    if len(files) > 1:
        refuse_other_genes(files)
    every = set().union(*counts.values())
    control = find_control(every, control, f"{h5ad}, obs column {pert_col!r}", "--control")
    refuse_doubled(found_in, control, pert_col)
    return ScreenTable(str(h5ad), pert_col, cell_type_col, control, counts)
