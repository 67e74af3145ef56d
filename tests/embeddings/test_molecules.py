import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from state_rag.embeddings.factor import factor
from state_rag.embeddings.molecules import read_smiles, tanimoto
from state_rag.errors import StateRagError


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sets(st.integers(0, 15), min_size=1), min_size=1, max_size=8))
def test_tanimoto_is_bits_of_both_over_bits_of_either_and_has_vectors(drawn):
    bits = np.array([[number in own for number in range(16)] for own in drawn], dtype=np.float32)
    expected = [[len(a & b) / len(a | b) for b in drawn] for a in drawn]
    found = tanimoto(bits)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    vectors = factor(found)
    np.testing.assert_allclose(vectors @ vectors.T, expected, atol=1e-4)


def test_tables_and_smi_files_say_the_same(tmp_path):
    (tmp_path / "a.csv").write_text('target,drug,canonical_smiles\nx,aspirin,"CC(=O)Oc1ccccc1C(=O)O"\ny,ethanol,CCO\n')
    (tmp_path / "a.smi").write_text("CC(=O)Oc1ccccc1C(=O)O aspirin\nCCO\tethanol\n")
    table, plain = read_smiles(tmp_path / "a.csv"), read_smiles(tmp_path / "a.smi")
    assert table.smiles == plain.smiles
    assert table.names == ("aspirin", "ethanol")


def test_a_name_has_one_molecule(tmp_path):
    (tmp_path / "a.smi").write_text("CCO ethanol\nCCO ethanol\nCO ethanol\n")
    with pytest.raises(StateRagError, match="ethanol has two SMILES, CCO and CO"):
        read_smiles(tmp_path / "a.smi")
    for content, said in (("drug,dose\nA,1\n", "no column of SMILES"), ("smiles\nCCO\n", "SMILES alone")):
        (tmp_path / "a.csv").write_text(content)
        with pytest.raises(StateRagError, match=said):
            read_smiles(tmp_path / "a.csv")


def test_without_rdkit_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "rdkit", None)
    (tmp_path / "a.smi").write_text("CCO ethanol\n")
    with pytest.raises(StateRagError, match=r"pip install state-rag\[molecules\]"):
        read_smiles(tmp_path / "a.smi").embedded(["ethanol"])


def test_alike_molecules_are_near_and_what_is_no_molecule_is_left_out(tmp_path, caplog):
    pytest.importorskip("rdkit")
    (tmp_path / "a.smi").write_text("CCCCO butanol\nCCCCCO pentanol\nc1ccccc1 benzene\nnonsense what\n")
    known, vectors = read_smiles(tmp_path / "a.smi").embedded(["butanol", "pentanol", "benzene", "what", "other"])
    assert known == ["butanol", "pentanol", "benzene"]
    assert "reads no molecule in it: what (nonsense)" in caplog.text
    alike = vectors @ vectors.T
    np.testing.assert_allclose(np.diag(alike), 1, atol=1e-5)
    assert alike[0, 1] > 0.5 > 0.1 > alike[0, 2]


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        (
            "a.csv",
            "drug,smiles\nethanol,CCO\nbutanol\n",
            "line 3 has 1 fields, and the first line names 2",
        ),
        ("a.csv", "drug,smiles\nethanol,CCO\n,CCCO\n", "1 lines have a SMILES and no name"),
        ("a.csv", "drug;smiles\nethanol;CCO\n", "SMILES alone"),
        ("a.csv", "drug,smiles\n", "has no molecule"),
        ("a.smi", "CCO ethanol\nCCCO\n", "1 lines have a SMILES and no name"),
        ("a.smi", "CCO\nCCCO\n", "has no molecule; expected a name and its SMILES"),
        ("a.smi", "", "has no molecule"),
    ],
)
def test_lines_that_are_no_molecule_are_refused(tmp_path, file, content, said):
    (tmp_path / file).write_text(content)
    with pytest.raises(StateRagError, match=said):
        read_smiles(tmp_path / file)


def test_names_without_a_molecule_are_told(tmp_path, caplog):
    (tmp_path / "a.csv").write_text("drug,smiles\nethanol,CCO\n\nantibody,\nother,nan\n")
    assert read_smiles(tmp_path / "a.csv").names == ("ethanol",)
    assert "2 names have no SMILES, and stay unknown: antibody, other." in caplog.text
