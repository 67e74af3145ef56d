"""`state tx train` with `training.devices` above 1: one training in several processes.

STATE hands the number to Lightning and leaves it at that. Every process then writes the run folder (with
``overwrite=true`` the second one deletes what the first has written), its decoder's unused parameters stop the first
step, sets overlap, the best checkpoint is that on which all processes agree by chance, and a process that ends leaves
the others waiting for half an hour. Here the first process alone writes, and all come to what one would.
"""

import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from state_rag.errors import StateRagError
from state_rag.upstream.swap import replaced

logger = logging.getLogger(__name__)

DEFAULT_STRATEGIES = ("auto", "ddp")
"""Values of `training.strategy` for which ours is used; any other is the user's own."""
LOST_SIGNS = (
    "Connection closed by peer",
    "Connection reset by peer",
    "Connection refused",
    "Broken pipe",
    "Timed out waiting",
    "gloo/transport",
    "caused pair closure",
    "NCCL communicator was aborted",
    "NCCL error",
    "Socket Timeout",
    "wait timeout",
    "failed to recv",
    "DistNetworkError",
    "DistStoreError",
)
"""What gloo, NCCL and the store say, among other things, when another process does not answer."""
GRACE = 15.0
"""Seconds that the first process has to end by itself after another one has ended."""
PATIENCE = 5.0
"""Seconds that the others have to end by themselves after the first one has failed."""


def nodes() -> int:
    """Return how many nodes Slurm runs this command on; STATE has no setting of its own."""
    from lightning.pytorch.plugins.environments import SLURMEnvironment

    if not SLURMEnvironment.detect() or int(os.environ.get("SLURM_NTASKS", "1")) == 1:
        return 1
    return int(os.environ.get("SLURM_STEP_NUM_NODES") or os.environ.get("SLURM_NNODES") or 1)


def are_several(values: Mapping[str, Any]) -> bool:
    """Whether a configuration asks for more than one process."""
    devices = values["training"].get("devices", 1)
    if isinstance(devices, list | tuple):
        devices = len(devices)
    return str(devices) != "1" or nodes() > 1


def rank() -> int:
    """Return this process's number among those that Lightning, Slurm or torchrun started; 0 is the first."""
    from lightning.pytorch.utilities.rank_zero import rank_zero_only

    return int(getattr(rank_zero_only, "rank", 0) or 0)


def follows(values: Mapping[str, Any]) -> bool:
    """Whether this process is one of several, and not the first."""
    return are_several(values) and rank() > 0


@contextmanager
def place_of(cfg: DictConfig) -> Iterator[DictConfig]:
    """Yield the configuration for this process: the first one's own, for others one that writes nothing to keep.

    STATE writes side files in every process. Those of all but the first go to a temporary folder, where training finds
    the run's checkpoints again, so that all agree on where to go on from.
    """
    if not rank():
        yield cfg
        return
    threading.Thread(target=_watch_parent, args=(os.getppid(),), daemon=True).start()
    log = logging.getLogger("state_rag")
    level = log.level
    log.setLevel(logging.WARNING)  # the first process has said the rest
    values: Any = OmegaConf.to_container(cfg, resolve=True)
    own = OmegaConf.create(values)
    with tempfile.TemporaryDirectory(prefix="state-rag-process-") as folder:
        own.output_dir = folder
        (Path(folder) / own.name).mkdir(parents=True)
        own.use_wandb = False
        if not own.overwrite:
            _link_checkpoints(Path(cfg.output_dir) / cfg.name, Path(folder) / own.name)
        own.overwrite = False
        try:
            yield own
        finally:
            log.setLevel(level)


def _link_checkpoints(run: Path, own: Path) -> None:
    for name in ("last.ckpt", "final.ckpt"):
        if (path := run / "checkpoints" / name).is_file():
            (own / "checkpoints").mkdir(parents=True, exist_ok=True)
            (own / "checkpoints" / name).symlink_to(path.resolve())


@contextmanager
def one_training(values: Mapping[str, Any], folder: Path, wait_minutes: float) -> Iterator[None]:
    """Have STATE train in several processes as it would in one with the same global batch.

    Parameters
    ----------
    values
        The resolved configuration.
    folder
        The run folder, for messages.
    wait_minutes
        How long a process waits for the others.

    Raises
    ------
    StateRagError
        If another process ends, or does not answer for so long.
    """
    import lightning.pytorch as lightning
    from cell_load.data_modules import perturbation_dataloader
    from lightning.pytorch.strategies.launchers import subprocess_script

    from state_rag.upstream.training.one_trainer import OneTrainer
    from state_rag.upstream.training.sharded_sets import ShardedSets

    strategy = values["training"].get("strategy", "auto")
    if strategy in DEFAULT_STRATEGIES:
        OneTrainer.timeout = timedelta(minutes=wait_minutes)
    else:
        OneTrainer.timeout = None
        logger.warning(
            "training.strategy=%s is left as it is: what a mean or deviation is made over, and how long a process "
            "waits, is looked after with auto and ddp only.",
            strategy,
        )
    OneTrainer.nodes = nodes()

    started: list[subprocess.Popen] = []

    def watch(children: list[subprocess.Popen]) -> None:
        started.extend(children)
        threading.Thread(target=_watch, args=(children, folder), daemon=True).start()

    with (
        replaced(lightning, "Trainer", OneTrainer),
        replaced(perturbation_dataloader, "PerturbationBatchSampler", ShardedSets),
        replaced(subprocess_script, "_launch_process_observer", watch),
    ):
        try:
            yield
        except BaseException as error:
            _end(started)
            if not is_lost(error):
                raise
            if rank():
                raise SystemExit(1) from error  # the first process says what is to be said
            raise StateRagError(lost(folder)) from error


def _end(children: list[subprocess.Popen]) -> None:
    """Let processes that this one started end by themselves, and end those that do not."""
    until = time.monotonic() + PATIENCE
    for child in children:
        try:
            child.wait(max(until - time.monotonic(), 0))
        except subprocess.TimeoutExpired:
            child.kill()


def is_lost(error: BaseException) -> bool:
    """Whether an error says that another process has ended or does not answer."""
    text = f"{type(error).__name__}: {error}"
    return type(error).__name__.startswith("Dist") or any(sign in text for sign in LOST_SIGNS)


def lost(folder: Path) -> str:
    """Return what the first process says where another one is lost."""
    last = folder / "checkpoints" / "last.ckpt"
    go_on = f"{last} is whole: the same command" if last.is_file() else "There was no checkpoint yet: the same command"
    then = "goes on from it" if last.is_file() else "starts anew"
    return (
        "Another process of this training ended, or did not answer for training.rag_wait_minutes; its own message, if "
        f"it had one, stands above. {go_on} (without overwrite=true) {then}."
    )


def _watch_parent(parent: int) -> None:
    """End this process soon after the one that started it, in case it is not told by its communication."""
    while os.getppid() == parent:
        time.sleep(1)
    time.sleep(GRACE)
    os._exit(1)


def _watch(children: list[subprocess.Popen], folder: Path) -> None:
    """End this process soon after one that it started has failed, in case it is not told by its communication."""
    while True:
        time.sleep(1)
        codes = [child.poll() for child in children]
        if all(code == 0 for code in codes):
            return
        if any(codes):
            break
    time.sleep(GRACE)
    print(f"state-rag: error: {lost(folder)}", file=sys.stderr, flush=True)
    for child in children:
        child.send_signal(signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)
