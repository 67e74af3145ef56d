"""Effects: from cells to conditions. A condition is one perturbation in one cell line (context).

`conditions` groups the cells of a pair of files, `line_profiles` are the mean profiles of one cell line,
`training_effects` streams the mean effects of what a split trains on.
"""

from state_rag.public import lazily

__getattr__, __dir__, __all__ = lazily(__name__)
