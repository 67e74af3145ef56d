"""Data in the shape that upstream reads: simulated screens, split files, preparation of h5ad files."""

from state_rag.public import lazily

__getattr__, __dir__, __all__ = lazily(__name__)
