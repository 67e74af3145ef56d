"""Analysis: what retrieval did.

`records` reads which neighbours a prediction took, `overlap` compares them between cell lines (Jaccard) and with what
they truly do, `ablation` says what predictions lose without them; `analyse_run` does it for a run folder.
"""
