"""Which labels are named like a control."""

import re

_CONTROL = re.compile(
    "non-?target(ing)?(control)?|ntc?|control|ctrl|ctl|dmso(tf)?|vehicle(control)?|untreated|unperturbed|"
    "neg(ative)?(control|ctrl)|safetargeting|scrambled?"
)
_PERHAPS_CONTROL = re.compile(
    "mock|wt|wildtype|pbs|none|neg|intergenic|aavs|rosa|safe(harbou?r)?|luc(iferase)?|e?gfp|water|blank"
)
_LOCI = ("aavs", "rosa")  # AAVS1, ROSA26
_CONTROL_STARTS = ("nontarget", "dmso", "negctrl", "negcontrol", "negativecontrol", "control", "ctrl", "vehicle")
SURELY = 3
"""What `control_likeness` says of the usual names of a control."""


def control_likeness(label: str) -> int:
    """Return 3 for the usual names of a control in any spelling, 2 for numbered or longer ones, 1 for perhaps, 0.

    Examples
    --------
    >>> [control_likeness(label) for label in ("Non-Targeting", "NT-17", "DMSO_TF 1 uM", "AAVS1", "WTAP", "ctrl+AARS")]
    [3, 2, 2, 1, 0, 0]
    """
    parts = label.split("+")
    if len(parts) > 1:
        return min(control_likeness(part) for part in parts)
    letters = re.sub(r"[^a-z]+", "", label.lower())
    if _CONTROL.fullmatch(letters):
        return 2 if re.search(r"\d", label) else 3
    if letters.startswith(_CONTROL_STARTS):
        return 2
    numbered = bool(re.search(r"\d", label)) and letters not in _LOCI
    return int(bool(_PERHAPS_CONTROL.fullmatch(letters)) and not numbered)
