"""Rows of the matrices of several files, their columns brought into one order by name."""

from collections.abc import Sequence

from state_rag.cell_files import CellFile
from state_rag.contract.align import align
from state_rag.contract.feature_names import FileMatrices, column_names
from state_rag.contract.matrices import ChosenColumns, Rows, open_rows
from state_rag.errors import StateRagError
from state_rag.names import listing


class AlignedRows:
    """Opens a matrix of file after file, each with the columns of the first, or those that are wanted.

    Attributes
    ----------
    names
        Of the columns, in order; None until the first file is open, and where they cannot be told.
    first
        Where they come from.
    """

    def __init__(self, names: Sequence[str] | None = None, first: str = "the predictions", width: int | None = None):
        self.names = None if names is None else list(names)
        self.first = first
        self.width = width if names is None else len(self.names or ())

    def open(self, file: CellFile, matrix: str) -> Rows:
        """Open `X` or `obsm/NAME` for reading by rows.

        Raises
        ------
        StateRagError
            If genes are missing, or there are no names and the width is another.
        """
        rows = open_rows(file, matrix)
        here = column_names(FileMatrices(file), matrix).names
        if self.width is None:
            self.width, self.first = rows.shape[1], str(file.filename)
            self.names = None if here is None else list(here)
            return rows
        if here is None or self.names is None:
            if rows.shape[1] != self.width:
                raise StateRagError(
                    f"{file.filename}: '{matrix}' has {rows.shape[1]} columns, {self.first} {self.width}, and there "
                    "are no names on both sides to find the same genes by"
                )
            return rows
        alignment = align(self.names, here)
        if alignment.missing:
            raise StateRagError(
                f"{file.filename}: '{matrix}' lacks {len(alignment.missing)} of the {self.width} genes of {self.first} "
                f"({listing(alignment.missing)})"
            )
        return rows if alignment.is_identity else ChosenColumns(rows, alignment.places)
