"""Perturbations that a run was not trained with, by the files of its sources."""

import numpy as np
import pytest
import torch

from state_rag.errors import StateRagError
from state_rag.retrieval.knowledge import Knowledge
from state_rag.settings import RagSettings
from state_rag.upstream.further_sources import files_of, given_files, tables_of, with_further
from state_rag.upstream.knowledge_source import (
    about_sources,
    coordinates_of,
    knowledge_of,
    load_sources,
    refuse_unknown,
)

OWN = ["A", "B", "C", "D", "E"]


def write_table(path, names, seed=0, width=4):
    rows = np.random.default_rng(seed).normal(size=(26, width)).round(3)
    text = "".join(f"{name},{','.join(map(str, rows[ord(name[0]) - 65]))}\n" for name in names)
    path.write_text(f"gene{''.join(f',{column}' for column in range(width))}\n{text}")
    return path


@pytest.fixture
def table(tmp_path):
    return write_table(tmp_path / "table.csv", "ABCDEFG")


@pytest.fixture
def sets(tmp_path):
    path = tmp_path / "sets.gmt"
    path.write_text("one\t\tA\tB\tH\ntwo\t\tC\tH\tG\tD\nthree\t\tB\tD\nfour\t\tE\tA\n")
    return path


@pytest.fixture
def one(table):
    settings = RagSettings(use_genept=True, genept_path=str(table))
    return settings, knowledge_of({"text": load_sources(settings, OWN)["text"].table})


@pytest.fixture
def two(table, sets):
    settings = RagSettings(use_genept=True, rag_sources=(f"table={table}", f"sets={sets}"))
    found = load_sources(settings, OWN)
    return settings, knowledge_of({name: read.table for name, read in found.items()}), about_sources(found)


def test_a_new_perturbation_may_ask_but_is_no_candidate(one):
    settings, knowledge = one
    more = with_further(knowledge, {"F", "nobody"}, settings)
    assert more.names == (*OWN, "F")
    assert more.n_candidates == len(OWN)
    assert torch.equal(more.block()[:5], knowledge.block())
    expected = np.random.default_rng(0).normal(size=(26, 4)).round(3)[5]
    assert np.allclose(more.block()[5].numpy(), expected, atol=1e-6)


def test_what_no_file_knows_changes_nothing(one):
    settings, knowledge = one
    assert with_further(knowledge, set(), settings) is knowledge
    assert with_further(knowledge, {"nobody"}, settings) is knowledge


def test_a_perturbation_that_any_source_knows_has_the_cosines_that_training_with_it_would_have_given(two):
    settings, knowledge, about = two
    more = with_further(knowledge, {"F", "G", "H"}, settings, about)
    assert more.names == (*OWN, "F", "G", "H")
    assert more.known("table").tolist()[5:] == [True, True, False]
    assert more.known("sets").tolist()[5:] == [False, True, True]
    whole = load_sources(settings, [*OWN, "F", "G", "H"])
    for source in ("table", "sets"):
        expected = knowledge_of({name: read.table for name, read in whole.items()})
        rows = [expected.names.index(name) for name in more.names]
        wanted = expected.block(source)[rows]
        assert torch.allclose(more.block(source)[5:] @ more.block(source)[:5].T, wanted[5:] @ wanted[:5].T, atol=1e-4)


def test_a_file_that_moved_is_named_by_its_source(two, tmp_path, table):
    settings, knowledge, about = two
    moved = table.rename(tmp_path / "moved.csv")
    assert "table" not in files_of(settings, about)
    assert "F" not in with_further(knowledge, {"F", "H"}, settings, about)
    given = given_files(None, [f"table={moved}"], settings)
    assert "F" in with_further(knowledge, {"F", "H"}, settings, about, given)


def test_another_table_than_that_of_training_is_refused_where_it_was_given_and_left_alone_where_it_was_found(
    one, tmp_path, caplog
):
    settings, knowledge = one
    other = write_table(tmp_path / "other.csv", "ABCDEFG", seed=1)
    with pytest.raises(StateRagError, match=r"other\.csv says something else of the run's own perturbations"):
        with_further(knowledge, {"F"}, settings, given={"text": other})
    wide = write_table(tmp_path / "wide.csv", "FG", width=5)
    with pytest.raises(StateRagError, match="5 wide, but the run was trained with embeddings 4 wide"):
        with_further(knowledge, {"F"}, settings, given={"text": wide})
    write_table(tmp_path / "table.csv", "ABCDEFG", seed=1)
    with caplog.at_level("WARNING", logger="state_rag"):
        assert with_further(knowledge, {"F"}, settings) is knowledge
    assert "says nothing of what the run was not trained with" in caplog.text


def test_a_table_of_new_perturbations_alone_is_taken_as_given(one, tmp_path):
    settings, knowledge = one
    assert "G" in with_further(knowledge, {"G"}, settings, given={"text": write_table(tmp_path / "new.csv", "G")})


def test_a_source_that_the_run_lacks_or_an_unclear_file_is_refused(one, two, table):
    with pytest.raises(StateRagError, match=r"--source go=.*no such source; it has text"):
        given_files(None, [f"go={table}"], one[0])
    with pytest.raises(StateRagError, match="--source table=no.csv: the file does not exist"):
        given_files(None, ["table=no.csv"], two[0])
    with pytest.raises(StateRagError, match="--source NAME="):
        given_files(str(table), (), two[0])
    assert given_files(str(table), (), one[0]) == {"text": table}


def test_a_combination_of_a_new_perturbation_is_the_mean_of_its_members(one):
    settings, knowledge = one
    more = with_further(knowledge, {"A+F"}, settings)
    rows = np.random.default_rng(0).normal(size=(26, 4)).round(3)
    assert np.allclose(more.rows(more.index_of(["A+F"]))[0].numpy(), (rows[0] + rows[5]) / 2, atol=1e-6)


def test_an_unknown_name_is_refused_with_the_file_that_the_run_was_trained_with(one, two, table, sets):
    with pytest.raises(StateRagError, match=rf"has those of its own perturbations alone\. .*text = {table}\.$"):
        refuse_unknown(["X"], OWN, "this request", tables_of(one[0], None))
    settings, _, about = two
    sets.unlink()
    assert tables_of(settings, about).startswith(f"The run read them from table = {table}; sets = {sets}, not there (")
    table.unlink()
    assert f"text = {table}, not there (looked from " in tables_of(one[0], None)


def test_an_unseen_dose_asks_by_its_name_and_its_place_among_those_of_training(table, caplog):
    settings = RagSettings(use_genept=True, genept_path=str(table))
    labels = [f"{name}:drug:dose={dose}" for name in "ABC" for dose in (0.1, 1, 10)]
    found = load_sources(settings, labels)
    coordinates = coordinates_of(found, labels)
    knowledge = knowledge_of({"text": found["text"].table}, coordinates)
    assert knowledge.width() == 4 + 1
    asked = {"B:drug:dose=3", "F:drug:dose=1", "B:KO:dose=1", "nobody:drug:dose=1"}
    more = with_further(Knowledge.from_state(knowledge.to_state()), asked, settings)
    assert more.names[9:] == ("B:drug:dose=3", "F:drug:dose=1")
    assert "Training has no cells of the mode of B:KO:dose=1" in caplog.text
    row = {name: more.rows(more.index_of([name]))[0] for name in more.names}
    assert torch.equal(row["B:drug:dose=3"][:4], row["B:drug:dose=1"][:4])
    assert row["B:drug:dose=1"][4] < row["B:drug:dose=3"][4] < row["B:drug:dose=10"][4]


def test_several_sources_know_a_label_by_its_name_each_and_one_that_does_not_says_nothing(table, sets):
    settings = RagSettings(use_genept=True, rag_sources=(f"table={table}", f"sets={sets}"))
    labels = [f"{name}:drug:dose={dose}" for name in "ABCD" for dose in (0.1, 1, 10)]
    found = load_sources(settings, labels)
    assert found["sets"].by_name == tuple(labels)
    coordinates = coordinates_of(found, labels)
    knowledge = knowledge_of({name: read.table for name, read in found.items()}, coordinates)
    plain = knowledge_of({name: read.table for name, read in load_sources(settings, list("ABCD")).items()})
    for name, label in (("A", "A:drug:dose=0.1"), ("D", "D:drug:dose=10")):
        for block in ("table", "sets"):
            rows = [
                k.block(block) @ k.block(block)[k.index_of([one])[0]] for k, one in ((plain, name), (knowledge, label))
            ]
            per_name = {
                one.partition(":")[0]: value for one, value in zip(knowledge.names, rows[1].tolist(), strict=True)
            }
            np.testing.assert_allclose([per_name[one] for one in plain.names], rows[0], atol=1e-5)
    asked = {"B:drug:dose=3", "H:drug:dose=1", "F:drug:dose=1", "B:KO:dose=1", "nobody:drug:dose=1"}
    more = with_further(Knowledge.from_state(knowledge.to_state()), asked, settings, about_sources(found))
    assert more.names[12:] == ("B:drug:dose=3", "F:drug:dose=1", "H:drug:dose=1")
    known = {block: more.known(block)[12:].tolist() for block in more.block_names}
    assert known == {"table": [True, True, False], "sets": [True, False, True]}
    row = {name: more.rows(more.index_of([name]))[0] for name in more.names}
    assert torch.allclose(row["B:drug:dose=3"][:-1], row["B:drug:dose=1"][:-1], atol=1e-5)
    assert row["B:drug:dose=1"][-1] < row["B:drug:dose=3"][-1] < row["B:drug:dose=10"][-1]


def test_one_source_of_several_is_its_table_alone_with_doses_too(table):
    labels = [f"{name}:dose={dose}" for name in "ABC" for dose in (0.1, 1)]
    both = []
    for settings in (RagSettings(genept_path=str(table)), RagSettings(rag_sources=(f"table={table}",))):
        found = load_sources(settings, labels)
        both.append(knowledge_of({name: read.table for name, read in found.items()}, coordinates_of(found, labels)))
    assert torch.equal(both[0].block(), both[1].block())
    assert both[0].names == both[1].names


def test_names_alone_have_no_coordinates(table):
    found = load_sources(RagSettings(use_genept=True, genept_path=str(table)), OWN)
    assert coordinates_of(found, OWN) is None
    assert knowledge_of({"text": found["text"].table}).scaling is None


def test_a_combination_in_another_order_is_the_one_that_the_run_knows(table):
    settings = RagSettings(use_genept=True, genept_path=str(table))
    found = load_sources(settings, [*OWN, "A+B"])
    knowledge = knowledge_of({name: read.table for name, read in found.items()})
    more = with_further(knowledge, {"B+A", "ctrl+C", "C+A"}, settings)
    assert more.names == (*sorted([*OWN, "A+B"]), "C+A")  # of the others nothing is new
    assert more.index_of(["B+A", "ctrl+C"]).tolist() == more.index_of(["A+B", "C"]).tolist()
    assert "B+A" in more
    assert more.to_state()["names"] == list(more.names)
