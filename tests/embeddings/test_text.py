import json
import logging

import numpy as np
import pytest

from state_rag.embeddings.text import embed_texts
from state_rag.errors import StateRagError


@pytest.fixture(scope="module")
def summaries(summaries_path):
    return json.loads(summaries_path.read_text())


@pytest.fixture(scope="module")
def vectors(summaries):
    return embed_texts(summaries, 256)


@pytest.mark.parametrize(
    ("gene", "expected"),
    [("COPB1", "COPZ1"), ("EIF2B2", "EIF2B3"), ("HSPA5", "HSPA9"), ("SEC61A1", "SEC61B"), ("HARS", "AARS")],
)
def test_functional_partners_are_among_the_nearest_one_percent(vectors, gene, expected):
    better = sum(
        vectors[gene] @ other > vectors[gene] @ vectors[expected] for name, other in vectors.items() if name != gene
    )
    assert better < 0.01 * len(vectors)


def test_rows_have_unit_norm_and_the_width_asked_for(vectors):
    stacked = np.stack(list(vectors.values()))
    assert stacked.shape == (1915, 256)
    assert stacked.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(stacked, axis=1), 1, atol=1e-5)


def test_the_same_texts_give_the_same_vectors(summaries):
    first, second = embed_texts(summaries, 32), embed_texts(summaries, 32)
    assert all(np.array_equal(first[name], second[name]) for name in summaries)


def test_cosines_match_plain_tf_idf_at_full_width():
    texts = {"A": "coat beta beta", "B": "coat zeta", "C": "ligase zeta", "D": "coat ligase"}
    vocabulary = sorted({word for text in texts.values() for word in text.split()})
    rows = {}
    for name, text in texts.items():
        words = text.split()
        row = []
        for word in vocabulary:
            documents = sum(word in other.split() for other in texts.values())
            count = words.count(word)
            row.append((1 + np.log(count) if count else 0) * (np.log((1 + len(texts)) / (1 + documents)) + 1))
        rows[name] = np.array(row) / np.linalg.norm(row)
    vectors = embed_texts(texts, width=len(vocabulary))
    for one in texts:
        for other in texts:
            assert vectors[one] @ vectors[other] == pytest.approx(rows[one] @ rows[other], abs=1e-5)


def test_a_width_beyond_the_corpus_is_reduced_with_a_warning(caplog):
    with caplog.at_level(logging.WARNING):
        vectors = embed_texts({"A": "coatomer beta", "B": "coatomer zeta", "C": "ligase"}, 256, source="a.json")
    assert len(vectors["A"]) == 3
    assert (
        "a.json: 3 texts with 4 distinct words allow at most 3 dimensions; the embeddings are 3 wide, not 256"
        in caplog.text
    )


def test_a_text_without_words_has_a_zero_vector():
    vectors = embed_texts({"A": "coatomer beta", "B": "", "C": "the of", "D": "coatomer zeta"}, 2)
    assert not vectors["B"].any()
    assert not vectors["C"].any()


def test_texts_without_any_word_are_refused():
    with pytest.raises(StateRagError, match=r"x: no text holds a usable word \(2 texts\)"):
        embed_texts({"A": "", "B": "the"}, 8, source="x")


def test_a_value_that_is_no_text_is_named():
    with pytest.raises(StateRagError, match=r"x: expected a text for each name, found B \(int\)"):
        embed_texts({"A": "word", "B": 3}, 8, source="x")


@pytest.mark.parametrize("width", [1, 0, -3])
def test_a_width_below_two_is_refused(width):
    with pytest.raises(StateRagError, match=f"must be at least 2, found {width}"):
        embed_texts({"A": "word"}, width)
