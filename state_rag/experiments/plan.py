"""Turn the configuration of a job into what has to be run, or refuse it before anything is."""

import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from state_rag.datasets.data_files import find_data_files
from state_rag.datasets.splitting.perturbation_splits import write_perturbation_splits
from state_rag.datasets.splitting.split_toml import read_split
from state_rag.datasets.splitting.splits import write_split
from state_rag.embeddings.find import find_embeddings, find_sources
from state_rag.errors import StateRagError
from state_rag.experiments.fingerprint import fingerprint, sample_digest
from state_rag.experiments.jobs import FOLD, Job
from state_rag.metrics.registry import BY_NAME
from state_rag.names import suggest
from state_rag.settings import TEXT, RagSettings
from state_rag.upstream.overrides import overrides_of

OWN_KEYS = (
    "held_out",
    "data_file",
    "folds",
    "held_out_pairs",
    "few_shot",
    "val_fraction",
    "test_list",
    "split_seed",
    "seed",
    "sweep_name",
    "sweep_dir",
    "job",
)
"""Keys of a sweep, which `state tx train` does not know."""

KEY_OF_FLAG = {
    "--held-out-perturbations 0.2, or --folds 5 for all in turn, in place of --held-out": (
        "folds=5 held_out=fold0,fold1,fold2,fold3,fold4"
    ),
    "--held-out-pairs": "held_out_pairs",
    "--folds": "folds",
    "--held-out": "held_out",
    "--few-shot": "few_shot",
    "--val-fraction": "val_fraction",
    "--test-list": "test_list",
    "--pert-col": "data.kwargs.pert_col",
    "--cell-type-key": "data.kwargs.cell_type_key",
    "--control": "data.kwargs.control_pert",
    "--output": "sweep_dir",
}
"""What says in a sweep what a flag, or a remedy, of `state-rag data split` says there; longer ones come first."""

NOT_SAID = ("rag", "output_dir", "name", "overwrite")
"""Left out of a job's overrides: where it is written to, and the presets, as `training` has what they come to."""

CHECKPOINTS = ("last.ckpt", "best.ckpt", "final.ckpt")
CELL_EVAL = (None, "minimal", "de", "full")
WORDS = {"differentiable": "ptrag"}
"""Methods whose name in files is not that of `RagSettings.mode`."""


@dataclass(frozen=True)
class Plan:
    """A job and how to run it.

    Attributes
    ----------
    job
        Its record before it has run.
    split
        The split file.
    embeddings
        File of embeddings that limits the test set and feeds the ridge baseline; None for none.
    checkpoint
        Which checkpoint predicts.
    only_with_embedding
        Whether test perturbations without an embedding are left out.
    cell_eval
        Profile of cell-eval's metrics; None for none.
    objective
        Name of the metric that stands for the result.
    threads
        Threads of the job's commands; None leaves the environment alone.
    resume
        Whether a killed training goes on from its last checkpoint; otherwise it starts anew.
    evidence
        Whether evaluations have a row of the evidence engine, which all jobs on a split share; None: unless the screen
        is very large.
    training
        `max_steps`, cells of one step, and the transformer's parameters, for an estimate of the cost.
    """

    job: Job
    split: Path
    embeddings: Path | None
    checkpoint: str
    only_with_embedding: bool
    cell_eval: str | None
    objective: str
    threads: int | None
    resume: bool = True
    evidence: bool | None = None
    training: dict[str, int] = field(default_factory=dict)


def plan_job(
    config: Mapping[str, Any], choices: Mapping[str, str | None], folder: Path, splits: Path | None = None
) -> Plan:
    """Return what a configuration asks for.

    Parameters
    ----------
    config
        The resolved configuration of the job.
    choices
        The chosen option of each group.
    folder
        The sweep.
    splits
        Where split files are written; default: ``splits`` in `folder`.

    Raises
    ------
    StateRagError
        If a setting or file is missing, contradictory or of no use.
    """
    settings = RagSettings.from_mapping(config["training"])
    values = {key: value for key, value in config.items() if key not in OWN_KEYS}
    how = _checked(config)
    path, held_out = _split(config, splits or folder / "splits")
    split = read_split(path)
    embeddings, sources = _embeddings(settings), _sources(settings)
    limited = bool(how["only_with_embedding"]) and (embeddings is not None or bool(sources))
    predicted = {"checkpoint": how["checkpoint"], "only_with_embedding": limited}
    digest = fingerprint(values, settings, split, embeddings, predicted, sources)
    data = {**values["data"], "kwargs": {**values["data"]["kwargs"], "toml_config_path": str(path)}}
    training = dict(values["training"])
    if embeddings is not None:
        training["genept_path"] = str(embeddings)
    if sources:
        training["rag_sources"] = [f"{name}={path}" for name, path in sources.items()]
    groups = {
        group: option for group, option in choices.items() if option and group in ("data", "model", "training", "wandb")
    }
    if choices.get("rag"):
        groups["rag"] = str(choices["rag"])
    overrides = overrides_of({**values, "data": data, "training": training}, groups, leaving_out=NOT_SAID)
    topk = settings.topk_rag if settings.retrieves else None
    seed = int(training["train_seed"])
    parts = [
        WORDS.get(settings.mode, settings.mode),
        _in_file_names(held_out),
        *([f"k{topk}"] if topk is not None else []),
        f"seed{seed}",
        digest[:8],
    ]
    name = "-".join(parts)
    job = Job(
        name=name,
        method=settings.mode,
        preset=str(choices.get("rag") or "none"),
        held_out=held_out,
        topk=topk,
        seed=seed,
        status="waiting",
        run_folder=folder / "runs" / name,
        predictions=None,
        overrides=overrides,
        fingerprint=digest,
        log=folder / "jobs" / f"{name}.log",
    )
    return Plan(
        job=job,
        split=path,
        embeddings=embeddings,
        checkpoint=str(how["checkpoint"]),
        only_with_embedding=limited,
        cell_eval=how["cell_eval"],
        objective=str(how["objective"]),
        threads=how["threads"],
        resume=how["resume"],
        evidence=how["evidence"],
        training=_size(config),
    )


def _checked(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the section `job`, or say which value is of no use."""
    how = config["job"]
    choices = {"checkpoint": CHECKPOINTS, "cell_eval": CELL_EVAL, "objective": tuple(BY_NAME)}
    for key, allowed in choices.items():
        if how[key] not in allowed:
            names = ", ".join("null" if name is None else name for name in allowed)
            close = suggest([str(how[key])], [name for name in allowed if name is not None])
            raise StateRagError(f"job.{key}={how[key]} is not a choice{close}. Use one of: {names}.")
    if how["threads"] is not None and (not isinstance(how["threads"], int) or how["threads"] < 1):
        raise StateRagError(f"job.threads={how['threads']} is of no use. Use a whole number of at least 1, or null.")
    if not isinstance(how["resume"], bool):
        raise StateRagError(f"job.resume={how['resume']} is not a choice. Use true or false.")
    if how["evidence"] is not None and not isinstance(how["evidence"], bool):
        raise StateRagError(f"job.evidence={how['evidence']} is not a choice. Use true, false or null.")
    training = config["training"]
    whole = {f"training.{key}": training.get(key) for key in ("max_steps", "val_freq", "batch_size")}
    _check_numbers({"seed": training["train_seed"], "split_seed": config["split_seed"], **whole}, int, "a whole number")
    _check_numbers({key: config[key] for key in ("few_shot", "val_fraction")}, (int, float), "a number")
    steps, every = config["training"]["max_steps"], config["training"]["val_freq"]
    if how["checkpoint"] == "best.ckpt" and steps < every:
        raise StateRagError(
            f"job.checkpoint=best.ckpt is chosen by validation, but training.max_steps={steps} ends before the first "
            f"one (training.val_freq={every}). Lower training.val_freq, or use job.checkpoint=final.ckpt."
        )
    return how


def _check_numbers(values: Mapping[str, Any], kind: type | tuple[type, ...], name: str) -> None:
    for key, value in values.items():
        if isinstance(value, bool) or not isinstance(value, kind):
            raise StateRagError(f"{key}={value} is not {name}.")


def _split(config: Mapping[str, Any], folder: Path) -> tuple[Path, str]:
    """Return the split file, written if need be, and the line that it holds out."""
    given = config["data"]["kwargs"].get("toml_config_path")
    held_out, source = config["held_out"], config["data_file"]
    if given and source:
        raise StateRagError(
            f"data_file={source} and data.kwargs.toml_config_path={given} both say what the data are. With the first, "
            "splits are written; with the second, yours are used. Leave one out."
        )
    if given:
        return _own_split(str(given), held_out)
    if not source:
        raise StateRagError(
            "No data: set data_file=SCREEN.h5ad to have splits written, or data.kwargs.toml_config_path=SPLIT.toml for "
            "a split of your own."
        )
    if held_out is None:
        raise StateRagError(
            f"data_file={source}, but no cell line to hold out. Set held_out=LINE, or several: held_out=A,B; or folds "
            "of perturbations: folds=2 held_out=fold0,fold1."
        )
    if config["folds"] is not None:
        return _written_fold(config, Path(str(source)), str(held_out), folder), str(held_out)
    if config["held_out_pairs"] is not None:
        raise StateRagError(
            f"held_out_pairs={config['held_out_pairs']} holds pairs out a fold at a time: set folds=5 and "
            "held_out=fold0,fold1,fold2,fold3,fold4, or leave it out."
        )
    if FOLD.fullmatch(str(held_out)):
        raise StateRagError(f"held_out={held_out} is a fold of perturbations: say how many there are, such as folds=5.")
    return _written_split(config, Path(str(source)), str(held_out), folder), str(held_out)


def _own_split(given: str, held_out: Any) -> tuple[Path, str]:
    if templated := "{held_out}" in given:
        if held_out is None:
            raise StateRagError(f"data.kwargs.toml_config_path={given} needs a line: set held_out=LINE.")
        given = given.replace("{held_out}", str(held_out))
    path = Path(given).absolute()
    split = read_split(path)
    zeroshot = {line for (_, line), part in split.zeroshot.items() if part == "test"}
    lines = sorted({line for _, line in split.fewshot} | zeroshot)
    if held_out is None:
        return path, "+".join(lines) or "none"
    if templated and lines and FOLD.fullmatch(str(held_out)):
        return path, str(held_out)
    if str(held_out) not in lines:
        raise StateRagError(
            f"held_out={held_out}, but {path} holds out {', '.join(lines) or 'no line'}"
            f"{suggest([str(held_out)], lines)}. Name the split of that line: "
            "data.kwargs.toml_config_path may contain {held_out} (in quotes)."
        )
    return path, str(held_out)


def _written_split(config: Mapping[str, Any], source: Path, held_out: str, folder: Path) -> Path:
    """Write the split of a line, unless the folder has the same one already."""
    columns = _columns(config)
    drawn = {"few_shot": config["few_shot"], "val_fraction": config["val_fraction"], "seed": config["split_seed"]}
    listed = config["test_list"]
    asked = _asked([held_out, columns, drawn], source, [Path(listed)] if listed else [])
    path = (folder / f"{_in_file_names(held_out)}-{asked}.toml").absolute()
    if not path.is_file():
        with _errors_in_terms_of_keys():
            write_split(source, held_out, output=path, test_list=listed, **drawn, **columns)
    return path


def _written_fold(config: Mapping[str, Any], source: Path, held_out: str, folder: Path) -> Path:
    """Write the splits of all folds, unless the folder has the same ones already, and return that of one."""
    folds, pairs = config["folds"], config["held_out_pairs"]
    _check_numbers({"folds": folds}, int, "a whole number")
    named = FOLD.fullmatch(held_out)
    if named is None or int(named[1]) >= folds:
        every = ",".join(f"fold{number}" for number in range(min(folds, 3)))
        raise StateRagError(
            f"held_out={held_out}, but with folds={folds} it names folds of perturbations, counted from 0: "
            f"held_out={every}{',...' * (folds > 3)}. To hold out cell lines, leave folds out."
        )
    if config["test_list"]:
        raise StateRagError(
            "test_list is for a held-out line; folds hold all perturbations out in turn. Leave one out."
        )
    columns = _columns(config)
    drawn: dict[str, Any] = {
        "val_fraction": config["val_fraction"],
        "seed": config["split_seed"],
        "folds": folds,
        "pairs": pairs,
    }
    path = (folder / f"split-{_asked([columns, drawn], source)}.toml").absolute()
    fold = path.with_name(f"{path.stem}_fold{int(named[1])}{path.suffix}")
    if not fold.is_file():
        with _errors_in_terms_of_keys():
            write_perturbation_splits(source, output=path, **drawn, **columns)
    return fold


def _columns(config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "pert_col": config["data"]["kwargs"]["pert_col"],
        "cell_type_col": config["data"]["kwargs"]["cell_type_key"],
        "control": config["data"]["kwargs"]["control_pert"],
    }


def _asked(what: list[Any], source: Path, lists: Sequence[Path] = ()) -> str:
    """Return a short digest of what a split is written from: settings, where the data are, and their content."""
    files = [*find_data_files(str(source), f"data_file={source}"), *lists]
    contents = [sample_digest(file) for file in files if file.is_file()]
    return hashlib.sha256(repr([*what, contents, str(source.absolute())]).encode()).hexdigest()[:8]


@contextmanager
def _errors_in_terms_of_keys() -> Iterator[None]:
    try:
        yield
    except StateRagError as error:
        raise StateRagError(_in_terms_of_keys(str(error))) from error


def _in_terms_of_keys(message: str) -> str:
    """Return a message of `state-rag data split` with a sweep's keys in place of that command's flags."""
    for flag, key in KEY_OF_FLAG.items():
        message = message.replace(flag, key)
    return message


def _in_file_names(line: str) -> str:
    return re.sub(r"[^\w.+-]", "_", line)


def _embeddings(settings: RagSettings) -> Path | None:
    """Return the file of embeddings; None where plain STATE runs without any."""
    if settings.rag_sources and settings.genept_path is None:
        return None
    try:
        return find_embeddings(settings.genept_path).absolute()
    except StateRagError:
        if settings.mode != "none" or settings.genept_path or os.environ.get("STATE_RAG_GENEPT"):
            raise
        return None


def _sources(settings: RagSettings) -> dict[str, Path]:
    """Return the files of `training.rag_sources`."""
    if not settings.rag_sources:
        return {}
    also = {TEXT} if settings.genept_path is not None else set()
    given = {name: place for name, place in settings.sources.items() if name not in also}
    return {name: path.absolute() for name, path in find_sources(given).items()}


def _size(config: Mapping[str, Any]) -> dict[str, int]:
    model = config["model"]["kwargs"]
    backbone = model.get("transformer_backbone_kwargs") or {}
    width, heads = int(model.get("hidden_dim") or 0), int(backbone.get("num_attention_heads") or 0)
    head, shared = int(backbone.get("head_dim") or 0), int(backbone.get("num_key_value_heads") or heads)
    layer = 2 * width * head * (heads + shared) + 3 * width * int(backbone.get("intermediate_size") or 0)
    return {
        "steps": int(config["training"]["max_steps"]),
        "cells": int(config["training"]["batch_size"]) * int(model.get("cell_set_len") or 1),
        "weights": layer * int(backbone.get("num_hidden_layers") or 0),
    }
