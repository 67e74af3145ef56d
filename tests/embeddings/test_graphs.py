import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import expm

from state_rag.embeddings import graphs
from state_rag.embeddings.graphs import TIME, graph_of, parse_edges, read_graph
from state_rag.errors import StateRagError

NODES = st.sampled_from([f"N{number}" for number in range(8)])
EDGES = st.lists(st.tuples(NODES, NODES, st.integers(1, 999)), min_size=1, max_size=20)


def plain_kernel(edges, names):
    """exp(-t L) by its definition, dense; the heavier of two edges counts."""
    weight = np.zeros((len(names), len(names)))
    for a, b, size in edges:
        if a != b:
            i, j = names.index(a), names.index(b)
            weight[i, j] = weight[j, i] = max(weight[i, j], size)
    degree = weight.sum(1)
    scale = np.array([d**-0.5 if d else 0.0 for d in degree])
    return expm(-TIME * (np.eye(len(names)) - scale[:, None] * weight * scale[None]))


@settings(max_examples=40, deadline=None)
@given(EDGES)
def test_products_of_the_vectors_are_the_diffusion_kernel_of_the_whole_graph(edges):
    if all(a == b for a, b, _ in edges):
        return
    graph = graph_of(*(list(side) for side in zip(*edges, strict=True)), "file")
    some = graph.names[::2]
    known, vectors = graph.embedded([*some, "unheard of"])
    assert known == list(some)
    expected = plain_kernel(edges, list(graph.names))[::2, ::2]
    np.testing.assert_allclose(vectors @ vectors.T, expected, atol=1e-5)


def test_the_kernel_is_the_same_in_blocks(monkeypatch):
    graph = graph_of(list("ABCDE"), list("BCDEA"), [1.0] * 5, "file")
    whole = graph.embedded("ABCDE")[1]
    monkeypatch.setattr(graphs, "BLOCK", 2)
    blocks = graph.embedded("ABCDE")[1]
    np.testing.assert_allclose(blocks @ blocks.T, whole @ whole.T, atol=1e-6)


@settings(max_examples=50, deadline=None)
@given(EDGES, st.sampled_from(["\t", ",", " "]), st.booleans())
def test_edge_lists_of_any_form_are_read_back(edges, separator, header):
    lines = [separator.join([a, b, str(size)]) for a, b, size in edges]
    if header:
        lines.insert(0, separator.join(["from", "to", "weight"]))
    expected = [list(side) for side in zip(*edges, strict=True)]
    assert list(parse_edges(["# comment", *lines, ""], "file")) == expected


def test_edges_without_weights_weigh_one_and_keep_their_first_line():
    assert parse_edges(["A\tB", "B\tC"], "file") == (["A", "B"], ["B", "C"], [1.0, 1.0])
    kinds = parse_edges(["A,B,binds", "B,C,cuts"], "file")
    assert kinds == (["A", "B"], ["B", "C"], [1.0, 1.0])


def test_the_weight_is_the_column_that_a_header_names():
    lines = ["protein1 protein2 fusion combined_score", "A B 0 700", "B C 10 900"]
    assert parse_edges(lines, "file")[2] == [700.0, 900.0]


def test_sif_files_have_the_kind_between_the_names(tmp_path):
    (tmp_path / "a.sif").write_text("A pp B C\nC pp D\n")
    graph = read_graph(tmp_path / "a.sif")
    assert graph.names == ("A", "C", "B", "D")
    assert graph.facts == "4 nodes, 3 edges of one weight"


def test_proteins_of_string_are_called_by_the_names_that_lie_beside(tmp_path):
    links = tmp_path / "9606.protein.links.v12.0.txt"
    links.write_text("protein1 protein2 combined_score\n9606.ENSP1 9606.ENSP2 900\n9606.ENSP2 9606.ENSP3 400\n")
    with pytest.raises(StateRagError, match=r"STRING's numbers. Put the file 9606\.protein\.info\.v\*\.txt\.gz"):
        read_graph(links)
    (tmp_path / "9606.protein.info.v12.0.txt").write_text(
        "#string_protein_id\tpreferred_name\n9606.ENSP1\tAARS1\tx\n9606.ENSP2\tHARS1\ty\n"
    )
    assert read_graph(links).names == ("AARS1", "HARS1", "9606.ENSP3")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("alone", "line 2 has no two names"),
        ("A\t\t3", "line 2 has no two names"),
        ("A\tC\t-1", "line 2 has an edge that weighs -1"),
        ("A\tC\tnan", "line 2 has an edge that weighs nan"),
        ("A\tC\tinf", "line 2 has an edge that weighs inf"),
        ("A\tC\thigh", "line 2 has the weight 'high', which is no number"),
        ("A\tC\t0,5", "line 2 has the weight '0,5', which is no number.*a point before decimals"),
        ("A\tC\tNA", "line 2 has the weight 'NA', which is no number"),
        ("A\tC\t", "line 2 has no weight"),
        ("A\tC", "line 2 has no weight"),
        ("A;C;0.5", "line 2 has no two names of an edge, parted by a tab"),
    ],
)
def test_lines_that_are_no_edge_are_refused(tmp_path, line, said):
    (tmp_path / "a.tsv").write_text(f"A\tB\t1\n{line}\n")
    with pytest.raises(StateRagError, match=rf"a\.tsv: {said}"):
        read_graph(tmp_path / "a.tsv")


@pytest.mark.parametrize("text", ["0,5", "NA", "1.2.3", "?", "-"])
def test_a_column_without_any_number_is_no_kind_where_it_is_no_word(text):
    lines = [f"A\tB\t{text}", f"B\tC\t{text}"]
    with pytest.raises(StateRagError, match=r"file: line 1 has the weight .* no number"):
        parse_edges(lines, "file")


def test_a_header_that_names_a_weight_wants_numbers_below():
    with pytest.raises(StateRagError, match="line 2 has the weight 'binds', which is no number"):
        parse_edges(["a\tb\tweight", "A\tB\tbinds", "B\tC\tcuts"], "file")
    with pytest.raises(StateRagError, match="line 3 has the weight 'x'"):
        parse_edges(["source,target,confidence", "A,B,0.5", "A,C,x"], "file")


@pytest.mark.parametrize("header", ["source,target", "gene1,gene2", "TF,target", "protein_a,protein_b,evidence"])
def test_a_header_of_two_ends_is_no_edge(header):
    kind = ",binds" * (header.count(",") - 1)
    assert parse_edges([header, f"A,B{kind}", f"B,C{kind}"], "file") == (["A", "B"], ["B", "C"], [1.0, 1.0])


def test_an_end_may_be_called_like_a_column():
    assert parse_edges(["TF,AARS1", "TO,B"], "file")[0] == ["TF", "TO"]


def test_loops_and_nodes_without_an_edge_are_told_and_unknown():
    graph = graph_of(["A", "C", "D", "B"], ["B", "C", "A", "A"], [1.0, 1.0, 0.0, 2.0], "file")
    assert graph.names == ("A", "B")
    assert graph.edges[0, 1] == 2.0
    assert graph.facts == "2 nodes, 1 edges, 2 loops or edges without weight left out"


def test_a_graph_of_loops_is_refused():
    with pytest.raises(StateRagError, match="no edge between two different names"):
        graph_of(["A", "B"], ["A", "C"], [1.0, 0.0], "file")
