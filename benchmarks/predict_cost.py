"""Cells a second, and memory, of `state tx predict` at the published size: STATE, set by set, and many sets at a time.

Trains a model of each for one step on a simulated screen, then predicts its test set by the command itself, a process
for each. Timed is what lies between STATE's lines "Generating predictions" and the last "Saved": reading, predicting
and writing, not imports. "set by set" is PT-RAG (`rag=ptrag`) as STATE would predict it, each set in a pass of its own;
"STATE" is `model=rag_paper` with one-hot perturbations and no plugin. Beside seconds stands the processor time of all
threads, which other work on the machine disturbs less.

    python benchmarks/predict_cost.py [--repeats 3] [--folder DIR] [--cells 14640]
    python benchmarks/predict_cost.py --memory 10000 200000     # peak resident memory instead, test sets of such sizes
"""

import argparse
import json
import logging
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

import anndata
import h5py
import numpy as np
from anndata.io import write_elem

from state_rag.upstream.swap import any_head_count

SCREEN = ["--lines", "k562", "hepg2", "--perturbations", "120", "--modules", "20", "--genes", "2200", "--hvgs", "2000"]
SCREEN += ["--cells-per-condition", "64", "--controls-per-line", "1000", "--embedding-width", "1536"]

SIDES = {"STATE": "none", "set by set": "ptrag", "now": "ptrag"}
"""What is measured, and the preset of its run."""


def prepare(folder: Path) -> None:
    """Simulate, split and train, unless that has been done."""
    if (folder / "done").exists():
        return
    ours, state = "state-rag", "state"
    call(ours, "data", "simulate", folder / "screen", *SCREEN)
    call(ours, "data", "split", folder / "screen/screen.h5ad", "--held-out", "hepg2", "-o", folder / "split.toml")
    for preset in dict.fromkeys(SIDES.values()):
        overrides = ["model=rag_paper", "data=replogle", f"rag={preset}", "use_wandb=false", "training.max_steps=1"]
        overrides += ["data.kwargs.num_workers=0", "training.batch_size=2", "training.val_freq=1"]
        if preset != "none":
            overrides.append(f"training.genept_path={folder / 'screen/embeddings.safetensors'}")
        places = [f"data.kwargs.toml_config_path={folder / 'split.toml'}", f"output_dir={folder}", f"name={preset}"]
        call(state, "tx", "train", *overrides, *places)
    (folder / "done").touch()


def call(program: str, *arguments: object) -> None:
    """Run a command."""
    path = Path(sys.executable).with_name(program)
    subprocess.run([path, *map(str, arguments)], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def enlarge(folder: Path, n_cells: int) -> Path:
    """Write a screen whose test set has `n_cells`: the test conditions' cells again and again. Return its split."""
    made = folder / f"large{n_cells}"
    split = (folder / "split.toml").read_text()
    if (made / "split.toml").exists():
        return made / "split.toml"
    made.mkdir(exist_ok=True)
    cells = anndata.read_h5ad(folder / "screen/screen.h5ad")
    tested = next(iter(tomllib.loads(split)["fewshot"].values()))["test"]
    held_out = cells.obs["cell_line"] == "hepg2"
    again = np.flatnonzero(held_out & cells.obs["gene"].isin(tested))
    already = len(again) + int((held_out & (cells.obs["gene"] == "non-targeting")).sum())
    repeats = np.resize(again, max(0, n_cells - already))
    rows = np.sort(np.concatenate([np.arange(cells.n_obs), repeats]), kind="stable")
    few = anndata.AnnData(cells.X[rows[:1]], obs=cells.obs.iloc[rows[:1]], var=cells.var, uns=cells.uns)
    few.write_h5ad(made / "screen.h5ad")
    obs = cells.obs.iloc[rows].set_axis([f"cell{row}" for row in range(len(rows))])
    with h5py.File(made / "screen.h5ad", "r+") as file:
        write_elem(file, "obs", obs)
        write_elem(file, "X", cells.X[rows])
        values = file.create_dataset("obsm/X_hvg", (len(rows), cells.obsm["X_hvg"].shape[1]), np.float32)
        values.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
        for start in range(0, len(rows), 4096):
            values[start : start + 4096] = cells.obsm["X_hvg"][rows[start : start + 4096]]
    (made / "split.toml").write_text(split.replace(str(folder / "screen/screen.h5ad"), str(made / "screen.h5ad")))
    return made / "split.toml"


def predict(side: str, folder: Path, split: Path | None) -> dict[str, float]:
    """Run the command in this process and return seconds, processor seconds, cells and GiB."""
    moments: dict[str, tuple[float, float]] = {}

    class Clock(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said = record.getMessage()
            if said.startswith("Generating predictions"):
                moments["start"] = time.perf_counter(), time.process_time()
            if said.startswith("Saved adata_real"):
                moments["end"] = time.perf_counter(), time.process_time()

    logger = logging.getLogger("state._cli._tx._predict")
    logger.setLevel(logging.INFO)
    logger.addHandler(Clock())
    run = folder / SIDES[side]
    sys.argv = ["state", "tx", "predict", "--output-dir", str(run), "--predict-only"]
    sys.argv += [] if split is None else ["--toml", str(split)]
    from state.__main__ import main as state

    if side == "set by set":
        from state_rag.upstream import predict as ours

        ours._fast = lambda *_: None
    with any_head_count():  # transformers refuses the published number of heads, also without the plugin
        state()
    with h5py.File(run / "eval_last.ckpt/adata_pred.h5ad") as file:
        cells = file["X"].shape[0]
    wall, processor = (end - start for start, end in zip(moments["start"], moments["end"], strict=True))
    return {"seconds": wall, "processor": processor, "cells": cells, "peak": peak_memory()}


def peak_memory() -> float:
    """Return the most resident memory of this process in GiB.

    Not `ru_maxrss` where it can be helped: on Linux that starts from the peak of the process that started this one.
    """
    status = Path("/proc/self/status")
    if status.exists():
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if "VmHWM" in line) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def measure(side: str, folder: Path, split: Path | None = None) -> dict[str, float]:
    """Run `predict` in a process of its own."""
    command = [sys.executable, __file__, "--folder", str(folder), "--only", side]
    command += [] if split is None else ["--split", str(split)]
    environment = {**os.environ, **({"STATE_RAG_DISABLE": "1"} if side == "STATE" else {})}
    finished = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    found = json.loads(finished.stdout.splitlines()[-1])
    print(f"{side}: {found}", file=sys.stderr, flush=True)
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where screens and runs are made, and found again")
    parser.add_argument("--cells", type=int, help="cells of the test set, the same ones again; 5,608 by default")
    parser.add_argument("--memory", type=int, nargs="+", metavar="CELLS", help="cells of the test set")
    parser.add_argument("--sides", nargs="+", choices=list(SIDES), default=list(SIDES))
    parser.add_argument("--only", choices=list(SIDES), help=argparse.SUPPRESS)
    parser.add_argument("--split", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.only:
        print(json.dumps(predict(args.only, args.folder, args.split)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = (args.folder or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        prepare(folder)
        if args.memory:
            for side in args.sides:
                peaks = [measure(side, folder, enlarge(folder, cells)) for cells in args.memory]
                for found in peaks:
                    ratio, rate = found["peak"] / peaks[0]["peak"], found["cells"] / found["seconds"]
                    sizes = f"{side:10}  {found['cells']:8,} cells   peak {found['peak']:6.3f} GiB"
                    print(f"{sizes}   ratio {ratio:.3f}   {rate:6.0f} cells/s", flush=True)
            return
        split = enlarge(folder, args.cells) if args.cells else None
        rounds = [{side: measure(side, folder, split) for side in args.sides} for _ in range(args.repeats)]
        for side in args.sides:
            found = [one[side] for one in rounds]
            rates = [statistics.median(one["cells"] / one[unit] for one in found) for unit in ("seconds", "processor")]
            line = f"{side:10}  {rates[0]:6.0f} cells/s   {rates[1]:6.0f} cells a processor second"
            if "now" in args.sides:
                ratios = [
                    statistics.median(one[side][unit] / one["now"][unit] for one in rounds)
                    for unit in ("seconds", "processor")
                ]
                line += f"   now is {ratios[0]:.2f} times as fast, {ratios[1]:.2f} by processor time"
            print(line, flush=True)


if __name__ == "__main__":
    main()
