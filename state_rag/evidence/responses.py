"""Measured responses: mean effects of perturbations in contexts, a row a condition. What was not measured is absent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from state_rag.errors import StateRagError
from state_rag.names import repeated
from state_rag.names.treatments import canonical

UNTOLD = 2
"""Stands in `Responses.changes` where it cannot be told whether a gene changes."""


class Responses:
    """Mean effects of conditions, each a perturbation in a context (cell line, donor, tissue).

    Edge cases are part of the definition: a row that is NaN throughout was not measured and is left out; a row that
    is NaN or infinite in part is refused, as are two rows of one condition. Without cell counts all rows count alike.

    Parameters
    ----------
    effects
        [N, G]: mean of a condition's cells minus the mean of its context's controls, or any other score of genes.
    contexts, perturbations
        Labels of the N rows.
    genes
        G names; numbers where not given.
    cells
        [N]: cells behind each row; at least 1 each.
    variance
        [N, G]: variance between the cells of a condition, not below 0.
    controls
        Context -> mean of its controls [G], for some or all contexts.
    changes
        [N, G]: 1 for a gene that a condition raises, -1 for one that it lowers, 0 for one that it does not change, NaN
        (or `UNTOLD`) where that cannot be told; by whatever test.
    treated
        Whether perturbations are labels that tell modes, doses or times beside names (`names.treatments`).

    Attributes
    ----------
    effects
        float32 [N, G], rows in the order given, without those that were not measured; so are all other attributes.
    changes
        int8 [N, G], `UNTOLD` where it cannot be told; None where nothing is known of changes.

    Raises
    ------
    StateRagError
        For shapes that do not fit, values that are not finite, a condition given twice, or no row at all.

    Examples
    --------
    >>> nan = float("nan")
    >>> responses = Responses([[1.0, 0.0], [nan, nan], [0.5, 0.5]], ["a", "a", "b"], ["P1", "P2", "P1"])
    >>> len(responses), responses.context_names, responses.perturbation_names
    (2, ('a', 'b'), ('P1',))
    """

    def __init__(
        self,
        effects: Any,
        contexts: Sequence[str],
        perturbations: Sequence[str],
        genes: Sequence[str] | None = None,
        *,
        cells: Any = None,
        variance: Any = None,
        controls: Mapping[str, Any] | None = None,
        changes: Any = None,
        treated: bool = False,
    ) -> None:
        self.treated = treated
        values = _matrix(effects, "effects")
        _check_length(contexts, len(values), "contexts")
        _check_length(perturbations, len(values), "perturbations")
        measured = ~np.isnan(values).all(1)
        if not measured.any():
            raise StateRagError("responses: no condition was measured; give at least one row of effects.")
        self.effects = values[measured].astype(np.float32)
        self.contexts = tuple(str(name) for name, there in zip(contexts, measured, strict=True) if there)
        self.perturbations = tuple(str(name) for name, there in zip(perturbations, measured, strict=True) if there)
        if treated:
            self.perturbations = tuple(map(canonical, self.perturbations))
        self.genes = tuple(map(str, genes)) if genes is not None else tuple(map(str, range(values.shape[1])))
        _check_length(self.genes, values.shape[1], "genes", "columns")
        self._check_rows()
        self.cells = None if cells is None else _cells(cells, measured)
        self.variance = None if variance is None else self._variance(variance, measured)
        self.changes = None if changes is None else self._changes(changes, measured)
        self.context_names = tuple(dict.fromkeys(self.contexts))
        self.perturbation_names = tuple(dict.fromkeys(self.perturbations))
        self.controls = {str(name): self._control(name, mean) for name, mean in (controls or {}).items()}

    @classmethod
    def from_grid(
        cls, effects: Any, contexts: Sequence[str], perturbations: Sequence[str], genes: Sequence[str] | None = None
    ) -> Responses:
        """Return the measured conditions of a complete grid.

        Parameters
        ----------
        effects
            [C, P, G]; NaN throughout where a condition was not measured.
        contexts, perturbations, genes
            Labels of the three axes.
        """
        grid = np.asarray(effects)
        if grid.ndim != 3 or grid.shape[:2] != (len(contexts), len(perturbations)):
            raise StateRagError(
                f"responses: a grid of shape {grid.shape} was given; expected {len(contexts)} contexts x "
                f"{len(perturbations)} perturbations x genes."
            )
        rows = [(context, perturbation) for context in contexts for perturbation in perturbations]
        return cls(grid.reshape(len(rows), -1), [c for c, _ in rows], [p for _, p in rows], genes)

    def __len__(self) -> int:
        return len(self.effects)

    def take(self, rows: Sequence[int]) -> Responses:
        """Return some of the conditions, in the order given; at least one."""
        chosen = np.asarray(rows, dtype=np.int64)

        def part(values: np.ndarray | None) -> np.ndarray | None:
            return None if values is None else values[chosen]

        return Responses(
            self.effects[chosen],
            [self.contexts[row] for row in chosen],
            [self.perturbations[row] for row in chosen],
            self.genes,
            cells=part(self.cells),
            variance=part(self.variance),
            controls=self.controls,
            changes=part(self.changes),
            treated=self.treated,
        )

    @property
    def conditions(self) -> list[tuple[str, str]]:
        """Return (context, perturbation) of each row."""
        return list(zip(self.contexts, self.perturbations, strict=True))

    def _check_rows(self) -> None:
        twice = repeated(self.conditions)
        if twice:
            context, perturbation = twice[0]
            raise StateRagError(
                f"responses: {len(twice)} conditions are given more than once, among them {perturbation} in {context}; "
                "give each once, for instance averaged."
            )
        broken = np.flatnonzero(~np.isfinite(self.effects).all(1))
        if len(broken):
            context, perturbation = self.conditions[broken[0]]
            genes = np.flatnonzero(~np.isfinite(self.effects).all(0))
            raise StateRagError(
                f"responses: {len(broken)} conditions hold NaN or infinity, among them {perturbation} in {context}, "
                f"in {len(genes)} genes, among them {self.genes[genes[0]]}; leave these genes out, or the whole rows."
            )

    def _variance(self, variance: Any, measured: np.ndarray) -> np.ndarray:
        values = _matrix(variance, "variance")
        if values.shape != (len(measured), len(self.genes)):
            raise StateRagError(
                f"responses: variance has shape {values.shape}, effects {(len(measured), len(self.genes))}; expected "
                "one value for each."
            )
        values = values[measured]
        if (values < 0).any():
            raise StateRagError("responses: a variance is below 0; give variances of cells, not deviations from them.")
        return values

    def _changes(self, changes: Any, measured: np.ndarray) -> np.ndarray:
        values = np.asarray(changes)
        if values.shape != (len(measured), len(self.genes)):
            raise StateRagError(
                f"responses: changes have shape {values.shape}, effects {(len(measured), len(self.genes))}; expected "
                "one value for each."
            )
        told = np.where(np.isnan(values[measured]), UNTOLD, values[measured])
        if not np.isin(told, (-1, 0, 1, UNTOLD)).all():
            raise StateRagError("responses: changes are 1 (up), -1 (down), 0 (not changed) and NaN (cannot be told).")
        return told.astype(np.int8)

    def _control(self, name: str, mean: Any) -> np.ndarray:
        values = np.asarray(mean, dtype=np.float64).ravel()
        if values.shape != (len(self.genes),) or not np.isfinite(values).all():
            raise StateRagError(
                f"responses: the control mean of {name} has {values.size} values, {int(np.isfinite(values).sum())} of "
                f"them finite; expected {len(self.genes)} finite ones, one a gene."
            )
        return values


def _matrix(values: Any, what: str) -> np.ndarray:
    matrix = np.asarray(values, dtype=np.float64)
    if matrix.ndim != 2 or not matrix.shape[1]:
        raise StateRagError(f"responses: {what} has shape {matrix.shape}; expected conditions x genes.")
    return matrix


def _check_length(labels: Sequence[str], expected: int, what: str, axis: str = "rows") -> None:
    if len(labels) != expected:
        raise StateRagError(f"responses: {len(labels)} {what} for {expected} {axis} of effects; expected as many.")


def _cells(cells: Any, measured: np.ndarray) -> np.ndarray:
    counts = np.asarray(cells, dtype=np.float64).ravel()
    if counts.shape != measured.shape:
        raise StateRagError(f"responses: {counts.size} cell counts for {measured.size} conditions; expected as many.")
    counts = counts[measured]
    if not (np.isfinite(counts).all() and (counts >= 1).all()):
        raise StateRagError("responses: a condition's cell count is below 1 or not a number; leave such rows out.")
    return counts
