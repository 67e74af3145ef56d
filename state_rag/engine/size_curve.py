"""How large a predicted effect is over doses or times: a sanity check, since more of a drug rarely does less."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from state_rag.engine.explaining.explain import check_contexts
from state_rag.engine.explaining.files import file_name
from state_rag.engine.folder import EvidenceRun
from state_rag.engine.further import knowing
from state_rag.errors import StateRagError
from state_rag.files import atomic_path
from state_rag.names import listing, suggest
from state_rag.names.combinations import parts_of
from state_rag.names.treatments import Treatment, dose_of, hours_of, label_of, treatment_of
from state_rag.plot.size_curve import size_figure
from state_rag.plot.style import save_figure

FALL = 0.02
"""Share of the largest size by which an effect must become smaller for that to be said: less is noise of the fit."""


@dataclass(frozen=True)
class SizeCurve:
    """The size of a predicted effect over doses or times.

    Attributes
    ----------
    perturbation, context
        A label, without what the curve runs over; and the context.
    axis
        `dose` or `time`.
    table
        A row a value, ascending: `dose` (or `time`), `size` (root mean square over genes, in the unit of the
        responses), `similarity` (cosine with the effect at the largest value), `expected_pearson` where it is known,
        and `measured`: the size of the measured effect in the context, NaN where there is none.
    falls
        (from, to) of values between which the size becomes smaller, by more than 2 % of the largest.
    outside
        Values above the largest or below the least that any condition has; 0, which does nothing, is not among them.
    """

    perturbation: str
    context: str
    axis: str
    table: pd.DataFrame
    falls: tuple[tuple[float, float], ...]
    outside: tuple[float, ...]

    @property
    def words(self) -> str:
        """Return in words whether the effect grows throughout."""
        values, sizes = self.table[self.axis].tolist(), self.table["size"].tolist()
        over = f"{self.perturbation} in {self.context}, over {self.axis}s {values[0]:g} to {values[-1]:g}"
        text = f"{over}: monotone, the size of the predicted effect goes from {sizes[0]:.3g} to {sizes[-1]:.3g}."
        if self.falls:
            size = dict(zip(values, sizes, strict=True))
            told = [f"from {size[a]:.3g} at {a:g} to {size[b]:.3g} at {b:g}" for a, b in self.falls]
            text = f"{over}: NOT monotone, the size of the predicted effect falls {listing(told)}."
        if self.outside:
            text += f" Beyond what was measured, so guessed: {listing([f'{one:g}' for one in self.outside])}."
        return text


def size_curve(
    run: EvidenceRun,
    perturbation: str,
    context: str,
    values: Sequence[float],
    axis: str = "dose",
    *,
    new_context: bool = False,
) -> SizeCurve:
    """Return the size of a predicted effect over doses or times.

    Parameters
    ----------
    run
        An evidence run that tells doses, or times.
    perturbation
        A label; what it tells of the axis is left out.
    context
        Name.
    values
        Doses or times, two different ones or more.
    axis
        `dose` or `time`.
    new_context
        Take a context that the run does not know for a new one.

    Raises
    ------
    StateRagError
        If the run tells no doses (times), there are too few of them, it does not know the context, or nothing is known
        of the perturbation.
    """
    bank = run.engine.bank
    scale = None if bank.axes is None else getattr(bank.axes, axis)
    if scale is None:
        raise StateRagError(f"--{axis}s: the run tells no {axis}s; fit it with --{axis}-col.")
    asked = sorted({float(value) for value in values})
    if len(asked) < 2:
        given = listing([f"{one:g}" for one in asked]) or "nothing"
        raise StateRagError(f"--{axis}s: {given}; give two different values or more.")
    if len(parts_of(perturbation)) > 1:
        raise StateRagError(f"--{axis}s: {perturbation} is a combination, whose members have a {axis} each.")
    check_contexts(run, [context], new_context=new_context)
    name, treatment = treatment_of(run.own_name(perturbation))
    plain = label_of(name, _with(treatment, axis, None))
    labels = [label_of(name, _with(treatment, axis, value)) for value in asked]
    run = knowing(run, labels)
    if not all(map(run.engine.knows, labels)):
        raise StateRagError(f"nothing is known of {name}{suggest([name], bank.names)}")
    found = run.engine.predict(context, labels)
    size = np.sqrt(np.square(found.mean).mean(1))
    last = found.mean[-1] / max(float(np.linalg.norm(found.mean[-1])), 1e-300)
    length = np.linalg.norm(found.mean, axis=1)
    table = pd.DataFrame({axis: asked, "size": size})
    table["similarity"] = np.divide(found.mean @ last, length, out=np.full(len(length), np.nan), where=length > 0)
    if found.trust is not None:
        table["expected_pearson"] = found.trust.expected
    measured = dict(zip(run.engine.responses.conditions, run.engine.responses.effects, strict=True))
    own = [measured.get((context, label)) for label in labels]
    table["measured"] = [np.nan if one is None else float(np.sqrt(np.square(one).mean())) for one in own]
    steps = zip(asked[:-1], asked[1:], np.diff(size), strict=True)
    falls = tuple((a, b) for a, b, rise in steps if rise < -FALL * float(size.max()))
    outside = tuple(value for value in asked if value and not scale.least <= value <= scale.largest)
    return SizeCurve(plain, context, axis, table, falls, outside)


def _with(treatment: Treatment, axis: str, value: float | None) -> Treatment:
    return treatment._replace(dose=value) if axis == "dose" else treatment._replace(time=value)


def read_values(text: str, axis: str) -> list[float]:
    """Return the doses or times in a list that commas separate, units included.

    Raises
    ------
    StateRagError
        For what is none.

    Examples
    --------
    >>> read_values("10nM,0.1,1", "dose"), read_values("6,1d", "time")
    ([0.01, 0.1, 1.0], [6.0, 24.0])
    """
    read = dose_of if axis == "dose" else hours_of
    found = [read(part) for part in text.split(",")]
    if any(value is None for value in found):
        raise StateRagError(f"--{axis}s {text}: expected numbers, separated by commas.")
    return [value for value in found if value is not None]


def write_size_curve(found: SizeCurve, folder: Path) -> list[Path]:
    """Write a curve as CSV and as a picture, PNG and SVG."""
    name = f"{file_name(found.context, found.perturbation)}_{found.axis}s"
    with atomic_path(folder / f"{name}.csv") as path:
        found.table.to_csv(path, index=False)
    save_figure(size_figure(found.table, found.axis, f"{found.perturbation} in {found.context}"), folder, name)
    return [folder / f"{name}.{suffix}" for suffix in ("csv", "png", "svg")]
