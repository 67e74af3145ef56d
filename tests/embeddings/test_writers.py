import resource
import subprocess
import sys

import numpy as np
import pytest
from safetensors import safe_open

from state_rag.embeddings.readers import read_embeddings
from state_rag.embeddings.table import Embeddings
from state_rag.embeddings.writers import write_embeddings
from state_rag.errors import StateRagError


def test_names_vectors_and_provenance_come_back(tmp_path, table):
    write_embeddings(tmp_path / "a.safetensors", table)
    found = read_embeddings(tmp_path / "a.safetensors")
    assert found.names == table.names
    np.testing.assert_array_equal(found.vectors, table.vectors)
    assert found.provenance["source_file"] == "memory"


def test_the_origin_survives_two_conversions(tmp_path, genept):
    write_embeddings(tmp_path / "a.safetensors", genept)
    write_embeddings(tmp_path / "b.safetensors", read_embeddings(tmp_path / "a.safetensors"))
    assert read_embeddings(tmp_path / "b.safetensors").provenance == genept.provenance


def test_equal_tables_make_equal_files_in_other_processes_too(tmp_path, table):
    write_embeddings(tmp_path / "a.safetensors", table)
    code = (
        "import sys; from state_rag.embeddings.readers import read_embeddings as r;"
        "from state_rag.embeddings.writers import write_embeddings as w; w(sys.argv[2], r(sys.argv[1]))"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "a.safetensors", tmp_path / "b.safetensors"], check=True)
    write_embeddings(tmp_path / "c.safetensors", read_embeddings(tmp_path / "a.safetensors"))
    assert (tmp_path / "b.safetensors").read_bytes() == (tmp_path / "c.safetensors").read_bytes()


def test_the_file_is_plain_safetensors_for_everybody_else(tmp_path, table):
    write_embeddings(tmp_path / "a.safetensors", table)
    with safe_open(tmp_path / "a.safetensors", "numpy") as file:
        assert list(file.keys()) == ["vectors"]


def test_another_suffix_or_a_folder_is_refused(tmp_path, table):
    with pytest.raises(StateRagError, match="give a name that ends in .safetensors"):
        write_embeddings(tmp_path / "a.npz", table)
    (tmp_path / "b.safetensors").mkdir()
    with pytest.raises(StateRagError, match="expected a file to write, found a folder"):
        write_embeddings(tmp_path / "b.safetensors", table)


def test_a_full_disk_leaves_the_old_file_whole_and_nothing_else(tmp_path, table):
    path = tmp_path / "a.safetensors"
    write_embeddings(path, table)
    before = path.read_bytes()
    large = Embeddings(tuple(f"G{i}" for i in range(500)), np.ones((500, 500)), "memory")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(StateRagError, match=r"a\.safetensors: cannot be written .*Check free space"):
            write_embeddings(path, large)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_another_table_is_kept_beside(tmp_path):
    one, other = (Embeddings((name, "B"), np.eye(2, dtype=np.float32), "example") for name in "AC")
    path, kept = tmp_path / "a.safetensors", tmp_path / "a.safetensors.before"
    write_embeddings(path, one)
    write_embeddings(path, one)
    assert not kept.exists()
    first = path.read_bytes()
    write_embeddings(path, other)
    assert kept.read_bytes() == first
