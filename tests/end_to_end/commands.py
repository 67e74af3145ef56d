"""STATE's real commands in subprocesses, on a screen that trains in seconds."""

import os
import resource
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.end_to_end.fork_server import ForkServer

SCREEN = {
    "n_perturbations": 24,
    "n_modules": 6,
    "n_genes": 60,
    "n_hvgs": 40,
    "cells_per_condition": 16,
    "controls_per_line": 48,
    "gem_groups_per_line": 2,
    "lines": ("k562", "rpe1", "hepg2"),
    "embedding_width": 24,
}

TINY_MODEL = (
    "model.kwargs.cell_set_len=16",
    "model.kwargs.hidden_dim=32",
    "model.kwargs.transformer_backbone_kwargs.intermediate_size=64",
    "model.kwargs.transformer_backbone_kwargs.num_hidden_layers=2",
    "model.kwargs.transformer_backbone_kwargs.num_attention_heads=2",
    "model.kwargs.transformer_backbone_kwargs.num_key_value_heads=2",
    "model.kwargs.transformer_backbone_kwargs.head_dim=16",
)
SHORT = (
    "use_wandb=false",
    "data.kwargs.num_workers=0",
    "training.batch_size=8",
    "training.max_steps=12",
    "training.val_freq=6",
    "+training.log_every_n_steps=2",
)
REPLOGLE_COLUMNS = (
    "data.kwargs.embed_key=X_hvg",
    "data.kwargs.output_space=gene",
    "data.kwargs.pert_col=gene",
    "data.kwargs.cell_type_key=cell_line",
    "data.kwargs.batch_col=gem_group",
    "data.kwargs.control_pert=non-targeting",
)
"""What `data=replogle` says, for a STATE that does not know the name."""

STATE = (str(Path(sys.executable).with_name("state")),)
STATE_MODULE = (sys.executable, "-m", "state.__main__")
LIMIT = 300
"""Seconds that a command may take."""
OURS = (str(Path(sys.executable).with_name("state-rag")),)
OUR_MODULE = (sys.executable, "-m", "state_rag")


@dataclass(frozen=True)
class Project:
    """A folder with `screen/` (simulated) and `split.toml` (hepg2 held out)."""

    folder: Path

    @property
    def h5ad(self) -> Path:
        return self.folder / "screen" / "screen.h5ad"

    @property
    def embeddings(self) -> Path:
        return self.folder / "screen" / "embeddings.safetensors"

    @property
    def split(self) -> Path:
        return self.folder / "split.toml"

    def train(self, name: str, *overrides: str, model: str = "rag", data: str = "replogle") -> list[str]:
        """Arguments of a training that lasts a few seconds; later `overrides` win."""
        given = {override.partition("=")[0].lstrip("+") for override in overrides}
        usual = (
            *SHORT,
            *TINY_MODEL,
            f"data.kwargs.toml_config_path={self.split}",
            "output_dir=runs",
            f"name={name}",
        )
        kept = [override for override in usual if override.partition("=")[0].lstrip("+") not in given]
        return ["tx", "train", f"model={model}", f"data={data}", *kept, *overrides]

    def train_rag(self, name: str, *overrides: str, model: str = "rag") -> list[str]:
        """The same with retrieval and the screen's embeddings."""
        given = {override.partition("=")[0] for override in overrides}
        usual = {"training.topk_rag": "8", "training.genept_path": str(self.embeddings)}
        if "rag" not in given and "training.rag" not in given:
            usual["training.rag"] = "true"
        added = [f"{key}={value}" for key, value in usual.items() if key not in given]
        return self.train(name, *added, *overrides, model=model)


def run(
    arguments: Sequence[str],
    cwd: Path,
    *,
    via: Sequence[str] = STATE,
    env: Mapping[str, str] | None = None,
    check: bool = True,
    file_limit: int | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a command; with `file_limit` (bytes) writing beyond it fails as on a full disk.

    Console scripts run in a fork of a Python that has imported the large libraries, modules in a process of their own.
    """
    environment = {**own_environment(), **(env or {})}
    finished = None
    if via in (STATE, OURS) and file_limit is None:
        finished = fork_server().run(via[0], arguments, cwd, environment, LIMIT)
    if finished is None:
        finished = _in_a_process([*via, *arguments], cwd, environment, file_limit)
    if check and finished.returncode:
        tail = f"{finished.stdout[-2000:]}\n{finished.stderr[-6000:]}"
        raise AssertionError(f"{' '.join([*via, *arguments])} ended with {finished.returncode}:\n{tail}")
    return finished


def own_environment() -> dict[str, str]:
    """Return this process's variables, without that of a W&B service that a test has started in it."""
    return {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}


@cache
def fork_server() -> ForkServer:
    """Return the server of this process, started when it is first needed."""
    return ForkServer([STATE[0], OURS[0]])


def _in_a_process(
    command: Sequence[str], cwd: Path, environment: Mapping[str, str], file_limit: int | None
) -> subprocess.CompletedProcess[str]:

    def limit() -> None:
        if file_limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))

    return subprocess.run(
        list(command),
        cwd=cwd,
        env=dict(environment),
        preexec_fn=limit,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )


def the_error(stderr: str) -> str:
    """Return the one error message, having checked that it is one, stands last and comes without a traceback."""
    assert "Traceback" not in stderr, stderr[-4000:]
    before, mark, message = stderr.partition("state-rag: error: ")
    assert mark, stderr[-4000:]
    assert mark not in message, stderr[-4000:]
    assert not before or before.endswith("\n"), stderr[-4000:]
    return message.strip()


def files_below(folder: Path) -> set[str]:
    """Relative names of all files below a folder."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
