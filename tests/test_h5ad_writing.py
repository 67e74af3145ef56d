import subprocess
import sys
import textwrap
import tracemalloc

import h5py
import numpy as np
import pandas as pd

from state_rag.h5ad import read_column
from state_rag.h5ad_writing import CellWriter
from tests.datasets.helpers import make_adata


def test_a_full_disk_leaves_the_old_file_and_one_clear_error(tmp_path):
    make_adata().write_h5ad(tmp_path / "a.h5ad")
    before = (tmp_path / "a.h5ad").read_bytes()
    code = f"""
        import resource
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        from state_rag.h5ad_writing import write_h5ad
        from state_rag.errors import StateRagError
        from tests.datasets.helpers import make_adata
        try:
            write_h5ad(make_adata(n_cells=5000), r"{tmp_path / "a.h5ad"}")
        except StateRagError as error:
            print("refused:", error)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False)
    assert "refused:" in done.stdout, done.stderr
    assert "a.h5ad: cannot be written" in done.stdout
    assert [p.name for p in tmp_path.iterdir()] == ["a.h5ad"]
    assert (tmp_path / "a.h5ad").read_bytes() == before


def write_in_blocks(path, cells, width=50):
    """Write that many cells in blocks of 1,000, and return the most memory that Python held meanwhile."""
    with CellWriter(path, cells, ["barcode"]) as writer:
        tracemalloc.start()
        for start in range(0, cells, 1000):
            values = np.full((1000, width), start, np.float32)
            labels = {"gene": ["A", "B"] * 500, "barcode": [f"cell{start + n}" for n in range(1000)]}
            writer.add({"X": values}, labels)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        writer.finish(["gene", "barcode"], pd.DataFrame(index=[str(n) for n in range(width)]))
    return peak


def test_memory_of_writing_in_blocks_does_not_grow_with_the_cells(tmp_path):
    few, many = (write_in_blocks(tmp_path / f"{cells}.h5ad", cells) for cells in (10_000, 80_000))
    assert many - few < 80_000 * 50 * 4 / 20
    with h5py.File(tmp_path / "80000.h5ad") as file:
        assert file["X"][-1, 0] == 79_000
        assert file["obs/barcode"].asstr()[-1] == "cell79999"
        assert read_column(file, "gene", "--x")[0].tolist() == ["A", "B"]


def test_a_disk_that_fills_up_between_blocks_is_one_clear_error(tmp_path):
    code = f"""
        import resource
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        from state_rag.errors import StateRagError
        from tests.test_h5ad_writing import write_in_blocks
        from pathlib import Path
        try:
            write_in_blocks(Path(r"{tmp_path / "a.h5ad"}"), 10_000)
        except StateRagError as error:
            print("refused:", error)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False)
    assert "a.h5ad: cannot be written" in done.stdout, done.stderr
    assert not list(tmp_path.iterdir())
