"""The Hydra application behind `state-rag sweep`: once to list the jobs, once to run them."""

import logging
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hydra
from hydra import compose, initialize_config_module
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import OverrideParseException
from omegaconf import DictConfig, OmegaConf

from state_rag.errors import StateRagError
from state_rag.experiments.hydra_errors import errors_for_users
from state_rag.experiments.plan import Plan, plan_job
from state_rag.experiments.run_job import run_job, score
from state_rag.upstream.overrides import quoted
from state_rag.upstream.search_path import STATES_CONFIGS, register_search_path

CONFIG = "sweep_job"
GRID = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"
"""The sweeper that runs every combination; any other searches."""

UNNAMED = ("sweep", "experiment", "sweep_dir")
"""Overrides that say nothing about one job in particular."""


@dataclass
class Listing:
    """What a first pass over the configurations finds.

    Attributes
    ----------
    splits
        Where split files are written; None for the sweep's own folder.
    trials
        Where a search chooses the values: how many jobs it may run. `plans` then only has its first.
    plans
        One for each configuration, in Hydra's order; equal jobs are listed as often as they are asked for.
    asked
        The overrides of each plan, as given.
    folder
        The sweep.
    errors
        Configurations that were refused, and why.
    """

    splits: Path | None
    trials: int | None
    plans: list[Plan] = field(default_factory=list)
    asked: list[list[str]] = field(default_factory=list)
    folder: Path | None = None
    errors: list[tuple[str, str]] = field(default_factory=list)

    def add(self, cfg: DictConfig) -> None:
        """Plan one configuration."""
        overrides = [text for text in HydraConfig.get().overrides.task if text.partition("=")[0] not in UNNAMED]
        try:
            plan, folder = read_plan(cfg, self.splits)
            if self.folder not in (None, folder):
                raise StateRagError(
                    f"sweep_dir is {folder} here and {self.folder} before: a sweep has one folder. Give it one "
                    "sweep_dir, and start a sweep for each of the others."
                )
        except StateRagError as error:
            self.errors.append((" ".join(overrides), str(error)))
            return
        self.folder = folder
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
    search = HydraConfig.get().sweeper._target_ != GRID
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
    if config["job"]["threads"] is None:
        config["job"]["threads"] = shared_threads()
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
    trials = search_trials(overrides)
    with tempfile.TemporaryDirectory(prefix="state-rag-") as scratch:
        listing = _listing = Listing(None if write else Path(scratch, "splits"), trials)
        changed = [f"hydra.{mode}.dir={quoted(scratch)}" for mode in ("run", "sweep")]
        if trials is not None:
            changed += ["hydra.sweeper.n_trials=1", "hydra.sweeper.storage=null"]
        serial = [text for text in overrides if not text.lstrip("+~").startswith(("hydra/launcher", "hydra.launcher"))]
        try:
            with errors_for_users(overrides, CONFIG):
                _application([*serial, "hydra/launcher=basic", *changed], multirun)
        finally:
            _listing = None
    return listing


def search_trials(overrides: Sequence[str]) -> int | None:
    """Return how many jobs a search may run; None where every combination is run."""
    hydras = [_first_value(text) for text in overrides if text.startswith(("hydra", "+hydra", "sweep=", "experiment="))]
    if not hydras:
        return None
    register_search_path()
    with errors_for_users(overrides, CONFIG), initialize_config_module(STATES_CONFIGS, version_base="1.3"):
        sweeper = compose(CONFIG, hydras, return_hydra_config=True).hydra.sweeper
    return None if sweeper._target_ == GRID else int(sweeper.get("n_trials") or 1)


def run_jobs(overrides: Sequence[str], *, multirun: bool) -> None:
    """Run every configuration with Hydra's sweeper and launcher."""
    _application(list(overrides), multirun)


def _application(overrides: Sequence[str], multirun: bool) -> None:
    register_search_path()
    for name in ("hydra", "hydra_plugins", "alembic", "optuna"):
        logging.getLogger(name).setLevel(logging.WARNING)
    application = hydra.main(config_path=f"pkg://{STATES_CONFIGS}", config_name=CONFIG, version_base="1.3")(run_one)
    with _arguments(["state-rag sweep", *(["--multirun"] if multirun else []), *overrides]):
        application()


def names_several_values(overrides: Sequence[str]) -> bool:
    """Return whether an override asks for more than one value, such as ``seed=0,1``.

    Raises
    ------
    StateRagError
        For what is no override in Hydra's grammar.
    """
    try:
        return any(parsed.is_sweep_override() for parsed in OverridesParser.create().parse_overrides(list(overrides)))
    except OverrideParseException as error:
        raise StateRagError(
            f"{error.override} is not KEY=VALUE in Hydra's grammar. Quote values: KEY='\"a b\"'."
        ) from None


def _first_value(override: str) -> str:
    """Return an override with one value, the first where it asks for several."""
    parsed = OverridesParser.create().parse_override(override)
    if not parsed.is_sweep_override():
        return override
    return f"{override.partition('=')[0]}={next(parsed.sweep_string_iterator())}"


@contextmanager
def _arguments(arguments: list[str]) -> Iterator[None]:
    before, sys.argv = sys.argv, arguments
    try:
        yield
    finally:
        sys.argv = before
