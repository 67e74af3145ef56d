"""What the values of a matrix look like: counts or logarithms, to which total, and whether all of them are numbers.

Nothing is taken on trust: the scale is measured from values. Rows may come in blocks, so that a file larger than memory
is measured from a sample of its cells.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

LARGEST_LOG = 15.0
"""Natural logarithm of three million: no log-normalised count is larger."""

KINDS = {
    "counts": "counts (whole numbers)",
    "log counts": "log1p of counts, not normalised to a total",
    "log1p": "log-normalised expression",
    "linear": "normalised expression without logarithm",
    "signed": "values of both signs (scaled, centred or an embedding)",
    "empty": "nothing but zeros",
}
"""What each kind is, in words."""

BASES = {"e": 1.0, "2": float(np.log(2)), "10": float(np.log(10))}
"""Natural logarithm of each base that a log-normalised matrix may have."""

SAME_TOTAL = 0.02
"""Coefficient of variation of cells' totals up to which they count as scaled to one total."""

TOTAL_RATIO, TOTAL_RATIO_WRONG = 1.1, 1.5
"""Ratio of two totals from which they are told as different, and from which as another scale."""

_WHOLE = 1e-5  # float32 logarithms of whole numbers come back to within this share of them


@dataclass(frozen=True)
class Scale:
    """What was seen of a matrix's values.

    Attributes
    ----------
    kind
        One of `KINDS`.
    base
        Base of the logarithm: `e`, `2` or `10`, where cells' totals show it; else None.
    total
        What each cell was normalised to, where cells have one total; else None.
    minimum, maximum
        Of the finite values.
    dtype
        As stored, e.g. `float32`.
    nan, infinite, negative
        How many values are NaN, infinite or below zero.
    empty_cells
        Cells without a value other than zero.
    empty_columns
        Columns without one, by their number.
    cells_read, cells
        How many cells were read, and how many there are.
    """

    kind: str
    base: str | None
    total: float | None
    minimum: float
    maximum: float
    dtype: str
    nan: int
    infinite: int
    negative: int
    empty_cells: int
    empty_columns: tuple[int, ...]
    cells_read: int
    cells: int

    @property
    def sampled(self) -> bool:
        """Whether only some of the cells were read."""
        return self.cells_read < self.cells

    @property
    def is_finite(self) -> bool:
        """Whether every value read is a number."""
        return not (self.nan or self.infinite)

    @property
    def words(self) -> str:
        """What the values are, in words."""
        text = KINDS[self.kind]
        if self.kind == "log1p":
            base = {"2": ", logarithm to base 2", "10": ", logarithm to base 10"}.get(self.base or "", "")
            text += f" ({self.total:,.0f} a cell{base})" if self.total else ""
        return text

    def to_dict(self) -> dict[str, Any]:
        """Return plain types."""
        return {**asdict(self), "empty_columns": list(self.empty_columns)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Scale":
        """Return what `to_dict` gave."""
        return cls(**{**values, "empty_columns": tuple(values["empty_columns"])})


@dataclass
class ScaleTally:
    """Measures a scale from blocks of rows.

    Attributes
    ----------
    columns
        Number of columns.
    dtype
        Type of the stored values.
    """

    columns: int
    dtype: str = "float32"
    _nan: int = 0
    _infinite: int = 0
    _negative: int = 0
    _cells: int = 0
    _empty_cells: int = 0
    _minimum: float = np.inf
    _maximum: float = -np.inf
    _whole: bool = True
    _log_whole: bool = True
    _filled: np.ndarray | None = None
    _totals: dict[str, list[np.ndarray]] = field(default_factory=lambda: {base: [] for base in BASES})

    def add(self, block: np.ndarray) -> None:
        """Add dense rows `[cells, columns]`."""
        block = np.asarray(block, dtype=np.float32)
        if self._filled is None:
            self._filled = np.zeros(self.columns, dtype=bool)
        finite = np.isfinite(block)
        if not finite.all():
            self._nan += int(np.isnan(block).sum())
            self._infinite += int(np.isinf(block).sum())
            block = np.where(finite, block, 0)
        filled = block != 0
        self._filled |= filled.any(axis=0)
        self._empty_cells += int((~filled.any(axis=1)).sum())
        self._cells += len(block)
        self._negative += int((block < 0).sum())
        if block.size:
            self._minimum, self._maximum = (
                min(self._minimum, float(block.min())),
                max(self._maximum, float(block.max())),
            )
        if self._negative:
            return
        values = block[filled]
        self._whole = self._whole and bool(np.all(values == np.floor(values)))
        if self._maximum > LARGEST_LOG:
            return
        if self._log_whole:
            back = np.expm1(values.astype(np.float64))
            whole = np.rint(back)
            self._log_whole = bool(np.all((whole >= 1) & (np.abs(back - whole) <= _WHOLE * (whole + 10))))
        for base, factor in BASES.items():
            self._totals[base].append(np.expm1(block * np.float32(factor)).sum(axis=1, dtype=np.float64))

    def finish(self, cells: int | None = None) -> Scale:
        """Return the scale; `cells` is how many there are, where not all were added."""
        kind = self._kind()
        base, total = self._total() if kind == "log1p" else (None, None)
        filled = np.ones(0, dtype=bool) if self._filled is None else self._filled
        return Scale(
            kind=kind,
            base=base,
            total=total,
            minimum=self._minimum if np.isfinite(self._minimum) else 0.0,
            maximum=self._maximum if np.isfinite(self._maximum) else 0.0,
            dtype=self.dtype,
            nan=self._nan,
            infinite=self._infinite,
            negative=self._negative,
            empty_cells=self._empty_cells,
            empty_columns=tuple(np.flatnonzero(~filled).tolist()),
            cells_read=self._cells,
            cells=self._cells if cells is None else cells,
        )

    def _kind(self) -> str:
        if self._negative:
            return "signed"
        if self._filled is None or not self._filled.any():
            return "empty"
        if self._whole:
            return "counts"
        if self._maximum > LARGEST_LOG:
            return "linear"
        return "log counts" if self._log_whole else "log1p"

    def _total(self) -> tuple[str | None, float | None]:
        """Return base and total under which cells have one total; the columns may be too few to tell."""
        best: tuple[float, str | None, float | None] = (SAME_TOTAL, None, None)
        for base, parts in self._totals.items():
            totals = np.concatenate(parts)
            totals = totals[totals > 0]
            if len(totals) < 3:
                continue
            spread = float(totals.std() / totals.mean())
            if spread < best[0]:
                best = spread, base, float(np.median(totals))
        return best[1], best[2]


def measure(values: np.ndarray) -> Scale:
    """Return the scale of a dense matrix `[cells, columns]`.

    Examples
    --------
    >>> measure(np.array([[0, 3, 1], [2, 0, 0]])).kind
    'counts'
    >>> measure(np.log1p(np.array([[5.5, 4.5], [2.5, 7.5], [1.5, 8.5]]))).words
    'log-normalised expression (10 a cell)'
    """
    values = np.asarray(values)
    tally = ScaleTally(values.shape[1], str(values.dtype))
    tally.add(values)
    return tally.finish()


@dataclass(frozen=True)
class Difference:
    """How two scales differ.

    Attributes
    ----------
    text
        What one is and what the other is.
    is_wrong
        Whether predictions from one for the other would be wrong, not only less exact.
    """

    text: str
    is_wrong: bool


def difference(known: Scale, given: Scale) -> Difference | None:
    """Tell how a scale differs from the one that is known; None where it does not."""
    if "empty" in (known.kind, given.kind):
        return None
    if known.kind != given.kind:
        return Difference(f"{given.words} where {known.words} is expected", True)
    if known.base and given.base and known.base != given.base:
        return Difference(f"{given.words} where {known.words} is expected", True)
    if known.total and given.total:
        ratio = max(known.total, given.total) / min(known.total, given.total)
        if ratio > TOTAL_RATIO:
            text = f"cells that were normalised to {given.total:,.0f}, where {known.total:,.0f} is expected"
            return Difference(text, ratio > TOTAL_RATIO_WRONG)
    return None
