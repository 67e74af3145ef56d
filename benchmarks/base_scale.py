"""What finding neighbours in a large base costs: every row compared, and the indexes of FAISS, with their recall.

    python benchmarks/base_scale.py --rows 100000
    python benchmarks/base_scale.py --rows 1000000 --vectors texts --backends exact faiss

`texts` are vectors like those of a language model: clusters in clusters of all sizes, a spectrum that falls as a power,
a common direction; `clusters` are balls of equal size; `gaussian` has no structure at all, which no index likes. The
base lies in a `.npy` file that is mapped, with names beside it; each row of the table is a process of its own, which
reads it, answers one query after another and says its largest memory, pages of the file among it. `faiss` is what
`LargeBase` does, `hnsw` a graph in FAISS for comparison, with `--links`, `--construction` and `--search`.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from state_rag.embeddings.readers import read_embeddings
from state_rag.retrieval.large_base import LargeBase
from state_rag.retrieval.neighbours import top_neighbours, unit

KINDS = ("texts", "clusters", "gaussian")
BACKENDS = ("exact", "faiss", "hnsw")


def main() -> None:
    """Write a base of each kind, and search it by each backend."""
    options = parse()
    if options.child:
        print(json.dumps(child(options)))
        return
    shown = Table(title=f"{options.rows:,} x {options.width}, K = {options.k}, {options.queries} queries")
    for column in ("vectors", "search", "read s", "build CPU s", "CPU ms a query", "recall", "looks at", "RSS GiB"):
        shown.add_column(column, justify="left" if column in ("vectors", "search") else "right")
    for kind in options.vectors:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            write_base(Path(folder), kind, options)
            for backend in options.backends:
                shown.add_row(kind, backend, *row_of(folder, backend))
    Console(width=120).print(shown)


def row_of(folder: str, backend: str) -> list[str]:
    """Return what a process of its own measured, as cells of the table."""
    given = [sys.executable, __file__, *sys.argv[1:], "--child", folder, backend]
    found = json.loads(subprocess.run(given, check=True, stdout=subprocess.PIPE, text=True).stdout)
    cells = [f"{found['read']:.1f}", f"{found['build']:.0f}", f"{found['query'] * 1000:.2f}", f"{found['recall']:.4f}"]
    return [*cells, found["looks_at"], f"{found['memory']:.2f}"]


def write_base(folder: Path, kind: str, options: argparse.Namespace) -> None:
    """Write vectors in blocks, their names, and which of them ask with their true neighbours."""
    rng = np.random.default_rng(options.seed)
    shape = (options.rows, options.width)
    base = np.lib.format.open_memmap(folder / "base.npy", mode="w+", dtype=np.float32, shape=shape)
    draw = sampler(kind, options, rng)
    for start in track(range(0, options.rows, 20_000), f"writing {kind}"):
        base[start : start + 20_000] = draw(min(20_000, options.rows - start))
    base.flush()
    (folder / "base.names.txt").write_text("".join(f"P{row}\n" for row in range(options.rows)))
    asking = np.sort(rng.choice(options.rows, options.queries, replace=False))
    own = torch.from_numpy(asking)
    rows = torch.from_numpy(np.asarray(base))
    index, alike = top_neighbours(rows[own], rows, options.k, own)
    np.savez(folder / "truth.npz", asking=asking, least=alike[:, -1].numpy(), index=index.numpy())


def sampler(kind: str, options: argparse.Namespace, rng: np.random.Generator):  # noqa: ANN201
    """Return what draws some vectors of a kind, [N, D]."""
    width = options.width
    if kind == "gaussian":
        return lambda count: rng.standard_normal((count, width), dtype=np.float32)
    fine = max(options.rows // 50, 10)
    if kind == "clusters":
        centres = rng.standard_normal((fine, width), dtype=np.float32)
        return lambda count: (
            centres[rng.integers(0, fine, count)] + 0.5 * rng.standard_normal((count, width), dtype=np.float32)
        )
    spectrum = ((1 + np.arange(width)) ** -0.75).astype(np.float32)
    coarse = rng.standard_normal((max(options.rows // 2000, 10), width), dtype=np.float32)
    centres = coarse[rng.integers(0, len(coarse), fine)] + rng.standard_normal((fine, width), dtype=np.float32)
    sizes = rng.pareto(1.5, fine) + 0.1
    common = 2 * rng.standard_normal(width, dtype=np.float32)

    def draw(count: int) -> np.ndarray:
        own = 0.8 * rng.standard_normal((count, width), dtype=np.float32)
        return (centres[rng.choice(fine, count, p=sizes / sizes.sum())] + own + common) * spectrum

    return draw


def child(options: argparse.Namespace) -> dict:
    """Read the base, build what a backend needs, ask; return seconds, recall and memory."""
    folder, backend = Path(options.child[0]), options.child[1]
    truth = np.load(folder / "truth.npz")
    start = time.perf_counter()
    table = read_embeddings(folder / "base.npy")
    read = time.perf_counter() - start
    base = torch.from_numpy(table.vectors)
    own = torch.from_numpy(truth["asking"])
    ask, looks_at, build = searcher(backend, base, options)
    found, query = [], []
    for row in own:
        start = time.process_time()
        found.append(ask(base[row][None], row[None]))
        query.append(time.process_time() - start)
    index = torch.cat(found)
    chosen = torch.einsum("qd,qkd->qk", unit(base[own]), unit(base[index].flatten(0, 1)).view(*index.shape, -1))
    hits = chosen >= torch.from_numpy(truth["least"])[:, None].double() - 1e-6
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    recall = float(hits.double().mean())
    return dict(read=read, build=build, query=float(np.median(query)), recall=recall, looks_at=looks_at, memory=memory)


def searcher(backend: str, base: torch.Tensor, options: argparse.Namespace):  # noqa: ANN201
    """Return what answers a query, what it looks at, and CPU seconds of building it."""
    start = time.process_time()
    if backend == "hnsw":
        import faiss

        index = faiss.IndexHNSWFlat(options.width, options.links, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction, index.hnsw.efSearch = options.construction, options.search
        for first in range(0, len(base), 20_000):
            index.add(unit(base[first : first + 20_000]).float().numpy())

        def ask(query: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
            found = torch.from_numpy(index.search(unit(query).float().numpy(), options.k + 1)[1])
            return found[found != own].view(1, -1)[:, : options.k]

        return ask, f"{options.links} links, {options.search} kept", time.process_time() - start
    large = LargeBase(base, options.k, backend)
    if backend == "faiss":
        large.nearest(base[:1], torch.tensor([0]))  # builds it
    looks_at = "all" if large.cells is None else f"{large.cells} cells"
    return lambda query, own: large.nearest(query, own)[0], looks_at, time.process_time() - start


def parse() -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--k", type=int, default=32)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--vectors", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=BACKENDS)
    parser.add_argument("--links", type=int, default=32, help="HNSW: links of a row")
    parser.add_argument("--construction", type=int, default=80, help="HNSW: candidates while it is built")
    parser.add_argument("--search", type=int, default=128, help="HNSW: candidates of a query")
    parser.add_argument("--folder", help="where the base is written (default: the system's temporary folder)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--child", nargs=2, metavar=("FOLDER", "BACKEND"), help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
