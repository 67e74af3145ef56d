"""The folder of an evidence run: laid out as `state tx train` lays out its own, so that every command takes it."""

import logging
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from state_rag import __version__
from state_rag.contract.identity import Identity, spaces_used
from state_rag.datasets.splitting.split_copy import write_split_tables
from state_rag.engine.knowledge import write_sources
from state_rag.errors import StateRagError
from state_rag.evidence.estimator import Evidence
from state_rag.files import atomic_path, damage_told, read_text
from state_rag.names.matching import OtherName, other_name_of, write_other_names
from state_rag.names.treatments import name_in
from state_rag.run_folders import CONFIG, SPLIT
from state_rag.torch_files import read_torch

logger = logging.getLogger(__name__)

MODEL = "evidence"
"""`model.name` in the configuration of such a run."""
CHECKPOINT = "last.ckpt"
KEY = "state_rag"
FORMAT = 1


@dataclass(frozen=True)
class EvidenceRun:
    """A fitted engine with what it was fitted on.

    Attributes
    ----------
    engine
        The engine.
    config
        The run's configuration.
    identity
        Spaces, files and split; None for one fitted on effects alone.
    names
        Other names of its perturbations, by which they can be asked for too.
    """

    engine: Evidence
    config: dict[str, Any]
    identity: Identity | None
    names: tuple[OtherName, ...] = ()

    def __post_init__(self) -> None:
        bank = self.engine.bank
        bank.other_names = other_name_of(self.names, bank.names)
        bank.dose_unit = self.config.get("dose_unit")

    def own_name(self, perturbation: str) -> str:
        """Return what the run calls a perturbation, which is said where it is another name; an unknown one stays.

        Raises
        ------
        StateRagError
            If the run's labels tell modes, doses or times, and this is no such label.
        """
        if self.engine.bank.treatments is not None:
            own = self.engine.bank.own_label(perturbation)
            if name_in(own) != name_in(perturbation):
                logger.info("%s is %s in this run, another name of the same gene.", perturbation, own)
            return own
        own = self.engine.bank.called(perturbation)
        if own != perturbation:
            logger.info("%s is %s in this run, another name of the same gene.", perturbation, own)
        return own

    @property
    def data(self) -> dict[str, Any]:
        """The section `data.kwargs`."""
        return self.config.get("data", {}).get("kwargs", {})

    @property
    def key(self) -> str:
        """The matrix that is predicted: `X` or `obsm/NAME`."""
        return spaces_used(self.data.get("embed_key"), self.data.get("output_space"))[-1]


def is_evidence_run(config: Mapping[str, Any]) -> bool:
    """Tell whether a configuration is that of an evidence run."""
    return (config.get("model") or {}).get("name") == MODEL


def write_run(folder: str | os.PathLike[str], run: EvidenceRun, *, overwrite: bool = False) -> Path:
    """Write a run folder, whole or not at all.

    Raises
    ------
    StateRagError
        If there is something at that place, unless `overwrite` and it is an evidence run.
    """
    folder = Path(folder)
    refuse_existing(folder, overwrite)
    aside = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        (aside / "checkpoints").mkdir(parents=True)
        write_other_names(run.names, aside)
        write_sources(run.engine, run.config.get("sources") or {}, aside)
        (aside / CONFIG).write_text(yaml.safe_dump(run.config, sort_keys=False), encoding="utf-8")
        state: dict[str, Any] = {"format": FORMAT, "version": __version__, "evidence": run.engine.to_state()}
        if run.names:
            state["names"] = [list(one) for one in run.names]
        if run.identity is not None:
            state["data"] = run.identity.to_dict()
            run.identity.write(aside)
            if run.identity.split is not None:
                write_split_tables(aside / SPLIT, run.identity.split)
        with atomic_path(aside / "checkpoints" / CHECKPOINT) as temporary:
            torch.save({"state_dict": {}, KEY: state}, temporary)
        shutil.rmtree(folder, ignore_errors=True)
        aside.rename(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return folder


def refuse_existing(folder: Path, overwrite: bool) -> None:
    """Refuse to write over what is not an evidence run, and over one unless that is wanted.

    Raises
    ------
    StateRagError
        With what is there.
    """
    if folder.is_file():
        raise StateRagError(f"-o {folder} is a file, not a folder. Choose another place.")
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    own = (folder / CONFIG).is_file() and is_evidence_run(read_config(folder))
    if not own:
        raise StateRagError(f"-o {folder} is not empty, and no evidence run. Choose another place.")
    if not overwrite:
        raise StateRagError(f"-o {folder} holds an evidence run already. Choose another place, or add --overwrite.")


def read_config(folder: Path) -> dict[str, Any]:
    """Return a run's configuration."""
    path = folder / CONFIG
    with damage_told(path, "Fit the run again."):
        config = yaml.safe_load(read_text(path, "the configuration of a run"))
        if not isinstance(config, dict):
            raise ValueError("no configuration")
    return config


def read_run(folder: str | os.PathLike[str]) -> EvidenceRun:
    """Read an evidence run.

    Raises
    ------
    StateRagError
        If it is none, or damaged.
    """
    folder = Path(folder)
    config = read_config(folder)
    if not is_evidence_run(config):
        raise StateRagError(f"{folder} is no evidence run; make one with `state-rag evidence fit`.")
    path = folder / "checkpoints" / CHECKPOINT
    if not path.is_file():
        raise StateRagError(f"{path} is missing. Copy the whole run folder, or fit the run again.")
    saved = read_torch(path, "Fit the run again.")
    with damage_told(path, "Fit the run again."):
        state = saved[KEY]
        if state["format"] != FORMAT:
            raise StateRagError(
                f"{path} is of format {state['format']}; this version reads {FORMAT}. Update state-rag."
            )
        identity = Identity.from_dict(state["data"]) if "data" in state else None
        names = tuple(OtherName(*one) for one in state.get("names", ()))
        return EvidenceRun(Evidence.from_state(state["evidence"]), config, identity, names)
