"""The neighbours of watched perturbations over a run, as rows and as a CSV file."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from state_rag.files import atomic_path
from state_rag.tracking.probe import Answer

FILE = "watched_neighbours.csv"
COLUMNS = ("step", "perturbation", "cell_type", "n_selected", "selected_perturbations", "retrieved_perturbations")
MAX_ROWS = 10_000


class WatchedNeighbours:
    """Rows of `COLUMNS`, the newest `MAX_ROWS` of them, mirrored in a file where there is a folder for it.

    Attributes
    ----------
    rows
        One for each validation, watched perturbation and cell type.
    path
        The file; None keeps the rows in memory only.
    """

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.path: Path | None = None

    def continue_in(self, folder: str | Path, before_step: int) -> None:
        """Write to `folder` from now on, and keep the rows that lie there already from earlier steps."""
        self.path = Path(folder) / FILE
        if self.path.is_file() and not self.rows:
            with open(self.path, newline="", encoding="utf-8") as stream:
                rows = [row for row in csv.DictReader(stream) if int(row["step"]) < before_step]
            self.rows = [{**row, "step": int(row["step"]), "n_selected": int(row["n_selected"])} for row in rows]

    def add(self, answer: Answer, perturbations: Sequence[str], step: int) -> None:
        """Add what the watched perturbations retrieve at a step."""
        if not perturbations:
            return
        for name in perturbations:
            self.rows.extend({"step": step, **row} for row in answer.neighbours(name))
        self.rows = self.rows[-MAX_ROWS:]
        if self.path is not None:
            with atomic_path(self.path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as stream:
                writer = csv.DictWriter(stream, COLUMNS)
                writer.writeheader()
                writer.writerows(self.rows)
