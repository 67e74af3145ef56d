"""What `state-rag data check` takes on a large file: seconds and peak memory, of the real command.

    python benchmarks/data_check_cost.py [--cells 600000] [--genes 6000] [--hvgs 2000]

Writes a file of so many cells by repeating a simulated block, splits it and checks it in a subprocess. Aim: under 20 s
and 1 GiB for 600,000 cells.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np
from anndata.io import write_elem

BLOCK = 10_000
DENSITY = 0.05


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=600_000)
    parser.add_argument("--genes", type=int, default=6_000)
    parser.add_argument("--hvgs", type=int, default=2_000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "large.h5ad"
        start = time.perf_counter()
        write_large(path, args.cells, args.genes, args.hvgs)
        size = path.stat().st_size / 2**30
        print(f"{args.cells:,} cells x {args.genes:,} genes, {args.hvgs:,} in X_hvg: {size:.1f} GiB", end="")
        print(f" (written in {time.perf_counter() - start:.0f} s)")
        for words in (
            ["split", str(path), "--held-out", "hepg2", "-o", f"{folder}/split.toml"],
            ["check", f"{folder}/split.toml"],
        ):
            start = time.perf_counter()
            done = subprocess.run(
                [sys.executable, "-m", "state_rag.cli", "data", *words], capture_output=True, text=True
            )
            seconds = time.perf_counter() - start
            peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
            print(f"data {words[0]:<6} {seconds:6.1f} s, peak {peak:.2f} GiB, exit {done.returncode}")
        print(next(line for line in done.stdout.splitlines() if line.startswith("what I noticed")))


def write_large(path: Path, cells: int, genes: int, hvgs: int) -> None:
    """Write an h5ad file block by block."""
    import pandas as pd

    rng = np.random.default_rng(0)
    counts = rng.poisson(3.0, (BLOCK, genes)).astype(np.float32) * (rng.random((BLOCK, genes)) < DENSITY)
    counts[:, 0] += 1
    block = np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4).astype(np.float32)
    rows, columns = np.nonzero(block)
    data, lengths = block[rows, columns], np.bincount(rows, minlength=BLOCK)
    blocks = -(-cells // BLOCK)
    number = np.arange(cells)
    obs = pd.DataFrame(
        {
            "gene": pd.Categorical.from_codes(number % 1000, ["non-targeting", *(f"P{i}" for i in range(999))]),
            "cell_line": pd.Categorical.from_codes(number // 1000 % 4, ["k562", "rpe1", "jurkat", "hepg2"]),
            "gem_group": pd.Categorical.from_codes(number // 4000 % 8, list("12345678")),
        },
        index=np.char.add("cell", number.astype(str)),
    )
    var = pd.DataFrame({"highly_variable": np.arange(genes) < hvgs}, index=[f"G{i}" for i in range(genes)])
    with h5py.File(path, "w") as file:
        file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
        for name, table in (("obs", obs), ("var", var)):
            write_elem(file, name, table)
        for name in ("obsm", "uns"):
            write_elem(file, name, {})
        matrix = file.create_group("X")
        matrix.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": (cells, genes)})
        starts = np.concatenate([[0], np.cumsum(np.tile(lengths, blocks)[:cells])])
        matrix["indptr"] = starts
        total = int(starts[-1])
        values = matrix.create_dataset("data", (total,), np.float32)
        places = matrix.create_dataset("indices", (total,), np.int32)
        dense = file.create_dataset("obsm/X_hvg", (cells, hvgs), np.float32)
        dense.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
        for start in range(0, cells, BLOCK):
            stop = min(start + BLOCK, cells)
            span = int(starts[stop] - starts[start])
            values[starts[start] : starts[stop]], places[starts[start] : starts[stop]] = data[:span], columns[:span]
            dense[start:stop] = block[: stop - start, :hvgs]


if __name__ == "__main__":
    main()
