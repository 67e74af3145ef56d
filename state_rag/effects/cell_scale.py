"""The scale of the cells that effects are computed from: told where it is no logarithm, refused where files differ."""

import logging
from collections.abc import Sequence
from pathlib import Path

from state_rag.contract.feature_names import is_expression
from state_rag.contract.matrices import Rows, open_rows
from state_rag.contract.scale import Scale, difference
from state_rag.contract.space import scale_of
from state_rag.errors import StateRagError
from state_rag.h5ad import open_cells

logger = logging.getLogger(__name__)

CELLS = 256
"""So many cells of a matrix, evenly spread, tell its scale."""

_REMEDY = "`state-rag data prepare` brings a file to log-normalised values"


def tell_scale(rows: Rows, matrix: str) -> None:
    """Warn of expression that is counts, or has no logarithm: a few genes then make up every effect.

    Parameters
    ----------
    rows
        The matrix, `[cells, columns]`.
    matrix
        `X`, `layers/NAME` or `obsm/NAME`; of other spaces than expression nothing is said.
    """
    if _is_expression(matrix):
        _tell(scale_of(rows, CELLS), matrix)


def _tell(scale: Scale, matrix: str, where: str = "") -> None:
    if scale.kind in ("counts", "linear"):
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
            scale = scale_of(rows, CELLS)
        if first is None:
            first, width = scale, rows.shape[1]
            _tell(scale, matrix, str(file))
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
