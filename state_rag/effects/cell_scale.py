"""The scale of the cells that effects are computed from: told where it is no logarithm, refused where files differ."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from state_rag.contract.feature_names import is_expression
from state_rag.contract.matrices import Rows, open_rows
from state_rag.contract.scale import Scale, ScaleTally, difference
from state_rag.errors import StateRagError
from state_rag.h5ad import open_cells

logger = logging.getLogger(__name__)

CELLS = 256
"""So many cells of a matrix, evenly spread, tell its scale."""

_REMEDY = "`state-rag data prepare` brings a file to log-normalised values"


def scale_of(rows: Rows) -> Scale:
    """Return the scale of a matrix, by some of its rows."""
    tally = ScaleTally(rows.shape[1])
    if rows.shape[0]:
        chosen = np.unique(np.linspace(0, rows.shape[0] - 1, min(CELLS, rows.shape[0])).astype(np.int64))
        tally.add(rows.read(chosen))
    return tally.finish(rows.shape[0])


def tell_scale(scale: Scale, matrix: str, where: str = "") -> None:
    """Warn of expression that is counts, or has no logarithm: a few genes then make up every effect.

    Parameters
    ----------
    scale
        As measured.
    matrix
        `X`, `layers/NAME` or `obsm/NAME`; of other spaces than expression nothing is said.
    where
        The file.
    """
    if _is_expression(matrix) and scale.kind in ("counts", "linear"):
        logger.warning(
            "%s%s holds %s, and effects are differences of those, in which highly expressed genes are all. "
            "Log-normalised expression is expected; %s.",
            *(f"{where}: " if where else "", matrix, scale.words, _REMEDY),
        )


def refuse_mixed_scales(files: Sequence[Path], matrix: str) -> None:
    """Refuse files whose values are on different scales; warn where all of them are no logarithms.

    Parameters
    ----------
    files
        h5ad files or zarr stores of cells.
    matrix
        `X` or `obsm/NAME`.

    Raises
    ------
    StateRagError
        Naming the first file that differs from the first.
    """
    if not _is_expression(matrix):
        return
    first, width = None, 0
    for file in files:
        with open_cells(file) as opened:
            if matrix not in opened:
                return  # which whoever reads it says
            rows = open_rows(opened, matrix)
            scale = scale_of(rows)
        if first is None:
            first, width = scale, rows.shape[1]
            tell_scale(scale, matrix, str(file))
            continue
        other = difference(first, scale)
        if other is None or (first.kind == scale.kind and first.base == scale.base and width != rows.shape[1]):
            continue  # totals over other genes say nothing
        if other.is_wrong:
            raise StateRagError(
                f"{file}: {matrix} holds {other.text}, as in {files[0]}. Effects of both together mean nothing; "
                f"{_REMEDY}, and with --like to the total of another."
            )
        logger.warning("%s: %s holds %s, as in %s.", file, matrix, other.text, files[0])


def _is_expression(matrix: str) -> bool:
    return is_expression(matrix) or matrix.startswith("layers/")
