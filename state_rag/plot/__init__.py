"""Pictures of evaluations and of retrieval, as functions that take an `Axes` and return it.

`conditions`, `retrieval`, `evidence_map` and `training` draw one picture each; `figures` lays several out as the report
shows them; `cell_maps` places cells by PCA and UMAP; `style` has the colours.
"""

from state_rag.public import lazily

__getattr__, __dir__, __all__ = lazily(__name__)
