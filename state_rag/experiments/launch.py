"""The Hydra application behind `state-rag sweep`: once to list the jobs, once to run them."""

import logging
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from state_rag.errors import StateRagError
from state_rag.experiments.plan import Plan, plan_job
from state_rag.experiments.run_job import run_job, score
from state_rag.upstream.search_path import STATES_CONFIGS, register_search_path

CONFIG = "sweep_job"
SERIAL_SWEEPER = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"


class Listing:
    """What a first pass over the configurations finds.

    Attributes
    ----------
    plans
        One for each configuration, in Hydra's order; equal jobs are listed as often as they are asked for.
    folder
        The sweep.
    errors
        Why configurations were refused.
    asked
        The overrides of each plan, as given.
    search
        Whether a search chooses the configurations, so that only some of them are known.
    """

    def __init__(self, splits: Path | None) -> None:
        self.splits = splits
        self.plans: list[Plan] = []
        self.folder: Path | None = None
        self.errors: list[str] = []
        self.asked: list[list[str]] = []
        self.search = False
        self.trials: int | None = None

    def add(self, cfg: DictConfig) -> None:
        """Plan one configuration."""
        own = HydraConfig.get()
        self.search = own.mode == RunMode.MULTIRUN and own.sweeper._target_ != SERIAL_SWEEPER
        self.trials = own.sweeper.get("n_trials") if self.search else None
        overrides = [
            text for text in own.overrides.task if not text.startswith(("sweep=", "experiment=", "sweep_dir="))
        ]
        try:
            plan, self.folder = read_plan(cfg, self.splits)
        except StateRagError as error:
            self.errors.append(f"{' '.join(overrides)}: {error}" if overrides else str(error))
            return
        self.plans.append(plan)
        self.asked.append(overrides)


_listing: Listing | None = None


def run_one(cfg: DictConfig) -> float:
    """Run the job of one configuration, in whatever process Hydra's launcher made for it.

    Returns
    -------
    float
        The mean of ``job.objective`` over the test conditions, which a search goes by. NaN where the job failed and
        no search is going on.
    """
    if _listing is not None:
        _listing.add(cfg)
        return 0.0
    plan, folder = read_plan(cfg)
    search = HydraConfig.get().sweeper._target_ != SERIAL_SWEEPER
    job = run_job(plan, folder, wait=search)
    if search and (job is None or job.status != "finished"):
        raise StateRagError(f"{plan.job.name} failed: {job.error if job else 'another process works on it'}")
    return score(job, plan.objective) if job is not None else float("nan")


def read_plan(cfg: DictConfig, splits: Path | None = None) -> tuple[Plan, Path]:
    """Return the plan of a configuration within a Hydra job, and the sweep's folder.

    Raises
    ------
    StateRagError
        As `plan.plan_job`; the files of the message are looked for from the folder that the sweep was started in.
    """
    values = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(values, dict)
    config: dict[str, Any] = {str(key): value for key, value in values.items()}
    folder = Path(hydra.utils.to_absolute_path(str(config["sweep_dir"])))
    config["job"]["threads"] = config["job"]["threads"] or shared_threads()
    choices = HydraConfig.get().runtime.choices
    return plan_job(config, {str(key): choices[key] for key in choices}, folder, splits), folder


def shared_threads() -> int | None:
    """Return the threads of each of joblib's jobs at a time; None where the environment or the system decides."""
    at_once = parallel_jobs()
    if "OMP_NUM_THREADS" in os.environ or at_once is None or at_once < 2:
        return None
    return max(1, cores() // at_once)


def parallel_jobs() -> int | None:
    """Return how many jobs Hydra's launcher runs at once on this machine; None where that cannot be told."""
    launcher = HydraConfig.get().launcher
    if "n_jobs" not in launcher:
        return 1 if launcher._target_.endswith("BasicLauncher") else None
    jobs = int(launcher.n_jobs or 1)
    return jobs if jobs > 0 else max(1, cores() + 1 + jobs)


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def list_jobs(overrides: Sequence[str], *, multirun: bool, write: bool) -> Listing:
    """Compose every configuration that the overrides ask for, without running any.

    Parameters
    ----------
    overrides
        Hydra's overrides.
    multirun
        Whether they may name several values.
    write
        Whether to write the splits into the sweep's folder, too.
    """
    global _listing
    with tempfile.TemporaryDirectory(prefix="state-rag-") as scratch:
        serial = [text for text in overrides if not text.lstrip("+~").startswith("hydra/launcher")]
        serial = [text for text in serial if not text.lstrip("+~").startswith("hydra.launcher")]
        listing = _listing = Listing(None if write else Path(scratch, "splits"))
        try:
            _application(
                [*serial, "hydra/launcher=basic", f"hydra.sweep.dir={scratch}", f"hydra.run.dir={scratch}"], multirun
            )
        finally:
            _listing = None
    return listing


def run_jobs(overrides: Sequence[str], *, multirun: bool) -> None:
    """Run every configuration with Hydra's sweeper and launcher."""
    _application(list(overrides), multirun)


def _application(overrides: Sequence[str], multirun: bool) -> None:
    register_search_path()
    for name in ("hydra", "hydra_plugins"):
        logging.getLogger(name).setLevel(logging.WARNING)
    application = hydra.main(config_path=f"pkg://{STATES_CONFIGS}", config_name=CONFIG, version_base="1.3")(run_one)
    with _arguments(["state-rag sweep", *(["--multirun"] if multirun else []), *overrides]):
        application()


@contextmanager
def _arguments(arguments: list[str]) -> Iterator[None]:
    before, sys.argv = sys.argv, arguments
    try:
        yield
    finally:
        sys.argv = before
