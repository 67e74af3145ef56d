import pytest
from hypothesis import given
from hypothesis import strategies as st

from state_rag.analysis.records import parse_retrieved, read_retrieval
from state_rag.errors import StateRagError

HEAD = "cell_type,pert_name,retrieved_perturbations,selected_perturbations,n_selected,n_retrieved,degs,n_degs\n"


def written(path, *rows):
    path.write_text(HEAD + "".join(f"{line},{name},{found},none,0,0,,0\n" for line, name, found in rows))
    return path


def test_weights_are_averaged_over_the_cells_of_a_condition(tmp_path):
    path = written(
        tmp_path / "r.csv",
        ("k562", "P", "A(w=1.00)|B(w=0.00)"),
        ("k562", "P", "A(w=0.50)|B(w=0.40)"),
        ("rpe1", "P", "B(w=0.90)|A(w=0.10)"),
        ("k562", "non-targeting", ""),
    )
    first, second = read_retrieval(path, progress=False)
    assert (first.cell_line, first.perturbation, first.neighbours, first.cells) == ("k562", "P", ("A", "B"), 2)
    assert first.inclusion.tolist() == [0.75, 0.2]
    assert first.selected == {"A"}
    assert second.neighbours == ("B", "A")


def test_neighbours_that_differ_between_cells_are_ordered_by_their_mean_rank(tmp_path):
    path = written(
        tmp_path / "r.csv",
        ("k", "P", "A(w=1.0)|B(w=1.0)|C(w=0.0)"),
        ("k", "P", "B(w=0.0)|A(w=1.0)|D(w=1.0)"),
        ("k", "P", "B(w=0.0)|C(w=1.0)|A(w=1.0)"),
    )
    record = read_retrieval(path, progress=False)[0]
    assert record.neighbours == ("B", "A", "C", "D")
    assert record.inclusion.tolist() == pytest.approx([1 / 3, 1, 0.5, 1])


@given(
    st.lists(
        st.tuples(
            st.text(st.characters(blacklist_characters="|", blacklist_categories=("Cs", "Cc")), min_size=1),
            st.floats(0, 1),
        )
    )
)
def test_what_is_written_as_names_and_weights_is_read_back(parts):
    text = "|".join(f"{name}(w={weight!r})" for name, weight in parts)
    assert parse_retrieved(text) == parts


def test_a_row_of_another_form_is_reported_with_its_line(tmp_path):
    path = written(tmp_path / "r.csv", ("k", "P", "A(w=1.0)"), ("k", "P", "A:1.0"))
    with pytest.raises(StateRagError, match=r"line 3: 'A:1.0' is not of the form"):
        read_retrieval(path, progress=False)


def test_missing_files_columns_and_retrievals_are_user_errors(tmp_path):
    with pytest.raises(StateRagError, match=r"training.rag=true"):
        read_retrieval(tmp_path / "none.csv")
    (tmp_path / "bad.csv").write_text("a,b\n1,2\n")
    with pytest.raises(StateRagError, match="no column 'cell_type'; it has a, b"):
        read_retrieval(tmp_path / "bad.csv")
    with pytest.raises(StateRagError, match="nothing was retrieved"):
        read_retrieval(written(tmp_path / "r.csv", ("k", "P", "")), progress=False)


def test_the_sources_that_proposed_a_neighbour_are_kept_with_it(tmp_path):
    path = tmp_path / "r.csv"
    head = HEAD.replace("\n", ",retrieved_sources\n")
    path.write_text(head + "k,P,A(w=1.00)|B(w=0.00),A,1,2,,0,text|text+go\nk,non-targeting,,none,0,0,,0,\n")
    record = read_retrieval(path, progress=False)[0]
    assert dict(zip(record.neighbours, record.sources, strict=True)) == {"A": "text", "B": "text+go"}
    assert read_retrieval(written(tmp_path / "one.csv", ("k", "P", "A(w=1.00)")), progress=False)[0].sources == ()
