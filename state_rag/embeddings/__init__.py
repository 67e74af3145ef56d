"""Perturbation embeddings: files in, validated tables of names and vectors out.

`find` says which file a run uses, `readers` reads any supported format (GenePT's pickles, torch, NumPy, safetensors,
CSV, parquet, or gene summaries that `text` embeds), `table.Embeddings` is what comes out, `writers` stores it.
"""

from state_rag.public import lazily

__getattr__, __dir__, __all__ = lazily(__name__)
