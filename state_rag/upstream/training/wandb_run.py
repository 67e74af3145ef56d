"""Describe a training's W&B run: group, job type, tags, and a configuration that says where the run comes from.

STATE starts the run itself (`state.tx.utils.get_loggers`). While it does, its placeholder entity is left out, so that
W&B's own default or ``WANDB_ENTITY`` holds, and group and job type are set; afterwards its configuration is completed.
"""

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from state_rag.datasets.data_files import find_data_files
from state_rag.datasets.splitting.split_toml import read_split
from state_rag.embeddings.find import find_sources
from state_rag.errors import StateRagError
from state_rag.files import sample_digest
from state_rag.settings import RagSettings
from state_rag.tracking.fit_run import log_fit
from state_rag.tracking.provenance import file_fingerprints, git_revision, package_versions
from state_rag.tracking.run_record import RunRecord
from state_rag.upstream.swap import replaced

if TYPE_CHECKING:
    from state_rag.evidence.estimator import Evidence

logger = logging.getLogger(__name__)

PLACEHOLDER_ENTITY = "your_entity_name"
DEFAULT_PROJECT = "state"
"""What STATE's configuration says where nobody has set an entity and a project."""

LONGEST_TAG = 64
LOGGED_A_STEP = 8
"""More rows than are ever logged to W&B in one step of training."""


@contextmanager
def described_run(values: Mapping[str, Any], settings: RagSettings, engine: "Evidence | None" = None) -> Iterator[None]:
    """Have the W&B run that STATE starts described, if it starts one.

    Parameters
    ----------
    values
        The resolved configuration of `state tx train`.
    settings
        Its flags of retrieval.
    engine
        What predicted cells are anchored on; None for nothing.
    """
    if not values.get("use_wandb"):
        yield
        return
    from state.tx import utils

    original = utils.get_loggers
    folder = Path(values["output_dir"]) / values["name"]
    labels = labels_of(values, settings)
    started: list[tuple[Any, RunRecord]] = []
    before = record_to_resume(values, folder)
    again = {} if before is None else {"WANDB_RUN_ID": before.run_id, "WANDB_RESUME": "allow"}

    def get_loggers(**given: Any) -> list[Any]:
        cfg = given.get("cfg") or {}
        section = dict(cfg.get("wandb") or {})
        section["tags"] = [*(section.get("tags") or []), *tags_of(labels)]
        given["cfg"] = {**cfg, "wandb": section}
        given["wandb_entity"], given["wandb_project"] = entity_and_project(section, os.environ)
        job_type = section.get("job_type") or "train"
        with environment(WANDB_RUN_GROUP=section.get("group"), WANDB_JOB_TYPE=job_type, **again):
            loggers = original(**given)
        for logger_of_run, run in _recorded_runs(loggers):
            if before is not None:
                _go_on(run, before, values)
            run.config.update({**labels, "state_rag": facts_of(values, settings, folder)}, allow_val_change=True)
            if engine is not None:
                _log_engine(run, engine)
            record = RunRecord.of(run)
            record.save(folder)
            started.append((run, record))
            _keep_progress(logger_of_run, run, record, folder)
        return loggers

    try:
        with replaced(utils, "get_loggers", get_loggers):
            yield
    finally:
        for run, record in started:
            if folder.is_dir():
                record.with_progress(run).save(folder)


def record_to_resume(values: Mapping[str, Any], folder: Path) -> RunRecord | None:
    """Return the W&B run of a training that goes on; None for a new one, or where there is no record of its run."""
    if values.get("overwrite") or not (folder / "checkpoints" / "last.ckpt").is_file():
        return None
    try:
        record = RunRecord.read(folder)
    except ValueError as error:
        logger.warning("Training goes on in a new W&B run: %s.", error)
        return None
    if record is not None:
        logger.info("The W&B run %s goes on.", record.run_id)
    return record


def _go_on(run: Any, before: RunRecord, values: Mapping[str, Any]) -> None:
    """Have W&B count on from where the run stood, so that no step is there twice when offline folders are synchronised.

    What was logged after the last checkpoint is not in the record; a gap of more steps than there can be is left.
    """
    gap = LOGGED_A_STEP * int(values["training"].get("val_freq") or 0) + 1
    step = (before.step or 0) + gap
    if run.step < step:
        run.log({}, step=step)


def _keep_progress(loop: Any, run: Any, record: RunRecord, folder: Path) -> None:
    """Have the record say at every checkpoint how far the run is, for the case that training is cut short."""
    after = loop.after_save_checkpoint

    def after_save_checkpoint(checkpoint_callback: Any) -> None:
        after(checkpoint_callback)
        record.with_progress(run).save(folder)

    loop.after_save_checkpoint = after_save_checkpoint


def _log_engine(run: Any, engine: "Evidence") -> None:
    """Log what the fit of the engine found; W&B's troubles with tables do not stop a training."""
    from state_rag.engine.fit_facts import fit_numbers, fit_tables

    try:
        log_fit(run, fit_numbers(engine), fit_tables(engine, {}))
    except Exception as error:  # noqa: BLE001  W&B, the network and the server raise what they like
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        logger.warning("What the evidence engine learned was not logged to W&B (%s).", reason)


def labels_of(values: Mapping[str, Any], settings: RagSettings) -> dict[str, Any]:
    """Return `method`, `held_out` (lines joined by ``+``) and `topk` of a run; None where a label does not apply.

    The method of a network that is anchored on the evidence engine ends in ``+evidence``.
    """
    return {
        "method": f"{settings.mode}+evidence" if settings.anchors else settings.mode,
        "held_out": held_out(values),
        "topk": settings.topk_rag if settings.retrieves else None,
    }


def held_out(values: Mapping[str, Any]) -> str | None:
    """Return the cell lines of which the split holds perturbations out; None where there is no split to read."""
    path = values["data"]["kwargs"].get("toml_config_path")
    if not path:
        return None
    try:
        split = read_split(path)
    except StateRagError:
        return None
    return "+".join(split.tested_lines) or None


def tags_of(labels: Mapping[str, Any]) -> list[str]:
    """Return the labels as tags, such as ``held_out=k562``; W&B takes at most 64 characters."""
    return [f"{name}={value}"[:LONGEST_TAG] for name, value in labels.items() if value is not None]


def entity_and_project(section: Mapping[str, Any], environ: Mapping[str, str]) -> tuple[str | None, str | None]:
    """Return what to tell W&B: STATE's placeholders give way to ``WANDB_ENTITY`` and ``WANDB_PROJECT``.

    None leaves the choice to W&B (its environment variables, then the login's default).
    """
    entity, project = section.get("entity"), section.get("project")
    if entity == PLACEHOLDER_ENTITY:
        entity = None
    if project == DEFAULT_PROJECT and environ.get("WANDB_PROJECT"):
        project = environ["WANDB_PROJECT"]
    return entity, project


def facts_of(values: Mapping[str, Any], settings: RagSettings, folder: Path) -> dict[str, Any]:
    """Return what the run's configuration says under `state_rag`: enough to know, and to restore, the run."""
    data = values["data"]["kwargs"]
    facts: dict[str, Any] = {
        "config_yaml": (folder / "config.yaml").read_text(encoding="utf-8"),
        "settings": settings.to_dict(),
        "git": git_revision(),
        "packages": package_versions(),
        "data": None,
        "embeddings": None,
    }
    try:
        path = data.get("toml_config_path")
        if path:
            split = read_split(path)
            files = [file for place in split.datasets.values() for file in find_data_files(place, str(path))]
            facts["data"] = {"split": sample_digest(path), "files": file_fingerprints(files)}
        if settings.use_genept:
            facts["embeddings"] = file_fingerprints(list(find_sources(settings.sources).values()))
    except (StateRagError, OSError) as error:
        logger.warning("The W&B run has no fingerprint of its data: %s", error)
    return facts


@contextmanager
def environment(**values: str | None) -> Iterator[None]:
    """Set environment variables for a while; None, and a variable that is set already, changes nothing."""
    added = [name for name, value in values.items() if value and name not in os.environ]
    os.environ.update({name: str(values[name]) for name in added})
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


def _recorded_runs(loggers: list[Any]) -> list[tuple[Any, Any]]:
    """Return those of Lightning's loggers that record a W&B run, with the run."""
    from lightning.pytorch.loggers import WandbLogger

    runs = [(one, one.experiment) for one in loggers if isinstance(one, WandbLogger)]
    return [(one, run) for one, run in runs if not getattr(run, "disabled", False)]
