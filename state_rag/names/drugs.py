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
