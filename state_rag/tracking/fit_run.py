"""A fit of the evidence engine in W&B: a run of its own, or a part of the training that is anchored on it."""

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from state_rag.tracking.login import is_logged_in
from state_rag.tracking.run_record import RunRecord

logger = logging.getLogger(__name__)

SECTION = "evidence"
PROJECT = "state"
"""Where nobody says otherwise, as for STATE's own trainings."""

Tables = Mapping[str, tuple[Sequence[str], Sequence[Sequence[Any]]]]
"""Name -> columns and rows."""


def log_fit(run: Any, numbers: Mapping[str, float], tables: Tables) -> None:
    """Log what a fit found to a W&B run, under ``evidence/``: numbers into its summary, and tables.

    Parameters
    ----------
    run
        In progress.
    numbers
        By name.
    tables
        By name.
    """
    import wandb

    run.summary.update({f"{SECTION}/{name}": value for name, value in numbers.items()})
    shown = {
        f"{SECTION}/{name}": wandb.Table(columns=list(columns), data=[list(row) for row in rows])
        for name, (columns, rows) in tables.items()
    }
    if shown:
        run.log(shown)


def track_fit(
    folder: Path, config: Mapping[str, Any], tags: Sequence[str], numbers: Mapping[str, float], tables: Tables
) -> bool:
    """Record a fit as a W&B run, to which evaluations of the run folder go later.

    W&B's own environment variables hold (``WANDB_PROJECT``, ``WANDB_ENTITY``, ``WANDB_MODE``, ``WANDB_RUN_GROUP``). It
    never stops a fit: whatever goes wrong is one line of warning.

    Parameters
    ----------
    folder
        The run folder.
    config, tags
        Of the W&B run.
    numbers, tables
        As for `log_fit`.

    Returns
    -------
    bool
        Whether it was recorded.
    """
    if os.environ.get("WANDB_MODE") == "disabled" or os.environ.get("WANDB_DISABLED", "").lower() in ("true", "1"):
        return False
    try:
        import wandb

        if os.environ.get("WANDB_MODE", "online") == "online" and not is_logged_in():
            raise RuntimeError("nobody is logged in; run `wandb login`, or set WANDB_MODE=offline")
        run = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or PROJECT,
            name=folder.name,
            job_type="fit",
            tags=list(tags),
            config=dict(config),
            dir=str(folder),
            reinit="create_new",
            settings=wandb.Settings(quiet=True, console="off", x_disable_stats=True, init_timeout=30),
        )
        try:
            log_fit(run, numbers, tables)
            RunRecord.of(run).with_progress(run).save(folder)
            logger.info("Fit logged to the W&B run %s %s", run.id, f"in {run.dir}" if run.offline else f"at {run.url}")
        finally:
            run.finish()
    except Exception as error:  # noqa: BLE001  the run is written; W&B may fail in any way
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        logger.warning("The fit was not logged to W&B (%s). The run lies in %s.", reason, folder)
        return False
    return True
