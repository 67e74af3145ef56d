"""Labels that tell treatments have the embeddings of the names in them."""

import numpy as np

from state_rag.evaluation.baselines.by_name import by_name, known_by_name

VECTORS = {"A": np.array([1.0, 0.0]), "B": np.array([0.0, 1.0]), "A+B": np.array([2.0, 2.0])}


def test_an_embedding_of_the_label_itself_goes_before_that_of_its_name():
    vectors = {**VECTORS, "A:dose=1": np.array([5.0, 5.0])}
    found = by_name(["A:dose=1", "A:dose=2", "B:CRISPRi", "C:dose=1", "A:KO+B:KO"], vectors)
    assert {label: vector.tolist() for label, vector in found.items()} == {
        "A:dose=1": [5.0, 5.0],
        "A:dose=2": [1.0, 0.0],
        "B:CRISPRi": [0.0, 1.0],
        "A:KO+B:KO": [2.0, 2.0],
    }


def test_a_label_that_is_none_is_a_name():
    assert not known_by_name(["chr1:100-200", "A", "B+A"], VECTORS)
    assert known_by_name(["chr1:100-200", "A:time=24h"], VECTORS)
    assert by_name(["chr1:100-200"], {"chr1:100-200": np.ones(1)})["chr1:100-200"].tolist() == [1.0]
