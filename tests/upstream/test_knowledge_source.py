import numpy as np
import pytest
import torch

from state_rag.checkpoint import pack
from state_rag.embeddings.table import Embeddings
from state_rag.errors import StateRagError
from state_rag.settings import RagSettings
from state_rag.upstream.knowledge_source import (
    about_sources,
    knowledge_of,
    load_embeddings,
    load_sources,
    refuse_or_report,
    refuse_unknown,
    save_missing,
)


def table(*names, width=3):
    vectors = np.array([[hash_of(name) + column for column in range(width)] for name in names], np.float32)
    return Embeddings(names, vectors, "memory", {})


def hash_of(name):
    return sum(map(ord, name)) / 100


@pytest.fixture
def sets(tmp_path):
    path = tmp_path / "sets.gmt"
    path.write_text("one\t\tAARS\tKARS\tTP53\ntwo\t\tTP53\tMYC\tMAX\nthree\t\tKARS\tMAX\n")
    return path


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "some.csv"
    path.write_text("gene,a,b\nWARS,1,0\nAARS,0,1\nKARS,1,1\n")
    return path


def test_only_the_perturbations_of_the_data_are_read(file):
    assert set(load_embeddings(str(file), ["AARS", "KARS", "TP53"], 8).names) == {"AARS", "KARS"}


def test_a_checkpoint_holds_the_vectors_of_the_data_whatever_the_size_of_the_table(tmp_path):
    rows = np.random.default_rng(0).normal(size=(5000, 8)).astype(np.float32)
    np.save(tmp_path / "base.npy", rows)
    (tmp_path / "base.names.txt").write_text("".join(f"P{row}\n" for row in range(5000)))
    settings = RagSettings(use_genept=True, genept_path=str(tmp_path / "base.npy"))
    knowledge = knowledge_of({"text": load_sources(settings, ["P4321", "P7", "X"])["text"].table})
    saved = pack(knowledge, settings)["knowledge"]
    assert (saved["names"], saved["n_candidates"]) == (["P4321", "P7"], 2)
    assert saved["blocks"]["text"].untyped_storage().nbytes() == 2 * 8 * 4  # no view of the table
    np.testing.assert_array_equal(saved["blocks"]["text"].numpy(), rows[[4321, 7]])


def test_a_combination_that_the_file_lacks_is_the_mean_of_its_members(file):
    found = load_embeddings(str(file), ["KARS+AARS", "AARS+TP53", "WARS"], 8)
    assert set(found.names) == {"KARS+AARS", "WARS"}
    assert found.row("KARS+AARS").tolist() == [0.5, 1.0]


def test_a_file_that_knows_none_of_the_perturbations_is_refused(file):
    with pytest.raises(StateRagError, match=r"some\.csv has an embedding for none of the 2 perturbations"):
        load_embeddings(str(file), ["ENSG01", "ENSG02"], 8)


def test_the_environment_names_the_file_where_no_path_is_given(file, monkeypatch):
    monkeypatch.setenv("STATE_RAG_GENEPT", str(file))
    assert load_embeddings(None, ["WARS"], 8).names == ("WARS",)


def test_a_base_is_in_alphabetical_order():
    knowledge = knowledge_of({"text": table("WARS", "AARS", "KARS")})
    assert list(knowledge.names) == ["AARS", "KARS", "WARS"]
    assert torch.equal(knowledge.block("text")[0], torch.from_numpy(table("AARS").vectors[0]))
    assert knowledge.n_candidates == 3


def test_a_single_source_is_the_table_that_genept_path_gives(file):
    names = ["AARS", "KARS", "TP53"]
    given = (RagSettings(genept_path=str(file)), RagSettings(rag_sources=(f"genept={file}",)))
    one, other = (load_sources(settings, names) for settings in given)
    assert list(one) == ["text"]
    assert list(other) == ["genept"]
    first, second = knowledge_of({"text": one["text"].table}), knowledge_of({"text": other["genept"].table})
    assert first.names == second.names
    assert torch.equal(first.block(), second.block())


def test_a_perturbation_is_known_that_any_source_knows_and_rows_of_several_have_unit_length(file, sets):
    settings = RagSettings(genept_path=str(file), rag_sources=(f"sets={sets}",))
    found = load_sources(settings, ["WARS", "AARS", "KARS", "MYC", "KARS+MAX", "unheard of"])
    knowledge = knowledge_of({source: read.table for source, read in found.items()})
    assert knowledge.names == ("AARS", "KARS", "KARS+MAX", "MYC", "WARS")
    assert knowledge.block_names == ("text", "sets")
    known = {name: knowledge.known(name).tolist() for name in knowledge.block_names}
    by_name = {name: [known[source][row] for source in known] for row, name in enumerate(knowledge.names)}
    assert by_name["WARS"] == [True, False]
    assert by_name["MYC"] == [False, True]
    assert by_name["AARS"] == [True, True]
    lengths = torch.linalg.vector_norm(knowledge.block("text"), dim=1)
    assert torch.allclose(lengths[lengths > 0], torch.ones(1))
    about = about_sources(found)["sets"]
    assert about["kind"] == "gene sets"
    assert about["file"] == str(sets)
    assert (about["known"], about["asked"]) == (4, 6)


def test_missing_embeddings_are_reported_or_refused_as_asked(caplog):
    with caplog.at_level("WARNING", logger="state_rag"):
        refuse_or_report([], RagSettings(genept_missing="error"), 5)
        assert not caplog.text
        refuse_or_report(["A", "B"], RagSettings(), 5)
    assert "2 of 5 perturbations have no embedding" in caplog.text
    assert "A, B" in caplog.text
    with pytest.raises(StateRagError, match=r"2 of 5.*A, B.*genept_missing=drop"):
        refuse_or_report(["A", "B"], RagSettings(genept_missing="error"), 5)


def test_names_of_left_out_perturbations_are_saved_one_a_line(tmp_path):
    save_missing(tmp_path, ["B", "A"])
    assert (tmp_path / "perturbations_without_embedding.txt").read_text() == "B\nA\n"


def test_nothing_is_saved_where_nothing_is_left_out(tmp_path):
    save_missing(tmp_path, [])
    assert not list(tmp_path.iterdir())


def test_an_unknown_name_is_refused_with_close_spellings():
    refuse_unknown([], ["AARS"], "x")
    with pytest.raises(
        StateRagError, match=r"2 perturbations of the file.*AARS1, QQQ; close spellings: AARS1 -> AARS.*\. Correct"
    ):
        refuse_unknown(["AARS1", "QQQ"], ["AARS", "KARS"], "the file")


def test_of_many_unknown_names_ten_are_listed():
    with pytest.raises(StateRagError, match=r"15 perturbations of .*XX9YY, \.\.\. \(15 in all\)\. Correct"):
        refuse_unknown([f"XX{row}YY" for row in range(15)], ["AARS"], "the file")
