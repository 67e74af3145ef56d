import gzip
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from state_rag.embeddings.gene_sets import GeneSets, parse_gmt, read_gmt
from state_rag.errors import StateRagError

GENES = st.sampled_from([f"G{number}" for number in range(12)])


def plain_cosine(sets, a, b):
    """The kernel by its definition, in loops."""

    def product(p, q):
        return sum(1 / len(members) for members in sets if p in members and q in members)

    return product(a, b) / (product(a, a) * product(b, b)) ** 0.5


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(GENES, min_size=2, max_size=6, unique=True), min_size=1, max_size=8))
def test_cosines_of_the_vectors_are_those_of_weighted_membership(sets):
    found = GeneSets(tuple(map(tuple, sets)))
    wanted = [f"G{number}" for number in range(15)]
    known, vectors = found.embedded(wanted)
    assert known == [gene for gene in wanted if any(gene in members for members in sets)]
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    expected = [[plain_cosine(sets, a, b) for b in known] for a in known]
    np.testing.assert_allclose(unit @ unit.T, expected, atol=1e-4)


def test_similarity_does_not_hang_on_which_others_are_asked_for():
    sets = GeneSets((("A", "B", "C"), ("B", "C"), ("C", "D", "E", "F")))
    few, many = (sets.embedded(names)[1] for names in (("A", "C"), ("F", "A", "B", "C", "D")))
    assert few[0] @ few[1] == pytest.approx(many[1] @ many[3])


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(st.text("abc def", min_size=1, max_size=5), st.lists(GENES, min_size=1, max_size=20), st.booleans()),
        max_size=6,
    )
)
def test_a_file_of_any_sets_is_read_back(drawn):
    lines = []
    for name, members, weighted in drawn:
        lines.append("\t".join([f"s{name}", "", *(f"{gene},1.0" if weighted else gene for gene in members)]))
        lines.append("")
    found = parse_gmt(lines, "file")
    expected = [tuple(dict.fromkeys(members)) for _, members, _ in drawn]
    assert found.sets == tuple(members for members in expected if len(members) > 1)
    assert found.left_out == sum(len(members) == 1 for members in expected)


def test_sets_of_one_gene_or_of_very_many_do_not_count(tmp_path):
    sizes = (1, 2, 300, 301)
    lines = ["\t".join([f"s{size}", "", *(f"G{n}" for n in range(size))]) for size in sizes]
    (tmp_path / "a.gmt.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    found = read_gmt(tmp_path / "a.gmt.gz")
    assert [len(members) for members in found.sets] == [2, 300]
    assert found.facts == "2 sets of 2 to 300 genes, 2 others left out"
    (tmp_path / "b.gmt").write_text(lines[0])
    with pytest.raises(StateRagError, match=r"b\.gmt: none of its 1 sets has 2 to 300 genes"):
        read_gmt(tmp_path / "b.gmt")


def test_other_files_are_refused_with_the_line(tmp_path):
    (tmp_path / "a.gmt").write_text("set\t\tA\tB\nname,description\n")
    with pytest.raises(StateRagError, match=r"a\.gmt: line 2 is none of a GMT file.*'name,description'"):
        read_gmt(tmp_path / "a.gmt")


def test_genes_without_a_set_and_no_genes_at_all():
    sets = GeneSets((("A", "B"),))
    assert sets.embedded([])[0] == []
    assert sets.embedded(["X"])[1].shape[0] == 0
    assert all(a != b for a, b in pairwise(sets.names))
