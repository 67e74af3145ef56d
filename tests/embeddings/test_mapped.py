"""Tables that stay in their file: what they hold, what is loaded of them, and what is refused."""

import json

import numpy as np
import pandas as pd
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from state_rag.embeddings import writers
from state_rag.embeddings.mapped import packed_names, unpacked_names
from state_rag.embeddings.readers import read_embeddings
from state_rag.embeddings.table import Embeddings
from state_rag.embeddings.tensors import METADATA_KEY
from state_rag.embeddings.writers import write_embeddings
from state_rag.errors import StateRagError

VECTORS = np.arange(1, 13, dtype=np.float32).reshape(4, 3)
NAMES = ("A", "B µ", "C", "D")


def is_mapped(vectors):
    while vectors is not None:
        if isinstance(vectors, np.memmap):
            return True
        vectors = vectors.base
    return False


@pytest.mark.parametrize("ending", [".names.txt", ".names.parquet", ".txt", ".parquet"])
def test_names_lie_beside_an_array_which_is_mapped(tmp_path, ending):
    np.save(tmp_path / "base.npy", VECTORS)
    if ending.endswith(".txt"):
        (tmp_path / f"base{ending}").write_text("A\r\nB µ\nC\nD", encoding="utf-8")
    else:
        pd.DataFrame({"number": range(4), "name": NAMES}).to_parquet(tmp_path / f"base{ending}")
    found = read_embeddings(tmp_path / "base.npy")
    assert found.names == NAMES
    np.testing.assert_array_equal(found.vectors, VECTORS)
    assert is_mapped(found.vectors)
    found.vectors[0, 0] = 99  # does not reach the file
    part = read_embeddings(tmp_path / "base.npy", names=["D", "A"])
    assert part.names == ("A", "D")
    np.testing.assert_array_equal(part.vectors, VECTORS[[0, 3]])


def test_an_array_without_names_or_with_too_few_says_where_they_belong(tmp_path):
    np.save(tmp_path / "base.npy", VECTORS)
    with pytest.raises(
        StateRagError, match=r"base\.npy: a \.npy file has no names; put them beside it.*base\.names\.txt"
    ):
        read_embeddings(tmp_path / "base.npy")
    (tmp_path / "base.names.txt").write_text("A\nB\n")
    with pytest.raises(StateRagError, match=r"has 4 rows, but .*base\.names\.txt has 2 names"):
        read_embeddings(tmp_path / "base.npy")
    pd.DataFrame({"a": NAMES, "b": NAMES}).to_parquet(tmp_path / "base.names.parquet")
    (tmp_path / "base.names.txt").unlink()
    with pytest.raises(StateRagError, match="expected one column of text with the names, found a, b"):
        read_embeddings(tmp_path / "base.npy")


def test_objects_cubes_and_half_files_are_refused(tmp_path):
    (tmp_path / "base.names.txt").write_text("A\nB\n")
    np.save(tmp_path / "base.npy", np.array([["a"], [{}]], dtype=object), allow_pickle=True)
    with pytest.raises(StateRagError, match=r"base\.npy: cannot be read"):
        read_embeddings(tmp_path / "base.npy")
    np.save(tmp_path / "base.npy", np.ones((2, 2, 2)))
    with pytest.raises(StateRagError, match=r"expected a matrix of numbers.*found float64 values of shape \[2, 2, 2\]"):
        read_embeddings(tmp_path / "base.npy")
    np.save(tmp_path / "base.npy", np.ones((2, 500)))
    whole = (tmp_path / "base.npy").read_bytes()
    (tmp_path / "base.npy").write_bytes(whole[:1000])
    with pytest.raises(StateRagError, match="truncated, corrupt"):
        read_embeddings(tmp_path / "base.npy")


def test_many_names_go_into_a_tensor_and_come_back(tmp_path, monkeypatch):
    table = Embeddings(NAMES, VECTORS, "memory", {"source_sha256": "by hand"})
    write_embeddings(tmp_path / "few.safetensors", table)
    monkeypatch.setattr(writers, "LONGEST_NAMES", 5)
    write_embeddings(tmp_path / "many.safetensors", table)
    with safe_open(tmp_path / "many.safetensors", "numpy") as file:
        assert sorted(file.keys()) == ["names", "vectors"]
        assert "names" not in json.loads(file.metadata()[METADATA_KEY])
    for name in ("few", "many"):
        found = read_embeddings(tmp_path / f"{name}.safetensors")
        assert (found.names, found.provenance) == (table.names, table.provenance)
        np.testing.assert_array_equal(found.vectors, VECTORS)
        assert is_mapped(found.vectors)
        assert read_embeddings(tmp_path / f"{name}.safetensors", names=["C"]).names == ("C",)


def test_names_of_any_letters_survive_packing():
    names = ["", "a\nb", '"', "µ", "\udc80", "x" * 1000]
    assert unpacked_names(packed_names(names)) == names


@pytest.mark.parametrize("names", [np.frombuffer(b"[1", np.uint8), np.frombuffer(b"{}", np.uint8)])
def test_damaged_names_and_later_formats_are_refused(tmp_path, names):
    content = {"format": 2, "provenance": {}}
    save_file({"vectors": VECTORS, "names": names}, tmp_path / "a.safetensors", {METADATA_KEY: json.dumps(content)})
    with pytest.raises(StateRagError, match="damaged metadata"):
        read_embeddings(tmp_path / "a.safetensors")
    save_file({"vectors": VECTORS}, tmp_path / "a.safetensors", {METADATA_KEY: json.dumps({"format": 3})})
    with pytest.raises(StateRagError, match="embeddings in format 3, this version of state-rag reads up to 2"):
        read_embeddings(tmp_path / "a.safetensors")
