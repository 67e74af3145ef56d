"""Costs that no machine changes: operations, arithmetic, memory and reads. A test refuses that they grow.

A kernel is an operation that computes or copies, as PyTorch's dispatcher sees it below autograd; views are none, and
what is done on the CPU whatever the model's device is left out. On a GPU each is at least one launch. Sizes are those
of the published model with fewer and smaller sets, for time: how many operations there are does not depend on these.
The selector scores in one block, as it would 64 sets of 64 cells on a GPU.

Of reads, the bytes that an h5ad file is asked for: by `training_effects`, over those of its matrix; and by sets of
cells that are predicted, over those of these cells (a control each is read beside them, the same ones once).

    python -m benchmarks.counts [--write]      # --write accepts what is counted now
"""

import argparse
import contextlib
import json
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks import forward_cost
from state_rag.contract.matrices import DenseFileRows
from state_rag.retrieval import knowledge, retriever, scoring
from state_rag.retrieval.knowledge import Knowledge
from state_rag.retrieval.neighbour_table import NeighbourTable
from state_rag.upstream.swap import replaced

EXPECTED = Path(__file__).with_name("counts.json")
TOLERANCE = 0.01
"""What a count may grow by."""
SETS, CELLS = 8, 8
PUBLISHED = {"rag_fusion": "replace", "rag_score_similarity": False, "rag_query_dropout": 0.0}
"""What the paper's method is without; `forward_cost` has the flags of `rag=ptrag`."""
SCREEN, GENES = 2000, 64
COLUMNS = {"pert_col": "gene", "cell_type_key": "line", "batch_col": "batch", "control_pert": "non-targeting"}
FREE = {"detach", "empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided", "_local_scalar_dense"}


class Operations(TorchDispatchMode):
    """Counts operations by name, and the bytes of what they return."""

    def __init__(self) -> None:
        super().__init__()
        self.kernels: Counter[str] = Counter()
        self.on_host = False
        self.allocations = self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count an operation and run it."""
        given = {_storage(one) for one in _tensors((args, kwargs))}
        found = func(*args, **(kwargs or {}))
        new = {_storage(one): one for one in _tensors(found) if _storage(one) not in given}
        name = func.overloadpacket.__name__
        writes = any(one.alias_info is not None and one.alias_info.is_write for one in func._schema.arguments)
        if self.on_host:
            return found
        if name not in FREE and (new or writes):
            self.kernels[name] += 1
        self.allocations += len(new)
        self.bytes += sum(one.untyped_storage().nbytes() for one in new.values())
        return found


def _tensors(values: Any) -> Iterator[torch.Tensor]:
    return (one for one in torch.utils._pytree.tree_leaves(values) if isinstance(one, torch.Tensor))


def _storage(value: torch.Tensor) -> int:
    return value.untyped_storage()._cdata


HOST = (
    (Knowledge, "index_of"),
    (knowledge, "all_known"),
    (NeighbourTable, "places"),
    (NeighbourTable, "at"),
    (retriever, "distinct"),
    (scoring, "draw_seed"),
)
"""What is done on the CPU whatever the model's device is; it is left out."""


@contextlib.contextmanager
def host_apart(seen: Operations) -> Iterator[None]:
    """Leave what the host does out of a count."""
    with contextlib.ExitStack() as stack:
        for owner, name in HOST:
            stack.enter_context(replaced(owner, name, _apart(getattr(owner, name), seen)))
        yield


def _apart(function: Any, seen: Operations) -> Any:
    def call(*args: Any, **kwargs: Any) -> Any:
        before, seen.on_host = seen.on_host, True
        try:
            return function(*args, **kwargs)
        finally:
            seen.on_host = before

    return call


def predict(model: torch.nn.Module, batch: dict) -> None:
    """Pass forward as prediction does."""
    with torch.no_grad():
        model.eval()(batch)


def forward(model: torch.nn.Module, batch: dict) -> None:
    """Pass forward as training does."""
    with torch.no_grad():
        model.train()(batch)


def step(model: torch.nn.Module, batch: dict) -> None:
    """Take a training step, without the optimiser."""
    model.train().training_step(batch, 0).backward()


PASSES = {"predict": predict, "forward": forward, "step": step}


def operations(model: torch.nn.Module, batch: dict, run: Callable[[torch.nn.Module, dict], None]) -> Operations:
    """Count what `run` does."""
    model.zero_grad(set_to_none=True)
    with Operations() as seen, host_apart(seen), replaced(scoring, "CPU_BLOCK_ELEMENTS", 2**30):
        run(model, batch)
    return seen


def models() -> dict[str, float]:
    """Count STATE, and PT-RAG with the flags of the preset and of the paper, by name."""
    with (
        replaced(forward_cost, "SETS", SETS),
        replaced(forward_cost, "SET_SIZE", CELLS),
        replaced(forward_cost, "MODEL", {**forward_cost.MODEL, "cell_set_len": CELLS}),
        replaced(forward_cost, "BACKBONE", {**forward_cost.BACKBONE, "max_position_embeddings": CELLS}),
    ):
        theirs, ours, batch = forward_cost.build("cpu")
        _, paper, _ = forward_cost.build("cpu", PUBLISHED)
    found: dict[str, float] = {}
    for name, model in (("state", theirs), ("ptrag", ours), ("ptrag-paper", paper)):
        for what, run in PASSES.items():
            seen = operations(model, batch, run)
            found[f"{name}/{what}/kernels"] = sum(seen.kernels.values())
            found[f"{name}/{what}/allocations"] = seen.allocations
            found[f"{name}/{what}/bytes"] = seen.bytes
        found[f"{name}/forward/flops"] = forward_cost.flops(model, batch)
    return found


@contextlib.contextmanager
def bytes_of_rows() -> Iterator[list[int]]:
    """Collect the bytes of every read of consecutive rows."""
    read: list[int] = []
    fill = DenseFileRows._fill

    def counted(rows: DenseFileRows, out: np.ndarray, first: int) -> None:
        read.append(out.nbytes)
        fill(rows, out, first)

    with replaced(DenseFileRows, "_fill", counted):
        yield read


def effects(folder: Path, screen: Path) -> dict[str, float]:
    """Count the bytes that a pass over training cells reads of an h5ad file, for each byte of its matrix."""
    from state_rag.datasets.splitting.split_toml import read_split
    from state_rag.effects.conditions import Columns
    from state_rag.effects.training_effects import training_effects

    toml = folder / "all.toml"
    toml.write_text(f'[datasets]\ns = "{screen}"\n[training]\ns = "train"\n[zeroshot]\n[fewshot]\n')
    # sums that an earlier pass has kept would be read in place of cells
    with mock.patch.dict(os.environ, STATE_RAG_CACHE=str(folder)), bytes_of_rows() as read:
        training_effects(read_split(toml), Columns.of(COLUMNS), "X", GENES, progress=False)
    return {"effects/bytes read": sum(read) / (SCREEN * GENES * 4)}


def prediction(folder: Path, screen: Path) -> dict[str, float]:
    """Count the bytes that sets of cells to be predicted are read with, for each byte of these cells."""
    from state_rag.upstream.data_module import LimitedDataModule
    from state_rag.upstream.sets.set_reader import SetReader

    toml = folder / "test.toml"
    toml.write_text(
        f'[datasets]\ns = "{screen}"\n[training]\ns = "train"\n[zeroshot]\n[fewshot."s.rpe1"]\ntest = ["A", "C"]\n'
    )
    np.random.seed(0)
    module = LimitedDataModule(
        toml_config_path=str(toml), embed_key="X_hvg", batch_size=1, num_workers=0, cell_sentence_len=64, **COLUMNS
    )
    module.setup()
    loader = module.test_dataloader()
    sets = list(loader.batch_sampler)
    with bytes_of_rows() as read:
        reader = SetReader(loader)
        for few in range(0, len(sets), 4):
            reader.read(sets[few : few + 4])
    return {"prediction/bytes read": sum(read) / (sum(map(len, sets)) * GENES * 4)}


def reads() -> dict[str, float]:
    """Count what is read of a small screen."""
    import anndata
    import pandas as pd

    with tempfile.TemporaryDirectory() as name:
        screen = Path(name) / "screen.h5ad"
        labels = {
            "gene": ["A", "B", "non-targeting", "C"] * (SCREEN // 4),
            "line": ["k562"] * (SCREEN // 2) + ["rpe1"] * (SCREEN // 2),
            "batch": "1",
        }
        obs = pd.DataFrame(labels, index=[str(number) for number in range(SCREEN)]).astype("category")
        values = np.random.default_rng(0).random((SCREEN, GENES), dtype=np.float32)
        anndata.AnnData(values, obs=obs, obsm={"X_hvg": values}).write_h5ad(screen)
        return {**effects(Path(name), screen), **prediction(Path(name), screen)}


def counts() -> dict[str, float]:
    """Count everything."""
    torch.manual_seed(0)
    return {**models(), **reads()}


def expected() -> Mapping[str, Mapping[str, float]]:
    """Return what was accepted, by version of torch (`2.7`)."""
    return json.loads(EXPECTED.read_text())


def version() -> str:
    """Return the version of torch that counts depend on."""
    return ".".join(torch.__version__.split(".")[:2])


def grown(now: Mapping[str, float], accepted: Mapping[str, float]) -> list[str]:
    """Say what costs more than was accepted, or was never counted before."""
    found = []
    for name, value in now.items():
        if name not in accepted:
            found.append(f"{name} is {value:g}, and was not counted before")
        elif value > accepted[name] * (1 + TOLERANCE):
            by = 100 * (value / accepted[name] - 1) if accepted[name] else float("inf")
            found.append(f"{name} has grown from {accepted[name]:g} to {value:g} (+{by:.1f} %)")
    return found


def main() -> None:
    """Count and print; accept with ``--write``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write counts.json")
    args = parser.parse_args()
    now, accepted = counts(), dict(expected()) if EXPECTED.exists() else {}
    for name, value in now.items():
        state = now.get("state" + name[name.find("/") :])
        ratio = f"   {value / state:.3f} of STATE's" if state and not name.startswith("state/") else ""
        print(f"{name:32}{value:16,.6g}{ratio}")
    for line in grown(now, accepted.get(version(), {})):
        print(line)
    if args.write:
        accepted[version()] = now
        EXPECTED.write_text(json.dumps(accepted, indent=2, sort_keys=True) + "\n")
        print(f"{EXPECTED}: written for torch {version()}")


if __name__ == "__main__":
    main()
