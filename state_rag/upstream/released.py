"""Bring a checkpoint that the authors of PT-RAG released into a run folder that `state tx predict` accepts.

Their folder is a run of their fork: ``config.yaml``, ``data_module.torch``, checkpoints, and beside them the
knowledge base, ``pert_onehot_map.pt`` (name -> vector) and ``train_name_to_idx.pkl`` (name -> row).
"""

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from state_rag.checkpoint import CHECKPOINT_KEY, FORMAT, pack
from state_rag.embeddings.restricted_pickle import read_pickled_table
from state_rag.errors import StateRagError
from state_rag.files import atomic_path, close_to_missing, read_text
from state_rag.retrieval.knowledge import Knowledge
from state_rag.settings import RagSettings
from state_rag.torch_files import read_torch
from state_rag.upstream.authors import our_state
from state_rag.upstream.run_folder import read_checkpoint

logger = logging.getLogger(__name__)

FORK_DEFAULTS: dict[str, Any] = {
    "rag": False,
    "use_genept": False,
    "retrieve_than_predict": False,
    "differentiable_rag": False,
    "topk_rag": 5,
    "rag_weight": 0.0,
    "gumbel_sparsity_loss": False,
    "gumbel_sparsity_weight": 0.01,
}
"""What the fork takes for a flag that a configuration does not name (REFERENCE: its defaults)."""

FORK_BEHAVIOUR: dict[str, Any] = {"rag_fusion": "replace", "rag_score_scale": "batch", "rag_inference": "sample"}
"""What the fork always does and a flag decides here."""

COPIED = (
    "var_dims.pkl",
    "batch_onehot_map.torch",
    "batch_onehot_map.pkl",
    "cell_type_onehot_map.torch",
    "pert_onehot_map.pt",
)
"""Side files that STATE reads itself; copied byte for byte, not opened."""


def import_release(source: Path, target: Path) -> Path:
    """Write a run folder from a released one.

    Parameters
    ----------
    source
        Folder as released. It is not changed.
    target
        Run folder to make; must not exist.

    Returns
    -------
    pathlib.Path
        The run folder.

    Raises
    ------
    StateRagError
        If a file is missing or unusable, or the target exists. Nothing is written then.
    """
    if target.exists():
        raise StateRagError(f"{target} exists already. Name a new folder with --output.")
    config = _read_yaml(source / "config.yaml")
    flags = {
        name: value for name, value in (config.get("training") or {}).items() if name in RagSettings.__annotations__
    }
    settings = RagSettings.from_mapping({**FORK_DEFAULTS, **flags, **FORK_BEHAVIOUR})
    if settings.mode == "none":
        raise StateRagError(f"{source / 'config.yaml'} describes plain STATE, which `state tx predict` reads as it is.")
    control = str(config["data"]["kwargs"].get("control_pert", "non-targeting"))
    knowledge = read_released_knowledge(source, control)
    checkpoints = {
        path.name: path
        for folder in (source, source / "checkpoints")
        for path in sorted(folder.glob("*.ckpt"))
        if path.is_file()  # predictions lie in a folder that is called like a checkpoint
    }
    if not checkpoints:
        raise StateRagError(f"{source} holds no *.ckpt file, neither itself nor in checkpoints/.")
    converted = {name: convert(read_checkpoint(path), knowledge, settings) for name, path in checkpoints.items()}
    state = _read_beside(source / "data_module.torch")

    config["training"] = {**(config.get("training") or {}), **settings.to_dict()}
    config["output_dir"], config["name"] = str(target.resolve().parent), target.name
    for values in (config["data"]["kwargs"], state):
        values["perturbation_features_file"] = None
    staging = target.with_name(f".{target.name}.incomplete")
    try:
        (staging / "checkpoints").mkdir(parents=True)
        for name, checkpoint in converted.items():
            torch.save(checkpoint, staging / "checkpoints" / name)
        torch.save(state, staging / "data_module.torch")
        for name in COPIED:
            if (source / name).is_file():
                shutil.copyfile(source / name, staging / name)
        with atomic_path(staging / "config.yaml") as temporary:
            temporary.write_text(yaml.safe_dump(config, sort_keys=False))
        staging.rename(target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    logger.info("%d checkpoints, %d perturbations, method %s.", len(converted), len(knowledge.names), settings.mode)
    return target


def read_released_knowledge(source: Path, control: str) -> Knowledge:
    """Return the base of a released model in its own order, without the control and rows of zeros."""
    vectors = _read_beside(source / "pert_onehot_map.pt")
    path = source / "train_name_to_idx.pkl"
    rows = read_pickled_table(path, progress=False) if path.is_file() else {name: i for i, name in enumerate(vectors)}
    names = [str(name) for name in sorted(rows, key=lambda name: int(rows[name]))]
    lacking = [name for name in names if name not in vectors]
    if lacking:
        raise StateRagError(f"{path} names {len(lacking)} perturbations without a vector ({', '.join(lacking[:5])}).")
    names += [str(name) for name in vectors if str(name) not in set(names)]
    kept = [name for name in names if name != control and bool(torch.as_tensor(vectors[name]).any())]
    left_out = sorted(set(names) - set(kept))
    if left_out:
        logger.info("Left out of the base (control, or no embedding): %s.", ", ".join(left_out[:10]))
    return Knowledge(kept, {"text": torch.stack([torch.as_tensor(vectors[name]).float() for name in kept])})


def convert(checkpoint: Mapping[str, Any], knowledge: Knowledge, settings: RagSettings) -> dict[str, Any]:
    """Return a checkpoint of ours with a released one's weights; what only training needs is left out."""
    weights: dict[str, Tensor] = our_state(checkpoint["state_dict"])
    weights["state_rag_format"] = torch.tensor(FORMAT)
    if settings.mode == "differentiable":
        weights["selector.score_std"] = torch.ones(())
        weights["selector.score_batches"] = torch.zeros((), dtype=torch.long)
    parameters = dict(checkpoint["hyper_parameters"])
    parameters.update(settings.to_dict(), pert_dim=knowledge.width())
    return {
        "state_dict": weights,
        "hyper_parameters": parameters,
        "pytorch-lightning_version": checkpoint.get("pytorch-lightning_version", "2.0.0"),
        "epoch": checkpoint.get("epoch", 0),
        "global_step": checkpoint.get("global_step", 0),
        CHECKPOINT_KEY: pack(knowledge, settings),
    }


def _read_yaml(path: Path) -> dict[str, Any]:
    if not path.parent.is_dir():
        what = "is a file" if path.parent.exists() else f"does not exist{close_to_missing(path.parent, folders=True)}"
        raise StateRagError(
            f"{path.parent} {what}; expected the folder of a released model (config.yaml, checkpoints)."
        )
    text = read_text(path, "the configuration of a training run")
    try:
        values = yaml.safe_load(text)
        assert isinstance(values["data"]["kwargs"], dict)
    except (yaml.YAMLError, KeyError, TypeError, AssertionError) as error:
        raise StateRagError(f"{path} is not the configuration of a training run ({error}).") from error
    return values


def _read_beside(path: Path) -> dict[Any, Any]:
    if not path.is_file():
        raise StateRagError(f"{path} is missing. A released model needs the files that lie beside it; copy them all.")
    return read_torch(path, "Download it again.")
