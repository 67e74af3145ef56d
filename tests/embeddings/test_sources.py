import gzip

import numpy as np
import pytest
import torch

from state_rag.embeddings.sources import kind_of, named_sources, read_source
from state_rag.errors import StateRagError
from tests.embeddings.conftest import shared_file

CONTENTS = {
    "a.gmt": ("gene sets", "coat\tx\tA\tB\nother\ty\tB\tC\n"),
    "Reactome_2022.txt": ("gene sets", "coat\t\tA\tB\nother\t\tB\tC\tD\n"),
    "links.txt": ("graph", "protein1 protein2 combined_score\nA B 900\nB C 400\n"),
    "edges.tsv": ("graph", "A\tB\nB\tC\n"),
    "weighted.csv": ("graph", "source,target,weight\nA,B,0.5\nB,C,1\n"),
    "net.sif": ("graph", "A pp B\nB pp C\n"),
    "drugs.csv": ("molecules", "drug,SMILES\nA,CCO\nB,CO\n"),
    "drugs.smi": ("molecules", "CCO A\nCO B\n"),
    "vectors.csv": ("embeddings", "gene,0,1\nA,1,0\nB,0,1\n"),
    "bare.tsv": ("embeddings", "A\t1\t0.5\nB\t0\t1\n"),
    "texts.json": ("embeddings", '{"A": "coat of vesicles", "B": "alanine ligase"}'),
}


@pytest.mark.parametrize("name", CONTENTS)
def test_the_kind_follows_from_ending_and_content_packed_or_not(tmp_path, name):
    kind, content = CONTENTS[name]
    (tmp_path / name).write_text(content)
    (tmp_path / f"{name}.gz").write_bytes(gzip.compress(content.encode()))
    assert kind_of(tmp_path / name) == kind
    if not name.endswith(".json"):
        assert kind_of(tmp_path / f"{name}.gz") == kind
    if kind != "molecules":
        found = read_source(tmp_path / name, ["B", "A", "unheard of"])
        assert sorted(found.table.names) == ["A", "B"]
        assert found.known == "2 of 3"
        assert found.kind == kind
        assert len(found.table.provenance["source_sha256"]) == 64


def test_protein_tables_are_read_as_state_ships_them(tmp_path):
    torch.save({name: torch.randn(5) for name in ("A", "B", "C")}, tmp_path / "ESM2.pt")
    found = read_source(tmp_path / "ESM2.pt", ["C", "A"])
    assert found.kind == "embeddings"
    assert found.table.vectors.shape == (2, 5)


@pytest.mark.parametrize("name", ["a.gmt", "edges.tsv", "vectors.csv"])
def test_a_source_that_knows_nothing_shows_names_of_both_sides(tmp_path, name):
    (tmp_path / name).write_text(CONTENTS[name][1])
    with pytest.raises(
        StateRagError, match=r"knows none of the 2 perturbations.*names such as A, B.*have ENSG1, ENSG2"
    ):
        read_source(tmp_path / name, ["ENSG2", "ENSG1"])


def test_what_is_no_source_is_refused(tmp_path):
    for name, content, said in (
        ("a.docx", "x", "cannot tell what kind of source"),
        ("a.txt", "just prose\nof two lines of it\n and more\n", "is neither a table of numbers"),
        ("b.txt", "# nothing\n", "has no line to read"),
        ("c.csv", "A;0.1;0.2\nB;0.2;0.1\n", "all of them parted by tabs or commas; it begins 'A;0.1;0.2'"),
        ("d.tsv", "gene\tx\ty\nA\t0,1\t0,2\n", "has '0,1', a number with a comma before decimals"),
        ("e.csv", "", "is empty"),
    ):
        (tmp_path / name).write_text(content)
        with pytest.raises(StateRagError, match=said):
            read_source(tmp_path / name, ["A"])
    with pytest.raises(StateRagError, match=r"c\.gmt: no such file; expected a source of knowledge"):
        read_source(tmp_path / "c.gmt", ["A"])


def test_sources_have_names_of_their_own():
    assert named_sources(["go = a=b.gmt", "string=links.txt"]) == {"go": "a=b.gmt", "string": "links.txt"}
    for text in ("go", "=a.gmt", "go="):
        with pytest.raises(StateRagError, match="expected NAME=FILE"):
            named_sources([text])
    with pytest.raises(StateRagError, match="'go' is given twice"):
        named_sources(["go=a.gmt", "go=b.gmt"])


def test_pathways_of_real_genes():
    genes = ["COPB1", "COPZ1", "HSPA5", "EIF2B2", "EIF2B3"]
    for name in ("go_bp_2021.gmt.gz", "reactome.gmt.gz"):
        table = read_source(shared_file(name), genes).table
        unit = table.vectors / np.linalg.norm(table.vectors, axis=1, keepdims=True)
        row = {gene: unit[number] for number, gene in enumerate(table.names)}
        assert row["COPB1"] @ row["COPZ1"] > 0.5 > row["COPB1"] @ row["HSPA5"]
        assert row["EIF2B2"] @ row["EIF2B3"] > 0.5
