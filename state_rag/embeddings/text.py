"""Embed gene summaries without any model to download: TF-IDF and a truncated SVD.

Latent semantic analysis (Deerwester et al. 1990). Weaker than a language model's embedding, but offline, deterministic
and quick; genes of one complex or pathway share words, so they become neighbours.
"""

import logging
from collections.abc import Mapping

import numpy as np

from state_rag.errors import StateRagError
from state_rag.names import listing

logger = logging.getLogger(__name__)

DEFAULT_WIDTH = 256


def embed_texts(
    texts: Mapping[str, str], width: int = DEFAULT_WIDTH, *, source: str = "texts"
) -> dict[str, np.ndarray]:
    """Return one unit-norm vector for each text.

    Words are weighted by sublinear TF-IDF, English stop words left out, and reduced by a truncated SVD with a fixed
    random state: the same texts give the same vectors. Vocabulary and SVD are fitted on all texts given, so pass a
    whole corpus and select rows afterwards; then a gene's neighbours do not depend on which genes a run needs.

    Parameters
    ----------
    texts
        Name -> text.
    width
        Width D. P texts with V distinct words have at most min(P, V) directions; a larger width is reduced to that,
        with a warning.
    source
        The file, for messages.

    Returns
    -------
    dict
        Name -> float32 ``[D]`` of unit norm. A text without any usable word has a zero vector, for the caller to judge.

    Raises
    ------
    StateRagError
        The width is below 2, a value is no text, or no text holds a usable word.

    Examples
    --------
    >>> vectors = embed_texts({"A": "coatomer beta", "B": "coatomer zeta", "C": "transfer rna ligase"}, width=2)
    >>> bool(vectors["A"] @ vectors["B"] > vectors["A"] @ vectors["C"])
    True
    """
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    if width < 2:
        raise StateRagError(f"the width of text embeddings must be at least 2, found {width}")
    wrong = [f"{name} ({type(text).__name__})" for name, text in texts.items() if not isinstance(text, str)]
    if wrong:
        raise StateRagError(f"{source}: expected a text for each name, found {listing(wrong)}")
    try:
        words = TfidfVectorizer(sublinear_tf=True, stop_words="english", dtype=np.float64).fit_transform(texts.values())
    except ValueError as error:
        raise StateRagError(f"{source}: no text holds a usable word ({len(texts)} texts)") from error
    possible = min(words.shape)
    if width > possible:
        logger.warning(
            "%s: %d texts with %d distinct words allow at most %d dimensions; the embeddings are %d wide, not %d",
            *(source, *words.shape, possible, possible, width),
        )
        width = possible
    reduced = TruncatedSVD(width, n_iter=7, random_state=0).fit_transform(words)
    # A text without words has a zero row, which the SVD returns as rounding noise.
    reduced[np.diff(words.indptr) == 0] = 0.0
    norms = np.linalg.norm(reduced, axis=1, keepdims=True)
    unit = np.divide(reduced, norms, out=np.zeros_like(reduced), where=norms > 1e-9).astype(np.float32)
    return dict(zip(texts, unit, strict=True))
