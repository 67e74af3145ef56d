"""Labels of what was done to cells: a perturbation with its mode, dose and time.

`TP53:CRISPRi`, `Afatinib:dose=0.5:time=24`, `A:CRISPRa+B:CRISPRa`: the name, then what is known of the rest, in this
order; each member of a combination has its own. A dose is a number in the unit of the data, in µM where these name a
molar unit; a time is in hours. `%3A` stands for a `:` within a name or a mode, `%2B` for a `+` that joins no members,
`%7C` for a `|`, which lists of labels have between them, `%3D` for a `=` in a mode, and `%25` for a `%`, so that every
label can be taken apart again; so do brackets that are not closed.
"""

import math
import re
from collections.abc import Iterable
from typing import NamedTuple

from state_rag.errors import StateRagError
from state_rag.names.combinations import SEPARATOR, closes, parts_of
from state_rag.names.drugs import dose_in, drug_of

COLON = ":"
"""Between the parts of a label."""

DOSE, TIME = "dose=", "time="
"""How the last parts of a label begin."""

MOLAR = {"pM": 1e-6, "nM": 1e-3, "uM": 1.0, "µM": 1.0, "μM": 1.0, "mM": 1e3, "M": 1e6}
"""Molar units in µM."""

HOURS = {
    **dict.fromkeys(("s", "sec", "second", "seconds"), 1 / 3600),
    **dict.fromkeys(("m", "min", "minute", "minutes"), 1 / 60),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), 1.0),
    **dict.fromkeys(("d", "day", "days"), 24.0),
    **dict.fromkeys(("w", "week", "weeks"), 168.0),
}
"""Units of time in hours."""

_ESCAPES = {"%": "%25", COLON: "%3A", "|": "%7C", SEPARATOR: "%2B", "=": "%3D"}
_BRACKETS = {"(": "%28", ")": "%29", "[": "%5B", "]": "%5D", "{": "%7B", "}": "%7D"}
"""Where they are not closed within a name or a mode, they would be taken for those around members."""
_NUMBER = re.compile(r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*_?\s*((?:[^\W\d_]|%)\S*)?\s*")
_MISSING = ("", "nan", "none", "na", "n/a", "<na>")


class Treatment(NamedTuple):
    """How cells were perturbed, beside by what; None where that is not told.

    Attributes
    ----------
    mode
        Such as CRISPRi, CRISPRa, KO or drug.
    dose
        At least 0.
    time
        In hours, at least 0.
    """

    mode: str | None = None
    dose: float | None = None
    time: float | None = None


def label_of(name: str, treatment: Treatment) -> str:
    """Return the label of a perturbation and how it was done; a combination's is that of its members.

    Raises
    ------
    StateRagError
        For a dose or time below 0 or not finite.

    Examples
    --------
    >>> label_of("TP53", Treatment("CRISPRi")), label_of("B+A", Treatment("KO")), label_of("X", Treatment())
    ('TP53:CRISPRi', 'A:KO+B:KO', 'X')
    >>> label_of("Afatinib", Treatment(dose=0.5, time=24))
    'Afatinib:dose=0.5:time=24'
    """
    return SEPARATOR.join(_label_of(part, treatment) for part in parts_of(name))


def treatment_of(label: str) -> tuple[str, Treatment]:
    """Return the name and the treatment in a label of a single perturbation, however it is spelled.

    Raises
    ------
    StateRagError
        For a label that is none.

    Examples
    --------
    >>> treatment_of("TP53:CRISPRi")
    ('TP53', Treatment(mode='CRISPRi', dose=None, time=None))
    >>> treatment_of("Afatinib:dose=500 nM:time=1 d")
    ('Afatinib', Treatment(mode=None, dose=0.5, time=24.0))
    """
    name, *fields = label.split(COLON)
    mode: str | None = None
    numbers: dict[str, float] = {}
    for field in fields:
        key = next((key for key in (DOSE, TIME) if field.startswith(key)), None)
        if key is None and (mode is not None or "=" in field or not field):
            raise StateRagError(f"{label!r} is no label of a perturbation: {field!r} {_EXPECTED}")
        if key is None:
            mode = _plain(field)
            continue
        value = (dose_of if key == DOSE else hours_of)(field.removeprefix(key))
        if key in numbers or value is None:
            raise StateRagError(f"{label!r} is no label of a perturbation: {field!r} {_EXPECTED}")
        numbers[key] = value
    return _plain(name), Treatment(mode, numbers.get(DOSE), numbers.get(TIME))


def doses_in(label: str) -> list[str]:
    """Return the doses in a label as they are written, of a combination those of its members.

    Examples
    --------
    >>> doses_in("Afatinib:dose=500 nM:time=1 d"), doses_in("TP53:CRISPRi")
    (['500 nM'], [])
    """
    fields = (field for part in parts_of(label) for field in part.split(COLON)[1:])
    return [field.removeprefix(DOSE) for field in fields if field.startswith(DOSE)]


def name_in(label: str) -> str:
    """Return the name in a label, of a combination those of its members.

    Examples
    --------
    >>> name_in("TP53:CRISPRi"), name_in("A:KO+B:KO")
    ('TP53', 'A+B')
    """
    parts = parts_of(label)
    names = [treatment_of(part)[0] for part in parts]
    return names[0] if len(names) == 1 else SEPARATOR.join(names)


def told_in(label: str) -> tuple[str, Treatment]:
    """Return the name in a label of cells, and the treatment, where it tells a dose or a time; else the label itself.

    Tahoe-100M's lists of (drug, dose, unit) are read too. What has a `:` and tells neither is a name, such as a locus.

    Examples
    --------
    >>> told_in("Afatinib:dose=0.5:time=24")
    ('Afatinib', Treatment(mode=None, dose=0.5, time=24.0))
    >>> [told_in(label)[0] for label in ("[('Afatinib', 0.5, 'uM')]", "B:dose=1+A:dose=2", "chr1:100-200")]
    ['Afatinib', 'A+B', 'chr1:100-200']
    """
    drug = drug_of(label)
    if drug is not None:
        return drug, Treatment(dose=dose_of(label))
    if f"{COLON}{DOSE}" not in label and f"{COLON}{TIME}" not in label:
        return label, Treatment()
    try:
        return treatment_of(label) if len(parts_of(label)) == 1 else (name_in(label), Treatment())
    except StateRagError:
        return label, Treatment()


def single_labels(labels: Iterable[str]) -> list[str]:
    """Return labels of single perturbations, and those of the members of combinations among the given ones.

    Examples
    --------
    >>> single_labels(["A:KO+B:KO", "A:KO"])
    ['A:KO', 'B:KO']
    """
    return list(dict.fromkeys(part for label in labels for part in parts_of(label)))


def canonical(label: str) -> str:
    """Return a label as `label_of` writes it, of a combination its members in alphabetical order.

    Examples
    --------
    >>> canonical("Afatinib:time=1 d:dose=0.50"), canonical("B:KO+A:KO+ctrl")
    ('Afatinib:dose=0.5:time=24', 'A:KO+B:KO')
    """
    return SEPARATOR.join(sorted(_label_of(*treatment_of(part)) for part in parts_of(label)))


def dose_of(text: str) -> float | None:
    """Return a dose, in µM where a molar unit is named; None where it is missing.

    A list of (drug, dose, unit), as Tahoe-100M labels drugs, is read too.

    Raises
    ------
    StateRagError
        For what is no number at least 0.

    Examples
    --------
    >>> dose_of("10"), dose_of("500nM"), dose_of("[('Afatinib', 0.5, 'uM')]"), dose_of("nan")
    (10.0, 0.5, 0.5, None)
    """
    value, unit = _dose(text)
    return None if value is None else _rounded(value * MOLAR.get(unit, 1.0), unit in MOLAR)


def unit_of(text: str) -> str | None:
    """Return the unit that a dose names, `µM` for each molar one; empty for none, None for a missing dose.

    Examples
    --------
    >>> unit_of("10 nM"), unit_of("3 ng/ml"), unit_of("3"), unit_of("")
    ('µM', 'ng/ml', '', None)
    """
    value, unit = _dose(text)
    return None if value is None else "µM" if unit in MOLAR else unit


def refuse_unit(text: str, known: str | None) -> None:
    """Refuse a dose in another unit than that of the data; a number without a unit is in that of the data.

    Parameters
    ----------
    text
        A dose as it was asked for.
    known
        The unit of the data, as `unit_of` writes it; None where it was not kept.

    Raises
    ------
    StateRagError
        Saying what the data have.

    Examples
    --------
    >>> refuse_unit("10 nM", "µM"), refuse_unit("10", ""), refuse_unit("10 nM", None)
    (None, None, None)
    """
    asked = unit_of(text)
    if known is None or not asked or asked == known:
        return
    have = f"doses in {known}" if known else "doses without a unit, in that of their column"
    raise StateRagError(
        f"{text!r} names a unit, and the run's data have {have}. Give the number as it stands there, without a unit."
    )


def hours_of(text: str) -> float | None:
    """Return a time in hours, which a number alone is; None where it is missing.

    Raises
    ------
    StateRagError
        For what is no time at least 0.

    Examples
    --------
    >>> hours_of("24"), hours_of("24h"), hours_of("2 days"), hours_of("90 min")
    (24.0, 24.0, 48.0, 1.5)
    """
    value, unit = _number(text, "time")
    if value is None:
        return None
    if unit and unit.lower() not in HOURS:
        raise StateRagError(f"{text!r} is no time: the unit {unit!r} is unknown; use s, min, h, d or w.")
    return _rounded(value * HOURS[unit.lower()], True) if unit else value


def mode_of(text: str) -> str | None:
    """Return a mode as it is written; None where it is missing."""
    return None if text.strip().lower() in _MISSING else text.strip()


_EXPECTED = "is not understood; expected NAME:MODE:dose=NUMBER:time=HOURS, without the parts that are not known."


def _label_of(name: str, treatment: Treatment) -> str:
    fields = [_escaped(name, "%:|+")]
    if treatment.mode is not None:
        if not treatment.mode.strip():
            raise StateRagError("a mode is empty; leave it out where it is not known.")
        fields.append(_escaped(treatment.mode.strip(), "%:|+="))
    for key, value in ((DOSE, treatment.dose), (TIME, treatment.time)):
        if value is not None:
            fields.append(key + _written(value))
    return COLON.join(fields)


def _escaped(text: str, characters: str) -> str:
    escapes = {one: _ESCAPES[one] for one in characters}
    if not closes(text):
        escapes |= _BRACKETS
    return "".join(escapes.get(one, one) for one in text)


def _plain(text: str) -> str:
    for plain, escaped in reversed({**_ESCAPES, **_BRACKETS}.items()):
        text = text.replace(escaped, plain)
    return text


def _written(value: float) -> str:
    """Return the shortest text that is read as the same number, without a `+`."""
    if not math.isfinite(value) or value < 0:
        raise StateRagError(f"a dose or time is {value}; expected a number at least 0.")
    return repr(float(value)).removesuffix(".0").replace("e+", "e")


def _dose(text: str) -> tuple[float | None, str]:
    """Return the number and unit of a dose, also in a list of (drug, dose, unit)."""
    listed = dose_in(text)
    return _number(text if listed is None else f"{listed[0]} {listed[1]}", "dose")


def _number(text: str, what: str) -> tuple[float | None, str]:
    if text.strip().lower() in _MISSING:
        return None, ""
    found = _NUMBER.fullmatch(text)
    value = float(found[1]) if found else -1.0
    if not found or value < 0 or not math.isfinite(value):
        raise StateRagError(f"{text!r} is no {what}: expected a number at least 0, with or without a unit.")
    return value + 0.0, found[2] or ""


def _rounded(value: float, scaled: bool) -> float:
    """Return a number without the rounding that a change of unit leaves: 0.3, not 0.30000000000000004."""
    return float(f"{value:.12g}") if scaled else value
