"""A space: one matrix of the cells, with the names of its columns, their scale and the mean of the controls."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from state_rag.contract.align import Alignment, align
from state_rag.contract.feature_names import UNKNOWN, Matrices, column_names, is_expression
from state_rag.contract.matrices import Rows
from state_rag.contract.scale import BASES, Scale, ScaleTally, difference
from state_rag.errors import StateRagError
from state_rag.names import listing

CELLS_READ = 20_000
"""At most so many cells are read to measure a scale, in blocks that are spread over the file."""

CONTROLS_READ = 2_000
_BLOCKS = 100
_VALUES_AT_ONCE = 20_000_000
_USUAL_RATIO = 1.4
"""Controls whose genes are by so much higher or lower than their line's, at the median, have another scale."""

_OF_A_LINE = 10
"""Controls of a line, among those read, below which its mean says too little."""

PREPARE = "`state-rag data prepare` brings a file to log-normalised values"


@dataclass(frozen=True)
class Space:
    """One matrix of the cells.

    Attributes
    ----------
    key
        `X` or `obsm/NAME`.
    width
        Number of columns.
    names
        Names of the columns, in order; None where they cannot be told.
    origin
        Where the names come from, see `ColumnNames`.
    scale
        What the values look like.
    control_mean
        Mean of each column over control cells (a sample of them); None where there are none.
    note
        What contradicts the names that the file declares.
    line_levels
        For each line with controls enough, how its mean is to `control_mean`: the median ratio over genes.
    line_means
        These means, `[columns]` each. They are not kept with a run: it has their levels.
    """

    key: str
    width: int
    names: tuple[str, ...] | None
    origin: str
    scale: Scale
    control_mean: tuple[float, ...] | None = None
    note: str = ""
    line_levels: Mapping[str, float] = field(default_factory=dict)
    line_means: Mapping[str, np.ndarray] = field(default_factory=dict, compare=False, repr=False)

    @property
    def is_expression(self) -> bool:
        """Whether its columns are genes: `X`, or the highly variable ones of it."""
        return is_expression(self.key)

    @property
    def title(self) -> str:
        """How a user writes it."""
        return "X" if self.key == "X" else f"obsm[{self.key.removeprefix('obsm/')!r}]"

    @property
    def words(self) -> str:
        """What it is, in one line."""
        if not self.is_expression:
            return f"{self.title}: {self.width:,} dimensions"
        named = {"var": "named by var", UNKNOWN: "of unknown names"}.get(self.origin, f"named by {self.origin}")
        return f"{self.title}: {self.width:,} genes, {named}; {self.scale.words}"

    def to_dict(self) -> dict[str, Any]:
        """Return plain types."""
        return {
            "key": self.key,
            "width": self.width,
            "names": None if self.names is None else list(self.names),
            "origin": self.origin,
            "scale": self.scale.to_dict(),
            "control_mean": None if self.control_mean is None else list(self.control_mean),
            "note": self.note,
            "line_levels": dict(self.line_levels),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Space":
        """Return what `to_dict` gave."""
        names, mean = values["names"], values["control_mean"]
        return cls(
            **{
                **values,
                "names": None if names is None else tuple(names),
                "scale": Scale.from_dict(values["scale"]),
                "control_mean": None if mean is None else tuple(mean),
            }
        )


def read_space(
    matrices: Matrices,
    key: str,
    controls: np.ndarray | None = None,
    cells: int = CELLS_READ,
    lines: np.ndarray | None = None,
) -> Space:
    """Read what a matrix is.

    Parameters
    ----------
    matrices
        The cells.
    key
        `X` or `obsm/NAME`.
    controls
        Rows of control cells, int; their mean is kept.
    cells
        Read at most so many cells to measure the scale.
    lines
        Line of each control cell, str; None where it is not known.

    Raises
    ------
    StateRagError
        If there is no such matrix, or it cannot be read by rows.
    """
    rows = matrices.rows(key)
    if rows is None:
        raise StateRagError(f"there is no matrix {key} that can be read by rows")
    scale = scale_of(rows, cells, matrices.dtype(key))
    columns = column_names(matrices, key)
    mean: tuple[float, ...] | None = None
    means: dict[str, np.ndarray] = {}
    levels: dict[str, float] = {}
    if controls is not None and len(controls):
        of_all, means = _means(rows, controls, lines)
        mean = tuple(of_all.tolist())
        levels = {line: level for line, own in means.items() if (level := _level(own, of_all)[0])}
    return Space(key, rows.shape[1], columns.names, columns.origin, scale, mean, columns.note, levels, means)


def scale_of(rows: Rows, cells: int = CELLS_READ, dtype: str = "float32") -> Scale:
    """Return the scale of a matrix `[cells, columns]`, stored as `dtype`, by at most so many of its cells."""
    tally = ScaleTally(rows.shape[1], dtype)
    for block in _blocks(rows.shape, cells):
        tally.add(rows.read(block))
    return tally.finish(rows.shape[0])


def usual_total(rows: Rows, scale: Scale, columns: np.ndarray | None = None, cells: int = CELLS_READ) -> float | None:
    """Return what a cell comes to over chosen columns, without logarithm: the median of cells that have any of them.

    Parameters
    ----------
    rows
        The matrix, `[cells, columns]`: counts, or logarithms.
    scale
        As measured; says whether values are logarithms, and of which base.
    columns
        Places of the columns, int; None for all.
    cells
        Read at most so many cells.

    Returns
    -------
    float or None
        In counts, or in the unit that cells were normalised to; None where no cell has any.
    """
    factor = np.float32(BASES[scale.base or "e"])
    totals = []
    for block in _blocks(rows.shape, cells):
        values = rows.read(block)
        values = values if columns is None else values[:, columns]
        values = values if scale.kind == "counts" else np.expm1(values * factor)
        totals.append(values.sum(axis=1, dtype=np.float64))
    found = np.concatenate(totals) if totals else np.empty(0)
    return float(np.median(found[found > 0])) if (found > 0).any() else None


def _blocks(shape: tuple[int, int], cells: int) -> list[np.ndarray]:
    """Return the rows to read, in blocks of neighbours: all, or blocks that are evenly spread."""
    size = max(1, min(_VALUES_AT_ONCE // max(shape[1], 1), -(-cells // _BLOCKS)))
    if shape[0] <= cells:
        return [np.arange(start, min(start + size, shape[0])) for start in range(0, shape[0], size)]
    starts = np.linspace(0, shape[0] - size, cells // size).astype(np.int64)
    return [np.arange(start, start + size) for start in starts]


def _means(rows: Rows, chosen: np.ndarray, lines: np.ndarray | None) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return the mean of at most `CONTROLS_READ` of the rows, evenly spread, and that of each line with enough."""
    order = np.argsort(chosen, kind="stable")
    order = order[np.unique(np.linspace(0, len(chosen) - 1, min(len(chosen), CONTROLS_READ)).astype(np.int64))]
    names, of_row = (
        (np.array([""]), np.zeros(len(order), int)) if lines is None else np.unique(lines[order], return_inverse=True)
    )
    size = max(1, _VALUES_AT_ONCE // max(rows.shape[1], 1))
    totals, counts = np.zeros((len(names), rows.shape[1])), np.bincount(of_row, minlength=len(names))
    for start in range(0, len(order), size):
        values, number = rows.read(chosen[order[start : start + size]]), of_row[start : start + size]
        for place in np.unique(number):
            totals[place] += values[number == place].sum(axis=0, dtype=np.float64)
    mean = (totals.sum(axis=0) / len(order)).astype(np.float32)
    enough = () if lines is None else np.flatnonzero(counts >= _OF_A_LINE)
    return mean, {str(names[place]): (totals[place] / counts[place]).astype(np.float32) for place in enough}


def with_levels_of(known: Space, other: Space) -> Space:
    """Return a space that knows, too, the levels of the lines of another file in the same genes and order."""
    if known.control_mean is None or known.names != other.names or known.width != other.width:
        return known
    expected = np.asarray(known.control_mean)
    levels = {line: level for line, own in other.line_means.items() if (level := _level(own, expected)[0])}
    return replace(known, line_levels={**levels, **known.line_levels})


def _level(own: np.ndarray, expected: np.ndarray) -> tuple[float, int]:
    """Return the median ratio of two mean profiles over genes that both have, and their number; 0 for too few."""
    there = (expected > 0.05) & (own > 0)
    if there.sum() < 20:
        return 0.0, 0
    return float(np.median(own[there] / expected[there])), int(there.sum())


@dataclass(frozen=True)
class Fit:
    """How a space that is given fits the one that is known.

    Attributes
    ----------
    alignment
        Where the known columns lie in the given matrix; None where names are unknown, so that places have to do.
    errors
        What makes results wrong, a sentence each, with what to do.
    warnings
        What may make them less exact, or could not be checked.
    """

    alignment: Alignment | None
    errors: tuple[str, ...]
    warnings: tuple[str, ...]


def fit(known: Space, given: Space, *, fill_missing: bool = False) -> Fit:
    """Compare a space with the one that a run, or another file, is known to have.

    Parameters
    ----------
    known, given
        What is expected, and what there is.
    fill_missing
        Whether missing genes are to be filled with the known controls' mean, so that they are no error.
    """
    errors: list[str] = []
    warnings: list[str] = []
    alignment = _names(known, given, fill_missing, errors, warnings)
    if problem := not_finite(given):
        errors.append(problem)
    if known.is_expression:
        _scale(known, given, alignment, errors, warnings)
    return Fit(alignment, tuple(errors), tuple(warnings))


def not_finite(space: Space) -> str:
    """Return what to say of values that are no numbers; empty where all are."""
    scale = space.scale
    if scale.is_finite:
        return ""
    found = " and ".join(
        f"{count:,} {what}" for count, what in ((scale.nan, "NaN"), (scale.infinite, "infinite")) if count
    )
    return f"{space.title} holds {found} values. Remove those cells, or make the matrix anew."


def unsuited(space: Space) -> tuple[str, bool] | None:
    """Return what to say of expression that STATE cannot be trained on, and whether results would be wrong.

    STATE expects log-normalised expression, which its own `preprocess_train` makes, and clips predictions to [0, 14].
    """
    kind = space.scale.kind
    if not space.is_expression or kind == "log1p":
        return None
    if kind == "empty":
        return f"{space.title} holds nothing but zeros.", True
    if kind == "signed":
        return (
            f"{space.title} holds {space.scale.negative:,} negative values (least {space.scale.minimum:.3g}), so it "
            "was centred or scaled, and predictions of genes are clipped at zero. Give log-normalised expression; the "
            "unscaled matrix may lie in `raw` or `layers` of the file.",
            True,
        )
    text = f"{space.title} holds {space.scale.words} (largest {space.scale.maximum:.4g})"
    if kind == "log counts":
        return f"{text}: cells of different depth look different.", False
    return f"{text}, where log-normalised expression is expected. {PREPARE}.", True


def _names(known: Space, given: Space, fill_missing: bool, errors: list[str], warnings: list[str]) -> Alignment | None:
    if known.names is None or given.names is None:
        if known.width != given.width:
            errors.append(f"{given.title} has {given.width} columns, where {known.width} are expected.")
        elif known.is_expression:
            whose = "here" if given.names is None else "in what the run was trained on"
            warnings.append(
                f"the genes of {given.title} have no names {whose}: its {given.width} columns are taken by position. "
                "Set var['highly_variable'], or make X_hvg with `state-rag data prepare`, to have them checked."
            )
        return None
    alignment = align(known.names, given.names)
    if alignment.missing and not fill_missing:
        errors.append(
            f"{given.title} lacks {len(alignment.missing)} of {known.width} genes ({listing(alignment.missing)})."
        )
    return alignment


def _over_common(known: Space, given: Space, alignment: Alignment | None) -> tuple[Scale, Scale]:
    """Return both scales with the totals that cells come to over the columns in common, by the means of controls."""
    scales = known.scale, given.scale
    if alignment is None or not (alignment.extra or alignment.missing):
        return scales
    there = alignment.places >= 0
    shares = expressed_share(known, there), expressed_share(given, alignment.places[there])
    if None in shares:
        return scales
    known_scale, given_scale = (
        replace(scale, total=None if scale.total is None or share is None else scale.total * share)
        for scale, share in zip(scales, shares, strict=True)
    )
    return known_scale, given_scale


def expressed_share(space: Space, columns: np.ndarray) -> float | None:
    """Return the share of controls' expression, without logarithm, that lies in chosen columns; None if not known.

    Parameters
    ----------
    space
        Log-normalised, with the mean of its controls.
    columns
        Their places, int, or bool `[columns]`.
    """
    if space.control_mean is None or space.scale.kind != "log1p":
        return None
    linear = np.expm1(np.asarray(space.control_mean, dtype=np.float64) * BASES[space.scale.base or "e"])
    return float(linear[columns].sum() / linear.sum()) if linear.sum() > 0 else None


def _scale(known: Space, given: Space, alignment: Alignment | None, errors: list[str], warnings: list[str]) -> None:
    other = difference(*_over_common(known, given, alignment))
    if other is not None:
        text = f"{given.title} holds {other.text}."
        if other.is_wrong:
            errors.append(f"{text} {PREPARE}.")
        else:
            warnings.append(text)
        return
    if known.control_mean is None or given.control_mean is None or known.scale.kind != "log1p":
        return
    if given.line_means and not known.line_levels:
        return  # a run of before its lines' levels were kept: one line is no measure for another
    expected = np.asarray(known.control_mean)
    profiles = given.line_means or {"": np.asarray(given.control_mean)}
    usual = tuple(known.line_levels.values()) or (1.0,)
    odd, genes = [], 0
    for line, profile in profiles.items():
        own, there = profile, expected
        if alignment is not None:
            there, own = expected[alignment.places >= 0], profile[alignment.places[alignment.places >= 0]]
        if len(there) != len(own):
            return
        level, count = _level(own, there)
        # a line that is not known may be as any that is
        low, high = (known.line_levels[line],) * 2 if line in known.line_levels else (min(usual), max(usual))
        ratio = level / min(max(level, low), high)
        if count and max(ratio, 1 / ratio) > _USUAL_RATIO:
            odd.append(f"{ratio:.2g} times the expected expression{f' in {line}' if line else ''}")
            genes = max(genes, count)
    if odd:
        warnings.append(
            f"control cells have {listing(odd)}; {given.title}, median over {genes} genes: another total, another "
            "logarithm, or another kind of cell."
        )
