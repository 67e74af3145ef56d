"""Perturbation-aware retrieval (PT-RAG) as a plugin for Arc Institute's STATE.

Importing this package is cheap on purpose: it loads no torch. See `state_rag.startup` for how the plugin
attaches and `state_rag.model` for the model.
"""

__version__ = "0.1.0"
