"""What a name means, and how names are written in messages.

`spelling` lists names, and finds those that are there twice or spelled alike. `drugs` reads labels of drugs with doses,
`combinations` those of several perturbations at once, `controls` those that are named like a control, `treatments`
those that tell a mode, a dose or a time. `symbols` knows which names belong to one gene, `tables` reads that from
files, `matching` finds a gene under another name.
"""

from state_rag.names.drugs import drug_of
from state_rag.names.spelling import listing, repeated, suggest

__all__ = ["drug_of", "listing", "repeated", "suggest"]
