"""`retrieval_info.csv`: what was retrieved and selected for each predicted cell, written as cells go by."""

import csv
import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from state_rag.csv_tables import csv_line
from state_rag.engine.retrieved import COLUMNS, SOURCES
from state_rag.files import atomic_path
from state_rag.metrics.degs import LISTED, WelchMoments, differential_names
from state_rag.retrieval.trace import RetrievalTrace

logger = logging.getLogger(__name__)


class RetrievalInfo:
    """Collects rows while a run predicts and writes the file when it is left without an error.

    Where there are several sources of knowledge, a last column has those that proposed each candidate.

    Rows go to a temporary file; of the cells only sums per condition are kept, from which the real
    differential genes of each (cell type, perturbation) follow by Welch's t-test against the controls.

    Parameters
    ----------
    path
        Where the file shall lie.
    control
        Name of the control perturbation.
    genes
        Names of the genes that the real cells are given in.
    """

    def __init__(self, path: Path, control: str, genes: list[str]) -> None:
        self.path = path
        self._control = control
        self._genes = genes
        self._several = False
        self._moments: dict[tuple[str, str], WelchMoments] = {}
        self._rows = tempfile.TemporaryFile("w+", newline="", encoding="utf-8")  # noqa: SIM115  closed by __exit__

    def __enter__(self) -> "RetrievalInfo":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._rows:
            if error is None:
                self._finish()

    def add(self, batch: Mapping[str, Any], output: Mapping[str, Any], trace: RetrievalTrace) -> None:
        """Take one predicted set: its cells' rows, and its real cells for the differential genes."""
        names = [str(name) for name in batch["pert_name"]]
        types = [str(name) for name in batch.get("cell_type") or [""] * len(names)]
        found = list(trace.cells())
        sources = ["|".join(each) for each in trace.candidate_sources]
        self._several = self._several or bool(sources)
        cells = trace.weights.shape[1] if found else 1
        for place, (name, cell_type) in enumerate(zip(names, types, strict=True)):
            retrieved, selected, count = found[place][1:] if found else ("", "none", 0)
            row = [cell_type, name, retrieved, selected, count, trace.n_retrieved if found else 0]
            self._rows.write(csv_line([*row, sources[place // cells] if sources else ""]))
        real = output.get("pert_cell_counts")
        real = output.get("pert_cell_emb") if real is None else real
        if real is not None:
            moments = self._moments.setdefault((types[0], names[0]), WelchMoments(real.shape[-1]))
            moments.add(real.detach().float().cpu().numpy().reshape(len(names), -1))

    def _finish(self) -> None:
        genes = {condition: self._differential(condition) for condition in self._moments}
        self._rows.seek(0)
        with atomic_path(self.path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as stream:
            stream.write(csv_line([*COLUMNS, SOURCES] if self._several else COLUMNS))
            for *row, sources in csv.reader(self._rows):
                names = genes.get((row[0], row[1]), [])
                more = [sources] if self._several else []
                stream.write(csv_line([*row, "|".join(names[:LISTED]), len(names), *more]))

    def _differential(self, condition: tuple[str, str]) -> list[str]:
        """Return the names of a condition's differential genes, smallest p-value first."""
        control = self._moments.get((condition[0], self._control))
        if control is None or condition[1] == self._control:
            return []
        return differential_names(self._moments[condition], control, self._genes)
