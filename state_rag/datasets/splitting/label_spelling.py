"""Labels that mean the same, as far as their spelling tells, and that count as different ones all the same."""

import re
from collections.abc import Iterable

from state_rag.names.combinations import parts_of
from state_rag.names.controls import control_likeness
from state_rag.names.gene_ids import unversioned

_BETWEEN = re.compile(r"[\s_-]+")


def alike_labels(labels: Iterable[str]) -> list[tuple[str, ...]]:
    """Return groups of labels that differ by case, blanks, `_` for `-` or an Ensembl id's version alone.

    Parameters
    ----------
    labels
        Of perturbations, or of cell lines.

    Returns
    -------
    list of tuple of str
        Two labels or more in each, sorted.

    Examples
    --------
    >>> alike_labels(["TP53", "tp53", "MYC ", "MYC", "A+B", "B+A", "HLA-A", "HLA-B"])
    [('A+B', 'B+A'), ('MYC', 'MYC '), ('TP53', 'tp53')]
    """
    groups: dict[tuple[str, ...], set[str]] = {}
    for label in labels:
        members = tuple(sorted(_BETWEEN.sub("-", unversioned(part.strip())).casefold() for part in parts_of(label)))
        groups.setdefault(members, set()).add(label)
    return sorted(tuple(sorted(group)) for group in groups.values() if len(group) > 1)


def further_controls(labels: Iterable[str], control: str) -> list[str]:
    """Return labels that are named like a control and are not the control.

    Examples
    --------
    >>> further_controls(["NTC", "AAVS1", "TP53", "non-targeting-7"], "NTC")
    ['AAVS1', 'non-targeting-7']
    """
    return sorted(label for label in labels if label != control and control_likeness(label.strip()))


def shown(labels: Iterable[str]) -> str:
    """Return labels that are spelled alike in words; quotes show blanks at their ends.

    Examples
    --------
    >>> shown(["TP53", "tp53"]), shown(["MYC", "MYC "])
    ('TP53 / tp53', "MYC / 'MYC '")
    """
    return " / ".join(label if label == label.strip() else repr(label) for label in labels)
