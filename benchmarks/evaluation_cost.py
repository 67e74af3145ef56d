"""What an evaluation costs, and how that compares with gge-eval on the same conditions.

`python benchmarks/evaluation_cost.py` writes made-up cells (1,635 conditions of 60 real and 60 predicted cells of
2,000 genes) to a temporary folder, evaluates every metric, and prints seconds and peak memory; then it times gge-eval
1.0.1 and our W2 side by side on a subset of the same conditions, one thread each, and prints the ratio.

`--total-cells 1000000` writes files of that many cells instead (eight cell lines, conditions of `--cells` cells, dense
as STATE writes them: 8 GB each; `--density 0.05` writes CSR) and evaluates those. `--folder` says where to.

`--training-conditions 8000` measures what `state-rag evaluate` does instead: a whole run folder, with all naive
baselines from a training file of so many conditions in four cell lines, and 1,536-wide embeddings for the ridge.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterable
from pathlib import Path

import h5py
import numpy as np
from scipy import sparse

CONTROL = "non-targeting"


def write_cells(folder: Path, conditions: int, cells: int, genes: int, controls: int = 600) -> None:
    """Write `adata_pred.h5ad` and `adata_real.h5ad`, condition by condition."""
    import anndata as ad
    import pandas as pd

    rng = np.random.default_rng(0)
    # No gene is silent: on a constant gene gge-eval's W2 fails.
    base = 0.1 + rng.gamma(1, 0.7, genes)
    rows = conditions * cells + controls
    labels = np.repeat([f"P{number}" for number in range(conditions)], cells).tolist() + [CONTROL] * controls
    obs = pd.DataFrame({"gene": labels, "cell_line": "hepg2"}, index=[str(number) for number in range(rows)])
    for name in ("adata_real.h5ad", "adata_pred.h5ad"):
        ad.AnnData(shape=(rows, genes), obs=obs).write_h5ad(folder / name)
        with h5py.File(folder / name, "a") as file:
            if "X" in file:
                del file["X"]
            data = file.create_dataset("X", (rows, genes), dtype="float32")
            data.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
            for start in range(0, rows, cells):
                number = min(cells, rows - start)
                own = np.random.default_rng([1, start // cells])
                effect = own.normal(0, 0.5, genes) * (own.random(genes) < 0.05) * (start < conditions * cells)
                rate = np.clip(base + effect, 0.05, None)
                data[start : start + number] = np.log1p(rng.poisson(2 * rate, (number, genes)) / 2)


def write_many_cells(folder: Path, total: int, cells: int, genes: int, density: float | None, lines: int = 8) -> None:
    """Write files of `total` cells in chunks: dense, or CSR with a share of `density` values that are not zero."""
    import anndata as ad
    import pandas as pd

    of_line = total // lines
    conditions = int(0.95 * of_line) // cells
    labels = [f"P{number}" for number in range(conditions) for _ in range(cells)]
    labels += [CONTROL] * (of_line - len(labels))
    obs = pd.DataFrame({"gene": labels * lines, "cell_line": np.repeat([f"line{n}" for n in range(lines)], of_line)})
    obs = obs.astype("category").set_axis([str(number) for number in range(len(obs))])
    rng = np.random.default_rng(0)
    rate = rng.gamma(1, 0.7, genes).astype(np.float32)
    for name in ("adata_real.h5ad", "adata_pred.h5ad"):
        ad.AnnData(shape=(len(obs), genes), obs=obs).write_h5ad(folder / name)
        with h5py.File(folder / name, "a") as file:
            if "X" in file:
                del file["X"]
            chunks = (min(8192, len(obs) - start) for start in range(0, len(obs), 8192))
            blocks = (rng.standard_exponential((n, genes), dtype=np.float32) * rate for n in chunks)
            if density is None:
                _write_dense(file, blocks, (len(obs), genes))
            else:
                thinned = (block * (rng.random(block.shape, dtype=np.float32) < density) for block in blocks)
                _write_csr(file, thinned, (len(obs), genes))


def _write_dense(file: h5py.File, blocks: Iterable[np.ndarray], shape: tuple[int, int]) -> None:
    data = file.create_dataset("X", shape, dtype="float32")
    data.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
    start = 0
    for block in blocks:
        data[start : start + len(block)] = block
        start += len(block)


def _write_csr(file: h5py.File, blocks: Iterable[np.ndarray], shape: tuple[int, int]) -> None:
    group = file.create_group("X")
    group.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": shape})
    parts = {
        name: group.create_dataset(name, (0,), maxshape=(None,), chunks=(2**16,), dtype=dtype)
        for name, dtype in (("data", "float32"), ("indices", "int32"))
    }
    starts = [np.zeros(1, dtype=np.int64)]
    for block in blocks:
        sparse_block = sparse.csr_matrix(block)
        for name, part in parts.items():
            part.resize((part.shape[0] + sparse_block.nnz,))
            part[-sparse_block.nnz :] = getattr(sparse_block, name)
        starts.append(starts[-1][-1] + sparse_block.indptr[1:])
    group.create_dataset("indptr", data=np.concatenate(starts))


def write_run(folder: Path, training: int, conditions: int, cells: int, genes: int, lines: int = 4) -> None:
    """Write a run folder with predictions, and beside it training data of so many conditions and embeddings."""
    import anndata as ad
    import pandas as pd

    of_line, few = training // lines, 10
    rng = np.random.default_rng(2)
    vectors = {f"P{number}": rng.normal(size=1536).astype(np.float32) for number in range(max(of_line, conditions))}
    np.savez(folder / "embeddings.npz", **vectors)
    labels = [f"P{number}" for number in range(of_line) for _ in range(few)] + [CONTROL] * 200
    obs = pd.DataFrame(
        {"gene": labels * lines, "cell_line": np.repeat([f"line{n}" for n in range(lines)], len(labels))}
    )
    obs = obs.set_axis([str(number) for number in range(len(obs))])
    ad.AnnData(shape=(len(obs), genes), obs=obs).write_h5ad(folder / "training.h5ad")
    with h5py.File(folder / "training.h5ad", "a") as file:
        if "X" in file:
            del file["X"]
        chunks = (min(8192, len(obs) - start) for start in range(0, len(obs), 8192))
        _write_dense(file, (rng.standard_exponential((n, genes), dtype=np.float32) for n in chunks), (len(obs), genes))
    (folder / "split.toml").write_text(
        f'[datasets]\nscreen = "{folder / "training.h5ad"}"\n[training]\nscreen = "train"\n'
    )
    run = folder / "run"
    (run / "eval_last.ckpt").mkdir(parents=True)
    (run / "config.yaml").write_text(
        json.dumps(
            {
                "name": "benchmark",
                "data": {"kwargs": {"toml_config_path": str(folder / "split.toml")}},
                "training": {"genept_path": str(folder / "embeddings.npz")},
            }
        )
    )
    write_cells(run / "eval_last.ckpt", conditions, cells, genes)


def evaluate_command(run: Path, device: str) -> dict[str, float]:
    """Do in this process what `state-rag evaluate` does; return seconds and peak memory in GiB."""
    import resource

    from state_rag.evaluation.evaluate import Settings
    from state_rag.evaluation.results import load_tables
    from state_rag.evaluation.run_evaluation import evaluate_run
    from state_rag.evaluation.runs import find_run

    start = time.perf_counter()
    results = evaluate_run(find_run(run), settings=Settings(device=device), with_evidence=False, progress=False)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    predictors = load_tables(results)[1]["predictor"].nunique()
    return {"seconds": seconds, "gib": peak, "baselines": predictors}


def evaluate_ours(folder: Path, device: str, only: list[str] | None = None) -> dict[str, float]:
    """Evaluate in this process; return seconds and peak memory in GiB."""
    import resource

    from state_rag.effects.conditions import Columns, open_pair
    from state_rag.evaluation.evaluate import Settings, evaluate_pair
    from state_rag.metrics.registry import choose

    start = time.perf_counter()
    pair = open_pair(folder / "adata_pred.h5ad", folder / "adata_real.h5ad", Columns())
    result = evaluate_pair(pair, metrics=choose(only), settings=Settings(device=device), progress=only is None)
    seconds = time.perf_counter() - start
    missing = int(result.model()[[metric.name for metric in result.metrics]].isna().sum().sum())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"seconds": seconds, "gib": peak, "conditions": pair.n_conditions, "missing": missing}


def in_a_process(folder: Path, device: str, only: list[str] | None = None, what: str = "--measure") -> dict[str, float]:
    """Run `evaluate_ours` (or `evaluate_command`) in a process of its own: peak memory is then its alone."""
    command = [sys.executable, __file__, what, str(folder), "--device", device, "--only", *(only or [])]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def time_side_by_side(folder: Path, subset: int) -> dict[str, float]:
    """Return seconds a condition, on cells in memory, of W2 in PCA-50 here and in gge-eval, and of its defaults."""
    import torch
    from gge import MultivariateWasserstein, Wasserstein2Distance
    from gge.evaluator import DEFAULT_METRICS

    from state_rag.effects.conditions import Columns, open_pair
    from state_rag.metrics.distances import wasserstein_2
    from state_rag.metrics.pca import fit_pca

    pair = open_pair(folder / "adata_pred.h5ad", folder / "adata_real.h5ad", Columns())
    conditions = next(iter(pair.lines.values()))[:subset]
    cells = [(pair.read_real(one.real), pair.read_predicted(one.predicted)) for one in conditions]
    space = fit_pca([real for real, _ in cells])
    seconds = {}
    torch.set_num_threads(1)
    for _ in range(2):  # the first pass warms up
        start = time.perf_counter()
        real, predicted = (torch.from_numpy(np.stack([space.project(pair[side]) for pair in cells])) for side in (0, 1))
        sizes = torch.full((len(cells),), real.shape[1])
        wasserstein_2(real, predicted, sizes, sizes)
        seconds["ours"] = (time.perf_counter() - start) / len(cells)
    chosen = {
        "its W2, component by component": Wasserstein2Distance(space="pca", n_components=50),
        "its multivariate W2": MultivariateWasserstein(space="pca", n_components=50),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, metric in chosen.items():
            metric.compute(*cells[0])
            start = time.perf_counter()
            for real_cells, predicted_cells in cells:
                metric.compute(real_cells, predicted_cells)
            seconds[name] = (time.perf_counter() - start) / len(cells)
        start = time.perf_counter()
        for metric_class in DEFAULT_METRICS:
            metric_class().compute(*cells[0])
        seconds["its default metrics (in genes)"] = time.perf_counter() - start
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--conditions", type=int, default=1635)
    parser.add_argument("--cells", type=int, default=60)
    parser.add_argument("--genes", type=int, default=2000)
    parser.add_argument("--gge-conditions", type=int, default=32, help="conditions timed side by side")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--total-cells", type=int, help="evaluate files of so many cells, and do nothing else")
    parser.add_argument("--density", type=float, help="with --total-cells: CSR files with this share of values")
    parser.add_argument("--metrics", nargs="+", help="with --total-cells: only these metrics")
    parser.add_argument("--folder", type=Path, help="where the temporary folder is made (default: the system's place)")
    parser.add_argument("--training-conditions", type=int, help="the command with baselines from so much training data")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--measure-command", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--only", nargs="*", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(evaluate_ours(args.measure, args.device, args.only or None)))
        return
    if args.measure_command:
        print(json.dumps(evaluate_command(args.measure_command, args.device)))
        return
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = Path(name)
        if args.total_cells:
            start = time.perf_counter()
            write_many_cells(folder, args.total_cells, args.cells, args.genes, args.density)
            size = sum(path.stat().st_size for path in folder.iterdir()) / 2**30
            print(f"written: {size:.1f} GiB in {time.perf_counter() - start:.0f} s", flush=True)
            full = in_a_process(folder, args.device, args.metrics)
            print(
                f"{len(args.metrics or []) or 'all'} metrics, two files of {args.total_cells} cells x {args.genes} "
                f"genes, {full['conditions']} conditions: {full['seconds']:.0f} s, peak {full['gib']:.2f} GiB, "
                f"{full['missing']} missing values"
            )
            return
        if args.training_conditions:
            write_run(folder, args.training_conditions, args.conditions, args.cells, args.genes)
            full = in_a_process(folder / "run", args.device, what="--measure-command")
            print(
                f"state-rag evaluate, {args.conditions} conditions of {args.cells} + {args.cells} cells x {args.genes} "
                f"genes, {full['baselines']} baselines from {args.training_conditions} training conditions: "
                f"{full['seconds']:.0f} s, peak {full['gib']:.3f} GiB"
            )
            return
        write_cells(folder, args.conditions, args.cells, args.genes)
        full = in_a_process(folder, args.device)
        alone = in_a_process(folder, args.device, ["w2_pca50"])
        side = time_side_by_side(folder, args.gge_conditions)
    shape = f"{args.conditions} conditions of {args.cells} + {args.cells} cells x {args.genes} genes"
    print(f"all metrics, {shape}:")
    print(f"  {full['seconds']:.1f} s, peak {full['gib']:.2f} GiB, {full['missing']} missing values")
    print(f"W2 in PCA-50 alone, all conditions, reading and PCA included: {alone['seconds']:.1f} s")
    print(f"One thread, cells in memory, PCA fitted, {args.gge_conditions} of these conditions, a condition each:")
    print(f"  our W2 in PCA-50: {side['ours'] * 1e3:.2f} ms")
    for what, seconds in side.items():
        if "W2" in what:
            print(f"  gge-eval, {what}: {seconds * 1e3:.0f} ms, {seconds / side['ours']:.0f} times ours")
    whole = side["its default metrics (in genes)"]
    ratio = whole / (full["seconds"] / args.conditions)
    print(f"  gge-eval, its default metrics (in genes): {whole * 1e3:.0f} ms, {ratio:.0f} times all of ours from disk")


if __name__ == "__main__":
    main()
