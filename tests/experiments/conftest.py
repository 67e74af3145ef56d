import copy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import make_project

STAND_IN = (sys.executable, str(Path(__file__).with_name("stand_in.py")))


@pytest.fixture
def stand_in(monkeypatch):
    """Have jobs run the stand-in for the real commands; returns a function that gives it orders."""
    from state_rag.experiments import run_job

    monkeypatch.setattr(run_job, "STATE", STAND_IN)
    monkeypatch.setattr(run_job, "OURS", STAND_IN)
    monkeypatch.delenv("STAND_IN", raising=False)
    return lambda orders: monkeypatch.setenv("STAND_IN", orders)


@pytest.fixture(scope="session")
def small_screen(build_once) -> Path:
    """A folder with `screen/screen.h5ad`, its embeddings, and `split.toml` (hepg2 held out)."""
    return build_once("sweep-screen", make_project)


@pytest.fixture
def in_screen(small_screen, monkeypatch) -> list[str]:
    """Work in the screen's folder; returns the overrides that name its files."""
    monkeypatch.chdir(small_screen)
    return ["data_file=screen/screen.h5ad", "training.genept_path=screen/embeddings.safetensors"]


@pytest.fixture(scope="session")
def composed() -> Callable[..., Any]:
    """Return a function that composes the configuration of one job with Hydra, each set of overrides once."""
    from hydra import compose, initialize_config_module

    from state_rag.experiments.launch import CONFIG
    from state_rag.upstream.search_path import STATES_CONFIGS, register_search_path

    register_search_path()
    known: dict[tuple[str, ...], Any] = {}

    def config(*overrides: str) -> Any:
        if overrides not in known:
            with initialize_config_module(STATES_CONFIGS, version_base="1.3"):
                known[overrides] = compose(CONFIG, list(overrides), return_hydra_config=True)
        return known[overrides]

    return config


@pytest.fixture(scope="session")
def job_config(composed) -> Callable[..., dict[str, Any]]:
    """Return a function from overrides, and values of dotted keys, to the resolved configuration of a job."""
    from omegaconf import OmegaConf, open_dict

    plain: dict[tuple[str, ...], dict[str, Any]] = {}

    def config(*overrides: str, **values: object) -> dict[str, Any]:
        if overrides not in plain:
            chosen = composed(*overrides).copy()
            with open_dict(chosen):
                del chosen["hydra"]
            plain[overrides] = OmegaConf.to_container(chosen, resolve=True)
        changed = copy.deepcopy(plain[overrides])
        for key, value in values.items():
            *parents, last = key.split("__")
            section = changed
            for parent in parents:
                section = section[parent]
            section[last] = value
        return changed

    return config
