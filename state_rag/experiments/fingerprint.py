"""What the result of a job depends on, as one digest: jobs with equal digests are run once."""

import functools
import hashlib
import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Any

from state_rag.datasets.data_files import find_data_files
from state_rag.datasets.splitting.split_toml import Split
from state_rag.embeddings.mapped import names_beside
from state_rag.files import PIECE as PIECE
from state_rag.files import sample_digest as digest_of_samples
from state_rag.settings import RagSettings

NO_EFFECT = (
    "output_dir",
    "name",
    "use_wandb",
    "wandb",
    "overwrite",
    "return_adatas",
    "pred_adata_path",
    "true_adata_path",
    "rag",
    "data.output_dir",
    "data.debug",
    "data.kwargs.toml_config_path",
    "data.kwargs.num_workers",
    "data.kwargs.pin_memory",
    "training.wandb_track",
    "training.use_mfu",
    "training.mfu_kwargs",
    "training.cumulative_flops_use_backward",
    "training.log_every_n_steps",
    "training.check_gradients",
    "training.gradient_check_interval",
    "training.rag_watch",
    "training.rag_wait_minutes",
    "training.genept_path",
    "training.rag_sources",
)
"""Keys that do not change what is learnt. The split, embeddings and sources count by content, not by path; the section
`rag` only holds the defaults of `training`."""

FILES = ("model.kwargs.init_from", "data.kwargs.perturbation_features_file")
"""Keys that name files which count by content."""

SELECTOR = (
    "gumbel_sparsity_loss",
    "gumbel_sparsity_weight",
    "gumbel_temperature",
    "rag_inference",
    "rag_score_scale",
    "rag_score_similarity",
)
RETRIEVAL = ("retrieve_than_predict", "topk_rag", "rag_fusion", "rag_query_dropout")
UNUSED: dict[str, tuple[str, ...]] = {
    "none": (*RETRIEVAL, *SELECTOR, "rag_weight", "rag_attention", "genept_missing"),
    "genept": (*RETRIEVAL, *SELECTOR, "rag_weight"),
    "vanilla": (*SELECTOR, "rag_weight"),
    "hidden": SELECTOR,
    "differentiable": ("rag_weight",),
}
"""Flags that a method does not look at, by `RagSettings.mode`. A flag that is not listed counts."""


def fingerprint(
    config: Mapping[str, Any],
    settings: RagSettings,
    split: Split,
    embeddings: Path | None,
    prediction: Mapping[str, Any],
    sources: Mapping[str, Path] = MappingProxyType({}),
) -> str:
    """Return the digest of a job.

    It covers the resolved configuration without the keys that have no effect (`NO_EFFECT`, and what the method does
    not use), the split's lists and the data files, the embeddings, how is predicted, and the versions of state-rag,
    arc-state and cell-load.

    Parameters
    ----------
    config
        The resolved configuration of `state tx train`.
    settings
        Its flags of retrieval.
    split
        The split.
    embeddings
        The file of embeddings that training or evaluation reads; None for none.
    prediction
        What distinguishes the prediction, such as the checkpoint's name.
    sources
        Name -> file of `training.rag_sources`.

    Returns
    -------
    str
        64 hexadecimal digits.
    """
    values = json.loads(json.dumps(config, default=str))
    for key in NO_EFFECT:
        _drop(values, key)
    unused = list(UNUSED[settings.mode])
    if not settings.gumbel_sparsity_loss:
        unused.append("gumbel_sparsity_weight")
    for key in unused:
        _drop(values, f"training.{key}")
    files = {key: _drop(values, key) for key in FILES}
    content = {
        "config": values,
        "files": {key: sample_digest(Path(path)) for key, path in files.items() if path and Path(path).is_file()},
        "split": split_content(split),
        "embeddings": None if embeddings is None else sample_digest(embeddings),
        "prediction": dict(prediction),
        "versions": {package: version(package) for package in ("state-rag", "arc-state", "cell-load")},
    }
    if sources and settings.mode != "none":
        content["sources"] = [[name, sample_digest(path)] for name, path in sources.items()]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def split_content(split: Split) -> dict[str, Any]:
    """Return what a split says, with the data files by content instead of by path."""
    return {
        "datasets": {
            name: [sample_digest(path) for path in find_data_files(place, str(split.path))]
            for name, place in sorted(split.datasets.items())
        },
        "training": sorted(split.training),
        "zeroshot": sorted([*key, part] for key, part in split.zeroshot.items()),
        "fewshot": sorted([*key, lists] for key, lists in split.fewshot.items()),
    }


def sample_digest(path: Path) -> str:
    """Return the digest of a file's size and of samples of its content.

    Read are 1 MiB at the beginning, at the end and at eight places between, or all of a file of at most 10 MiB: a
    screen has tens of gigabytes. A change elsewhere that keeps the size goes unnoticed; a copy, a move or a new time
    of modification is no change. The names beside a `.npy` file of embeddings count with it.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    str
        64 hexadecimal digits.
    """
    status = path.stat()
    digest = _sample_digest(str(path.resolve()), status.st_size, status.st_mtime_ns)
    names = names_beside(path)
    return digest if names is None else hashlib.sha256(f"{digest} {sample_digest(names)}".encode()).hexdigest()


@functools.lru_cache(maxsize=256)
def _sample_digest(path: str, _size: int, _mtime: int) -> str:
    return digest_of_samples(path)


def _drop(values: dict[str, Any], key: str) -> Any:
    """Remove a dotted key and return its value; None where there is none."""
    *parents, last = key.split(".")
    for parent in parents:
        inside = values.get(parent)
        if not isinstance(inside, dict):
            return None
        values = inside
    return values.pop(last, None)
