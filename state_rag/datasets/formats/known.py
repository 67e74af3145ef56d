"""Formats of the field: which obs columns and labels play which part in files as others publish them.

A format is known by columns that only it has, or by columns and the labels of controls. What a user names counts before
it. Two formats that fit and mean different columns are refused, not chosen between.

==============  ==========================================  ====================  ==================
format          known by                                    perturbation          control
==============  ==========================================  ====================  ==================
`Tahoe-100M`    `drugname_drugconc`                         that column           drug `DMSO_TF`
`sci-Plex`      `product_name`, `cell_type`, `dose`         `product_name`        `Vehicle`
`scPerturb`     `perturbation`, `nperts`                    `perturbation`        `control`
`pertpy`        `perturbation_name`, `gemgroup`             `perturbation_name`   `control`
`GEARS`         `condition`, `cell_type`, labels `A+ctrl`   `condition`           `ctrl`
`perturbench`   `condition`, `cell_type`, and the control   `condition`           `control`
==============  ==========================================  ====================  ==================

scPerturb (Peidli et al. 2024, https://doi.org/10.1038/s41592-023-02144-y), from which pertpy loads most data sets;
`pertpy` is its Norman 2019. GEARS: Roohani et al. 2023, https://doi.org/10.1038/s41587-023-01905-6. sci-Plex: Srivatsan
et al. 2020, https://doi.org/10.1126/science.aax6234. Tahoe-100M: https://doi.org/10.1101/2025.02.20.639398.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from state_rag.errors import StateRagError
from state_rag.names import drug_of, listing
from state_rag.names.combinations import plain_of

USUAL = ("gene", "cell_line", "non-targeting")
"""Columns of perturbation and cell line, and the control, as Replogle-Nadig and simulated screens have them."""


@dataclass(frozen=True)
class Format:
    """How a kind of published files is laid out.

    Attributes
    ----------
    name
        What it is called.
    has
        Obs columns that all must be there.
    perturbation
        That of the perturbations.
    controls
        Labels of control cells, or the drug in them.
    line, batch
        Columns of cell line and batch, where the usual names would not find them.
    treatment
        Part (`mode`, `dose`, `time`) -> its column, for those that have one.
    told_by_control
        Whether it is known by the control's label only, since others have these columns too.
    with_control
        Whether single perturbations are written `A+ctrl`.
    joined
        What stands between several perturbations; None for `+`.
    """

    name: str
    has: tuple[str, ...]
    perturbation: str
    controls: tuple[str, ...]
    line: str | None = None
    batch: str | None = None
    treatment: Mapping[str, str] = field(default_factory=dict)
    told_by_control: bool = False
    with_control: bool = False
    joined: str | None = None


FORMATS = (
    Format(
        "Tahoe-100M",
        ("drugname_drugconc",),
        "drugname_drugconc",
        ("DMSO_TF",),
        line="cell_name",
        batch="plate",
        treatment={"dose": "drugname_drugconc"},
    ),
    Format(
        "sci-Plex",
        ("product_name", "cell_type", "dose"),
        "product_name",
        ("Vehicle",),
        line="cell_type",
        treatment={"dose": "dose", "time": "time_point"},
    ),
    Format(
        "scPerturb",
        ("perturbation", "nperts"),
        "perturbation",
        ("control",),
        treatment={"dose": "dose_value", "time": "time"},
        joined="_",
    ),
    Format("pertpy", ("perturbation_name", "gemgroup"), "perturbation_name", ("control",), batch="gemgroup"),
    Format(
        "GEARS",
        ("condition", "cell_type"),
        "condition",
        ("ctrl",),
        "cell_type",
        told_by_control=True,
        with_control=True,
    ),
    Format(
        "perturbench",
        ("condition", "cell_type"),
        "condition",
        ("control",),
        "cell_type",
        treatment={"mode": "perturbation_type"},
        told_by_control=True,
    ),
)


@dataclass(frozen=True)
class Recognised:
    """The format of a file, and what it says of it.

    Attributes
    ----------
    format
        Which.
    control
        The label of its controls; None where there is none.
    """

    format: Format
    control: str | None

    @property
    def sure(self) -> str:
        """`sure`, or `likely` where the control that belongs to the format is missing."""
        return "sure" if self.control is not None else "likely"

    @property
    def words(self) -> str:
        """What was recognised, for readers."""
        said = f"perturbation in {self.format.perturbation!r}"
        told = f"control {self.control!r}" if self.control is not None else f"no control {self.format.controls[0]!r}"
        return f"{self.format.name} ({self.sure}): {said}, {told}"


def matching(columns: Collection[str], labels: Callable[[str], Sequence[str]]) -> list[Recognised]:
    """Return the formats that obs columns and labels fit.

    Where there is a column `gene` with the control `non-targeting`, as Replogle-Nadig has it, these are meant: no other
    format then fits.

    Parameters
    ----------
    columns
        Names of the columns.
    labels
        Returns those of a column.

    Examples
    --------
    >>> obs = {"condition": ["A+ctrl", "A+B", "ctrl"], "cell_type": ["K562"]}
    >>> [found.words for found in matching(obs, obs.__getitem__)]
    ["GEARS (sure): perturbation in 'condition', control 'ctrl'"]
    """
    found: list[Recognised] = []
    if USUAL[0] in columns and USUAL[2] in labels(USUAL[0]):
        return found
    for format_ in FORMATS:
        if not set(format_.has) <= set(columns):
            continue
        names = [str(label) for label in labels(format_.perturbation)]
        controls = [name for name in names if name in format_.controls or drug_of(name) in format_.controls]
        if format_.told_by_control and len(controls) != 1:
            continue
        if format_.with_control and all(plain_of(name) == name for name in names):
            continue
        found.append(Recognised(format_, controls[0] if len(controls) == 1 else None))
    return found


def names_or_usual(
    columns: Collection[str],
    labels: Callable[[str], Sequence[str]],
    perturbation: str | None = None,
    line: str | None = None,
    control: str | None = None,
) -> tuple[str, str, str]:
    """Return columns of perturbation and cell line and the control, with Replogle-Nadig's names for what nobody says.

    Parameters
    ----------
    columns, labels
        As for `matching`.
    perturbation, line, control
        What the user says.

    Raises
    ------
    StateRagError
        If several formats fit and the user does not name the perturbations.

    Examples
    --------
    >>> obs = {"condition": ["A+ctrl", "A+B", "ctrl"], "cell_type": ["K562"]}
    >>> names_or_usual(obs, obs.__getitem__), names_or_usual({}, obs.__getitem__)
    (('condition', 'cell_type', 'ctrl'), ('gene', 'cell_line', 'non-targeting'))
    """
    fits = [one for one in matching(columns, labels) if perturbation in (None, one.format.perturbation)]
    if len({one.format.perturbation for one in fits}) > 1:
        told = listing([f"{one.format.name} (perturbation in {one.format.perturbation!r})" for one in fits])
        raise StateRagError(f"obs could be that of {told}. Name the column of perturbations.")
    if fits:
        format_, found = fits[0].format, fits[0].control
        lines = [one for one in (format_.line, USUAL[1], "celltype") if one in columns]
        perturbation, line, control = format_.perturbation, line or next(iter(lines), None), control or found
    return perturbation or USUAL[0], line or USUAL[1], control or USUAL[2]
