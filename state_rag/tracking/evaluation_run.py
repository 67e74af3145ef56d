"""Send an evaluation to the W&B run that the model was trained in.

Online the run is resumed by its id. Offline a second folder is written with the same id; `wandb sync` of both, the
training's first, makes one run of them. W&B never stops an evaluation: whatever goes wrong is one line of warning.
"""

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from state_rag.tracking.login import is_logged_in
from state_rag.tracking.run_record import RunRecord

logger = logging.getLogger(__name__)

SECTION = "evaluation"


def log_evaluation(
    run_folder: Path,
    *,
    means: Mapping[str, float],
    tables: Mapping[str, tuple[Sequence[str], Sequence[Sequence[Any]]]],
    pictures: Mapping[str, Path],
    notes: Mapping[str, str] | None = None,
    digest: str | None = None,
) -> bool:
    """Log an evaluation under ``evaluation/``, if the run in `run_folder` was tracked by W&B.

    An evaluation that was logged last time already, by its `digest`, is left at that.

    Parameters
    ----------
    run_folder
        The folder that `state tx train` wrote.
    means
        Metric -> value; they become the run's summary.
    tables
        Name -> columns and rows.
    pictures
        Name -> picture file.
    notes
        Short texts for the summary.
    digest
        Tells one evaluation from another; None for one to log in any case.

    Returns
    -------
    bool
        Whether it was logged.
    """
    if os.environ.get("WANDB_MODE") == "disabled" or os.environ.get("WANDB_DISABLED", "").lower() in ("true", "1"):
        return False
    try:
        record = RunRecord.read(run_folder)
        if record is None or (digest is not None and digest == record.evaluation):
            return False
        with _resumed(record, run_folder) as run:
            import wandb

            found = {f"{SECTION}/{name}": value for name, value in {**means, **(notes or {})}.items()}
            # With the training's own summary, which W&B would otherwise replace (see `run_record`). Numbers first: for
            # tables W&B asks its server, which may fail.
            run.summary.update({**record.summary, **found})
            shown: dict[str, Any] = {
                name: wandb.Table(columns=list(columns), data=[list(row) for row in rows])
                for name, (columns, rows) in tables.items()
            }
            shown.update({name: wandb.Image(str(path)) for name, path in pictures.items()})
            step = None if record.step is None or run.step > record.step else record.step + 1
            run.log({f"{SECTION}/{name}": value for name, value in shown.items()}, step=step)
            offline = bool(run.offline)
            logged = record.with_progress(run) if offline else record
            replace(logged, evaluation=digest).save(run_folder)
            where = f"in {run.dir}" if offline else f"at {run.url}"
        logger.info("Evaluation logged to the W&B run %s %s", record.run_id, where)
        if offline:
            logger.info("Synchronise the training's offline folder first, then this one, with `wandb sync FOLDER`.")
    except Exception as error:  # noqa: BLE001  predictions and tables are written; W&B may fail in any way
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        logger.warning("The evaluation was not logged to W&B (%s). It lies in the run's folder.", reason)
        return False
    return True


@contextmanager
def _resumed(record: RunRecord, run_folder: Path) -> Iterator[Any]:
    """Yield the W&B run, resumed, and finish it; an active run of the same id is used as it is."""
    import wandb

    if wandb.run is not None and wandb.run.id == record.run_id:
        yield wandb.run
        return
    mode = os.environ.get("WANDB_MODE") or ("offline" if record.offline else "online")
    if mode == "online" and not is_logged_in():
        raise RuntimeError("nobody is logged in; run `wandb login`, or set WANDB_MODE=offline")
    folder = Path(record.folder) if record.folder and Path(record.folder).is_dir() else run_folder
    run = wandb.init(
        entity=record.entity,
        project=record.project,
        id=record.run_id,
        name=record.name,
        group=record.group,
        job_type=record.job_type,
        tags=record.tags or None,
        config=record.config or None,
        dir=str(folder),
        mode=mode,  # type: ignore[arg-type]
        resume="allow",
        reinit="create_new",
        settings=wandb.Settings(quiet=True, console="off", x_disable_stats=True, init_timeout=30),
    )
    try:
        yield run
    finally:
        run.finish()
