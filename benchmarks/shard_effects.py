"""What a pass over many files of cells costs, beside reading their bytes and beside loading them whole.

    python benchmarks/shard_effects.py --reads 4 --cells 50000
    python benchmarks/shard_effects.py --reads 20 --cells 500000 --dask

Two different shards are written (CSR, log-normalised, with all conditions in each) and read as often as is asked,
under as many names; so `--reads 20 --cells 500000` is a pass over 10M cells. Every row is a process of its own, with
its largest resident memory (of all workers together, for Dask), and rows alternate; imports and compiling (2 s) are
not counted. `bytes` reads what is stored of the matrix, in blocks, and does nothing with it. `pass` is the sums by
condition (counts, means, deviations), which are kept; `again` finds them. `whole, aggregate` loads one shard with
anndata and calls `scanpy.get.aggregate` (mean and variance); `whole, loop` takes the mean and variance of each
condition in a Python loop. What 100M cells would take is reckoned from the pass, in proportion.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

GIVEN = ("reads", "cells", "genes", "density", "conditions", "compression")
CONTROL, LINES = "non-targeting", ("k562", "rpe1")


def main() -> None:
    """Write shards, run each side in a process of its own, print the table."""
    options = parse()
    if options.side:
        print(json.dumps(SIDES[options.side](options, Path(options.folder))))
        return
    with tempfile.TemporaryDirectory(prefix="shard-effects-", dir=options.place) as folder:
        for side in ("write", "truth"):
            run(side, options, folder)
        order = ["bytes", "pass"] * options.repeats + ["again", "whole, aggregate", "whole, loop"]
        if options.dask:
            order += ["dask 1", "dask 2"] * options.repeats
        found: dict[str, list[dict[str, float]]] = {}
        for side in order:
            found.setdefault(side, []).append(run(side, options, folder))
    medians = {
        side: {key: float(np.median([one[key] for one in some])) for key in some[0]} for side, some in found.items()
    }
    show(options, medians)


def show(options: argparse.Namespace, found: dict[str, dict[str, float]]) -> None:
    """Print what was found."""
    table = Table(
        title=f"{options.reads} x {options.cells:,} cells x {options.genes:,} genes, {options.density:.0%} stored, "
        f"{options.conditions:,} conditions in 2 lines; load {os.getloadavg()[0]:.1f}"
    )
    for column in ("", "cells", "s", "CPU s", "cells/s", "largest RSS GiB", "difference"):
        table.add_column(column, justify="right" if column else "left")
    for side, row in found.items():
        values = [f"{row['cells']:,.0f}", f"{row['s']:.2f}", f"{row['cpu']:.2f}", f"{row['cells'] / row['s']:,.0f}"]
        table.add_row(side, *values, f"{row['gib']:.2f}", f"{row['difference']:.1e}" if "difference" in row else "")
    console = Console(width=120)
    console.print(table)
    one, read = found["pass"], found["bytes"]
    of_time, of_cpu = one["s"] / read["s"], one["cpu"] / read["cpu"]
    console.print(f"pass / bytes: {of_time:.2f} of the time, {of_cpu:.2f} of the processor time")
    if options.dask:
        console.print(f"two Dask workers / one: {found['dask 1']['s'] / found['dask 2']['s']:.2f} times as fast")
    hours = 1e8 / (one["cells"] / one["s"]) / 3600
    console.print(f"100M such cells, reckoned: {60 * hours:.1f} min on this machine, {6 * hours:.1f} on ten like it")


def run(side: str, options: argparse.Namespace, folder: str) -> dict[str, float]:
    """Run one side in a process of its own."""
    given = [f"--{name}={getattr(options, name)}" for name in GIVEN]
    command = [sys.executable, __file__, *given, "--side", side, "--folder", folder]
    environment = {**os.environ, "STATE_RAG_CACHE": f"{folder}/cache"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"{side}: {done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def write(options: argparse.Namespace, folder: Path) -> dict[str, float]:
    """Write two shards, and names for as many reads."""
    import anndata as ad
    import pandas as pd
    from scipy import sparse

    names = [CONTROL, *(f"P{number}" for number in range(options.conditions // 2 - 1))]
    for number in range(2):
        rng = np.random.default_rng(number)
        indices, counts = [], []
        for start in range(0, options.cells, 10_000):
            shape = min(10_000, options.cells - start), options.genes
            row, column = (rng.random(shape, dtype=np.float32) < options.density).nonzero()
            indices.append(column.astype(np.int32))
            counts.append(np.bincount(row, minlength=shape[0]))
        indptr = np.concatenate([[0], np.cumsum(np.concatenate(counts))])
        values = np.log1p(rng.integers(1, 30, indptr[-1]) * 2.5).astype(np.float32)
        matrix = sparse.csr_matrix((values, np.concatenate(indices), indptr), shape=(options.cells, options.genes))
        obs = pd.DataFrame(
            {
                "gene": pd.Categorical.from_codes(rng.integers(0, len(names), options.cells), names),
                "cell_line": pd.Categorical.from_codes(rng.integers(0, 2, options.cells), LINES),
            }
        )
        obs.index = obs.index.astype(str)
        compressed = {"compression": options.compression} if options.compression else {}
        ad.AnnData(matrix, obs=obs).write_h5ad(folder / f"shard{number}.h5ad", **compressed)
    (folder / "reads").mkdir()
    for number in range(options.reads):
        (folder / "reads" / f"{number:04}.h5ad").symlink_to(folder / f"shard{number % 2}.h5ad")
    return {}


def truth(options: argparse.Namespace, folder: Path) -> dict[str, float]:
    """Keep each condition's mean and sum of squared deviations over both shards, from memory, in float64."""
    import anndata as ad

    cells = [ad.read_h5ad(folder / f"shard{number}.h5ad") for number in range(2)]
    groups = [part.obs.groupby(["cell_line", "gene"], observed=True).indices for part in cells]
    keys = sorted(set().union(*groups))
    means, squares, counts = [], [], []
    for key in keys:
        own = [part.X[rows.get(key, [])].toarray() for part, rows in zip(cells, groups, strict=True)]
        values = np.concatenate(own).astype(np.float64)
        means.append(values.mean(axis=0))
        squares.append(np.square(values - means[-1]).sum(axis=0))
        counts.append(len(values))
    np.savez(folder / "truth.npz", keys=[" ".join(key) for key in keys], means=means, squares=squares, counts=counts)
    return {}


def bytes_alone(options: argparse.Namespace, folder: Path) -> dict[str, float]:
    """Read what is stored of the matrix, in blocks of four million values."""
    import h5py

    def read() -> None:
        for path in sorted((folder / "reads").iterdir()):
            with h5py.File(path) as file:
                for name in ("data", "indices", "indptr"):
                    values = file["X"][name]
                    for start in range(0, len(values), 2**22):
                        values[start : start + 2**22]

    return measured(options.reads * options.cells, read)


def shard_pass(options: argparse.Namespace, folder: Path, *, keep: bool = False, workers: int = 0) -> dict[str, float]:
    """Add up by condition, and compare with what the truth is."""
    from state_rag.effects.conditions import Columns
    from state_rag.effects.group_totals import GroupTotals
    from state_rag.effects.shard_pass import CellsOf, add_files
    from state_rag.effects.workers import Workers

    for path in () if keep else (folder / "cache").glob("sums/*"):
        path.unlink()
    files = [CellsOf(path) for path in sorted((folder / "reads").iterdir())]
    totals = GroupTotals(squares=True)

    def add(reader: Workers) -> None:
        add_files(totals, files, Columns(), "X", workers=reader, progress=False)

    cells = options.reads * options.cells
    compiled()
    warmed(folder)
    found = with_dask(cells, add, workers, folder) if workers else measured(cells, lambda: add(Workers()))
    with np.load(folder / "truth.npz") as known:
        times, apart = options.reads // 2, [0.0]
        columns = (known[name] for name in ("keys", "means", "squares", "counts"))
        for key, mean, squares, count in zip(*columns, strict=True):
            line, _, name = str(key).partition(" ")
            std = np.sqrt(times * squares / (times * count - 1))
            apart += [np.abs(totals.mean((line, name)) - mean).max(), np.abs(totals.std((line, name)) - std).max()]
            assert totals.cells[line, name] == times * count
    return {**found, "difference": float(max(apart))}


def with_dask(cells: int, add: Callable, workers: int, folder: Path) -> dict[str, float]:
    """Measure a pass by Dask workers, once they have imported and compiled what they need."""
    from distributed import Client, LocalCluster

    from state_rag.effects.workers import Workers

    with (
        LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        client.run(compiled)
        client.run(warmed, folder)
        before = sum(client.run(time.process_time).values())
        found = measured(cells, lambda: add(Workers(cluster.scheduler_address)))
        found["cpu"] += sum(client.run(time.process_time).values()) - before
        found["gib"] += sum(client.run(largest).values())
    return found


def compiled() -> None:
    """Import and compile what a worker needs."""
    import pyarrow  # noqa: F401
    from scipy import sparse

    from state_rag.contract.matrices import ArrayRows
    from state_rag.effects.cell_sums import sum_cells

    sum_cells(ArrayRows(sparse.eye(3, dtype=np.float32, format="csr")), [("a",)], np.zeros(3, dtype=np.int64))


def warmed(folder: Path) -> None:
    """Import what reading a file's tables needs."""
    from state_rag.contract.feature_names import FileMatrices
    from state_rag.h5ad import open_h5ad

    with open_h5ad(folder / "shard0.h5ad") as file:
        FileMatrices(file)


def whole(options: argparse.Namespace, folder: Path, *, loop: bool) -> dict[str, float]:
    """Load one shard with anndata, and take means and variances as users do."""
    import anndata as ad
    import scanpy as sc

    def work() -> None:
        cells = ad.read_h5ad(folder / "shard0.h5ad")
        if not loop:
            sc.get.aggregate(cells, by=["cell_line", "gene"], func=["mean", "var"])
            return
        for line in LINES:
            for name in cells.obs["gene"].cat.categories:
                own = cells[(cells.obs["cell_line"] == line) & (cells.obs["gene"] == name)].X
                mean = np.asarray(own.mean(axis=0)).ravel()
                np.asarray(own.multiply(own).mean(axis=0)).ravel() - mean**2

    return measured(options.cells, work)


def measured(cells: int, work: Callable) -> dict[str, float]:
    """Return seconds, processor seconds and largest memory of some work."""
    start, used = time.perf_counter(), time.process_time()
    work()
    took, cpu = time.perf_counter() - start, time.process_time() - used
    return {"cells": cells, "s": took, "cpu": cpu, "gib": largest()}


def largest() -> float:
    """Return this process's largest resident memory, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


SIDES: dict[str, Callable[[argparse.Namespace, Path], dict[str, float]]] = {
    "write": write,
    "truth": truth,
    "bytes": bytes_alone,
    "pass": shard_pass,
    "again": partial(shard_pass, keep=True),
    "whole, aggregate": partial(whole, loop=False),
    "whole, loop": partial(whole, loop=True),
    "dask 1": partial(shard_pass, workers=1),
    "dask 2": partial(shard_pass, workers=2),
}


def parse() -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reads", type=int, default=4, help="how many shards are read, an even number")
    parser.add_argument("--cells", type=int, default=50_000, help="of a shard")
    parser.add_argument("--genes", type=int, default=2_000)
    parser.add_argument("--density", type=float, default=0.05)
    parser.add_argument("--conditions", type=int, default=1_000)
    parser.add_argument("--compression", choices=("", "gzip", "lzf"), default="", help="of the shards")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--dask", action="store_true", help="one Dask worker and two, too")
    parser.add_argument("--place", help="where the shards are written (default: the folder for temporary files)")
    parser.add_argument("--side", choices=tuple(SIDES), help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.reads < 2 or options.reads % 2:
        parser.error(f"--reads {options.reads}: expected an even number")
    return options


if __name__ == "__main__":
    main()
