"""Labels of drugs."""

import ast


def drug_of(label: str) -> str | None:
    """Return the drug of a label that is a list of (drug, dose, unit), as Tahoe-100M has them; None for other labels.

    Examples
    --------
    >>> drug_of("[('Afatinib', 0.5, 'uM')]"), drug_of("AARS")
    ('Afatinib', None)
    """
    if not label.startswith("[("):
        return None
    try:
        (first, *_), *_ = ast.literal_eval(label)
    except (ValueError, SyntaxError, TypeError):
        return None
    return first if isinstance(first, str) else None


def dose_in(label: str) -> tuple[float, str] | None:
    """Return dose and unit of such a label; None for other labels.

    Examples
    --------
    >>> dose_in("[('Afatinib', 0.5, 'uM')]"), dose_in("AARS")
    ((0.5, 'uM'), None)
    """
    if drug_of(label) is None:
        return None
    first = ast.literal_eval(label)[0]
    if len(first) < 3 or not isinstance(first[1], int | float) or not isinstance(first[2], str):
        return None
    return float(first[1]), first[2]
