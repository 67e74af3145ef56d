"""How cells respond to perturbations, from similar ones: PT-RAG as a plugin of STATE, and an evidence engine.

Importing this package is cheap on purpose: it loads no torch. `load` opens a trained run; `metrics`, `effects`,
`embeddings`, `plot` and `datasets` are the rooms of the Python API, loaded on first use (`state_rag.public`). See
`state_rag.startup` for how the plugin attaches and `state_rag.model` for the model.
"""

from state_rag.public import lazily

__version__ = "0.1.0"
__getattr__, __dir__, __all__ = lazily(__name__)
