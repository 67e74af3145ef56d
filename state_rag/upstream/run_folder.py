"""Find a run's folder and read what it holds, before STATE does."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from state_rag.errors import StateRagError
from state_rag.files import close_to_missing, read_text
from state_rag.run_folders import CONFIG, find_run_folder
from state_rag.settings import RagSettings
from state_rag.torch_files import read_torch


@dataclass(frozen=True)
class Run:
    """A run folder and its configuration.

    Attributes
    ----------
    folder
        The folder that holds ``config.yaml``, wherever it lies now.
    config
        What ``config.yaml`` says; its `output_dir` may be where the run lay when it was trained.
    settings
        The flags of retrieval that it was trained with.
    """

    folder: Path
    config: dict[str, Any]
    settings: RagSettings

    @property
    def data(self) -> dict[str, Any]:
        """The section ``data.kwargs``."""
        return self.config["data"]["kwargs"]

    @property
    def control(self) -> str:
        """Name of the control perturbation."""
        return str(self.data.get("control_pert", "non-targeting"))

    @property
    def has_moved(self) -> bool:
        """Whether the configuration names another folder than the one it lies in."""
        named = Path(str(self.config.get("output_dir", ""))) / str(self.config.get("name", ""))
        return named.resolve() != self.folder.resolve()


def find_run(folder: str | Path, flag: str = "--output-dir") -> Run:
    """Read the run in `folder`, or the only run in a folder right below it.

    Raises
    ------
    StateRagError
        If there is no run, or more than one.
    """
    return read_run(find_run_folder(folder, flag))


def read_run(folder: Path) -> Run:
    """Read ``config.yaml`` in `folder`."""
    path = folder / CONFIG
    text = read_text(path, "the configuration of a `state tx train` run")
    try:
        config = yaml.safe_load(text)
        data = config["data"]["kwargs"]
    except (yaml.YAMLError, KeyError, TypeError) as error:
        raise StateRagError(f"{path} is not the configuration of a `state tx train` run ({error}).") from error
    assert isinstance(data, dict)
    return Run(folder, config, RagSettings.from_mapping(config.get("training") or {}))


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint without unpickling code.

    Raises
    ------
    StateRagError
        If the file is missing, damaged, or holds more than tensors and plain types.
    """
    if not path.is_file():
        found = ", ".join(sorted(other.name for other in path.parent.glob("*.ckpt"))) or "none"
        close = close_to_missing(path, (".ckpt",))
        raise StateRagError(
            f"There is no checkpoint {path}. In that folder: {found}{close}. Choose one with --checkpoint."
        )
    checkpoint = read_torch(path, "Use another checkpoint of the run, or train again.")
    if "state_dict" not in checkpoint:
        raise StateRagError(f"{path} is not a Lightning checkpoint: it has no state_dict.")
    return checkpoint
