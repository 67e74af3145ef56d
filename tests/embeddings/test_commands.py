import argparse
import json
import logging

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from state_rag.embeddings.commands import add_commands
from state_rag.embeddings.readers import read_embeddings
from state_rag.errors import StateRagError


def command(*words):
    parser = argparse.ArgumentParser(prog="state-rag")
    add_commands(parser.add_subparsers(required=True))
    args = parser.parse_args(["embeddings", *map(str, words)])
    args.run(args)


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def source(tmp_path, table):
    path = tmp_path / "source.csv"
    pd.DataFrame(table.vectors, index=table.names).to_csv(path)
    return path


@pytest.fixture
def screen(tmp_path):
    perturbations = ["non-targeting", "AARS", "COPB1+HARS", "COPB1+XYZ", "AARS"]
    obs = pd.DataFrame({"gene": pd.Categorical(perturbations), "cell_line": "k562"}, index=list("abcde"))
    ad.AnnData(np.ones((5, 2), np.float32), obs=obs).write_h5ad(tmp_path / "screen.h5ad")
    return tmp_path / "screen.h5ad"


def test_convert_writes_the_whole_table_and_names_the_file_last(tmp_path, source, table, capsys):
    out = tmp_path / "out.safetensors"
    command("convert", source, "-o", out)
    found = read_embeddings(out)
    assert found.names == table.names
    np.testing.assert_array_equal(found.vectors, table.vectors)
    assert capsys.readouterr().out.splitlines()[-1] == f"Wrote {out}"


def test_a_row_goes_unbroken_into_a_pipe(tmp_path, monkeypatch, capsys):
    names = [f"PERTURBATION{number}" * 3 for number in range(8)]
    pd.DataFrame(np.eye(8), index=names).to_csv(tmp_path / "long.csv")
    monkeypatch.delenv("COLUMNS")
    command("info", tmp_path / "long.csv")
    assert ", ".join(names) in capsys.readouterr().out


def test_convert_keeps_the_names_of_a_list_and_says_which_are_lacking(tmp_path, source, capsys):
    (tmp_path / "names.txt").write_text("HARS\n\nNOPE\nAARS\nHARS\n")
    command("convert", source, "-o", tmp_path / "out.safetensors", "--names", tmp_path / "names.txt")
    assert set(read_embeddings(tmp_path / "out.safetensors").names) == {"HARS", "AARS"}
    assert "Without embedding: 1 of 3: NOPE" in capsys.readouterr().out


def test_convert_keeps_the_perturbations_of_a_data_set_and_the_parts_of_pairs(tmp_path, source, screen, capsys):
    command("convert", source, "-o", tmp_path / "out.safetensors", "--h5ad", screen)
    assert set(read_embeddings(tmp_path / "out.safetensors").names) == {"AARS", "COPB1", "HARS"}
    assert "Without embedding: 2 of 4: COPB1+XYZ, non-targeting" in capsys.readouterr().out


def test_convert_counts_a_member_with_a_control_as_its_member(tmp_path, genept_path, capsys):
    (tmp_path / "names.txt").write_text("COPB1+ctrl\nHARS\n")
    command("convert", genept_path, "-o", tmp_path / "out.safetensors", "--names", tmp_path / "names.txt")
    assert "Without embedding" not in capsys.readouterr().out


def test_convert_of_a_table_with_a_zero_control_goes_on_without_it(tmp_path, genept_path, caplog):
    (tmp_path / "names.txt").write_text("ctrl\nHARS\n")
    with caplog.at_level(logging.WARNING):
        command("convert", genept_path, "-o", tmp_path / "out.safetensors", "--names", tmp_path / "names.txt")
    assert read_embeddings(tmp_path / "out.safetensors").names == ("HARS",)
    assert "left out ctrl" in caplog.text


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (
            ["--h5ad", "screen.h5ad", "--pert-col", "condition"],
            "no column 'condition'; it has .*gene.*--pert-col",
        ),
        (["--h5ad", "nothing.h5ad"], "--h5ad nothing.h5ad: no such file; expected an h5ad file"),
        (["--h5ad", "source.csv"], "--h5ad source.csv: is no HDF5 file, or a truncated one"),
        (["--names", "nothing.txt"], "--names nothing.txt: no such file"),
        (["--names", "blank.txt"], "--names blank.txt: expected one perturbation a line, found none"),
        (["--names", "other.txt"], r"source.csv: holds none of the 2 perturbations asked for \(ENSG1, ENSG2\)"),
        (["--pert-col", "gene"], "--pert-col says which column of --h5ad"),
    ],
)
def test_convert_refuses_bad_selections_and_writes_nothing(tmp_path, monkeypatch, source, screen, extra, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "blank.txt").write_text("\n \n")
    (tmp_path / "other.txt").write_text("ENSG1\nENSG2\n")
    with pytest.raises(StateRagError, match=message):
        command("convert", "source.csv", "-o", "out.safetensors", *extra)
    assert not (tmp_path / "out.safetensors").exists()


def test_convert_refuses_a_wrong_target_before_reading(tmp_path, source):
    with pytest.raises(StateRagError, match="out.csv: embeddings are written as safetensors"):
        command("convert", tmp_path / "not-even-there.csv", "-o", tmp_path / "out.csv")
    command("convert", source, "-o", tmp_path / "a.safetensors")
    with pytest.raises(StateRagError, match="is the source itself"):
        command("convert", tmp_path / "a.safetensors", "-o", tmp_path / "a.safetensors")


def test_build_embeds_texts_with_the_width_asked_for(tmp_path, summaries_path, capsys):
    out = tmp_path / "out.safetensors"
    command("build", summaries_path, "-o", out, "--width", 48)
    found = read_embeddings(out)
    assert (len(found), found.width) == (1915, 48)
    assert "TF-IDF of 1915 texts" in found.provenance["embedding"]
    assert capsys.readouterr().out.splitlines()[-1] == f"Wrote {out}"


def test_build_refuses_vectors_and_other_files(tmp_path, source):
    (tmp_path / "a.json").write_text(json.dumps({"A": [1.0, 2.0]}))
    for file, message in ((tmp_path / "a.json", "holds vectors, not texts"), (source, "expected a .json file")):
        with pytest.raises(StateRagError, match=message):
            command("build", file, "-o", tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()


def test_info_says_how_many_how_wide_and_where_from(genept_path, capsys):
    command("info", genept_path)
    out = capsys.readouterr().out
    for part in ("86", "1536", "AMIGO3", "1 to 1, median 1", "11bda4e729ff732962a4"):
        assert part in out


def test_neighbours_are_printed_nearest_first(genept_path, capsys):
    command("neighbours", "COPB1", genept_path, "-k", 2)
    out = capsys.readouterr().out
    assert out.index("COPZ1") < out.index("SEC61B")
    assert "0.938" in out
    assert out.splitlines()[-1] == f"Table: {genept_path}"


def test_neighbours_uses_the_environment_without_a_file(genept_path, monkeypatch, capsys):
    monkeypatch.setenv("STATE_RAG_GENEPT", str(genept_path))
    command("neighbours", "HARS", "-k", 1)
    assert "AARS" in capsys.readouterr().out


def test_neighbours_of_an_unknown_gene_lists_close_spellings(genept_path):
    with pytest.raises(StateRagError, match="no embedding for 'COPB'; close spellings: COPB -> COPB1"):
        command("neighbours", "COPB", genept_path)


def test_neighbours_refuses_a_count_below_one_before_reading(tmp_path):
    with pytest.raises(StateRagError, match="-k: expected at least 1 neighbour, found 0"):
        command("neighbours", "COPB1", tmp_path / "nothing.csv", "-k", 0)


def test_gene_sets_become_a_table_for_the_perturbations_that_are_named(tmp_path, screen, capsys):
    sets = tmp_path / "sets.gmt"
    sets.write_text("coat\t\tCOPB1\tCOPZ1\tAARS\nligases\t\tAARS\tHARS\n")
    with pytest.raises(
        StateRagError, match=r"sets\.gmt \(gene sets\) has vectors only for the perturbations of a screen"
    ):
        command("convert", sets, "-o", tmp_path / "out.safetensors")
    command("convert", sets, "-o", tmp_path / "out.safetensors", "--h5ad", screen)
    found = read_embeddings(tmp_path / "out.safetensors")
    assert set(found.names) == {"AARS", "COPB1", "HARS"}
    assert found.row("COPB1") @ found.row("HARS") == pytest.approx(0, abs=1e-6)
    assert found.row("COPB1") @ found.row("AARS") == pytest.approx(1 / 3, abs=1e-6)
    assert found.provenance["source_format"] == "gene sets"
    assert "Without embedding: 2 of 4" in capsys.readouterr().out
