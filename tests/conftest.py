"""What several folders of tests share: one small screen, and runs that are trained once for all workers."""

import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from hypothesis import HealthCheck, settings

from tests.end_to_end import commands
from tests.end_to_end.commands import Project
from tests.end_to_end.fork_server import FEW_STEPS
from tests.evaluation.made_up import make_run, make_screen

for name, value in {"OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled"}.items():
    os.environ.setdefault(name, value)
for name in ("STATE_RAG_DISABLE", "STATE_RAG_GENEPT", "STATE_RAG_TRACEBACK"):
    os.environ.pop(name, None)
# How long an example takes says how busy the machine is, nothing of the code.
settings.register_profile("any-machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any-machine")
# Workers and the commands that tests run share the fits of one session.
os.environ.setdefault("STATE_RAG_CACHE", tempfile.mkdtemp(prefix="state-rag-tests-"))


@pytest.fixture(autouse=True)
def levels_of_logs() -> None:
    """Let each test begin with the levels of a fresh process, whatever commands ran in this one before."""
    logging.getLogger().setLevel(logging.WARNING)
    logging.getLogger("state_rag").setLevel(logging.NOTSET)


@pytest.fixture(autouse=True)
def threads_of_torch() -> None:
    """Let each test begin with as many threads as the first had; Numba takes all cores for the process (`threads`)."""
    if "torch" in sys.modules and "OMP_NUM_THREADS" in os.environ:
        sys.modules["torch"].set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


@pytest.fixture(scope="session")
def build_once(tmp_path_factory) -> Callable[[str, Callable[[Path], object]], Path]:
    """Return a function that fills a folder once for all workers of a test session."""
    base = tmp_path_factory.getbasetemp()
    common = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def build(name: str, make: Callable[[Path], object]) -> Path:
        folder, done, failed = (common / f"{prefix}{name}" for prefix in ("built-", "done-", "failed-"))
        with FileLock(common / f"lock-{name}"):
            if failed.exists():
                pytest.fail(f"{name} could not be built: {failed.read_text()}")
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                try:
                    make(folder)
                except BaseException as error:
                    failed.write_text(str(error))
                    raise
                done.touch()
        return folder

    return build


def make_project(folder: Path, **sizes: object) -> None:
    """Simulate a screen and split it; hepg2 is held out."""
    from state_rag.datasets.simulation.simulate import simulate_screen
    from state_rag.datasets.splitting.splits import write_split

    screen = simulate_screen(folder / "screen", seed=1, **{**commands.SCREEN, **sizes})
    write_split(screen.h5ad, "hepg2", output=folder / "split.toml", few_shot=0.3)


@pytest.fixture(scope="session")
def project(build_once) -> Project:
    """A screen of 24 perturbations; the embeddings know two more that have no cells."""
    return Project(build_once("project", lambda folder: make_project(folder, n_perturbations=26, unseen=2)))


@pytest.fixture(scope="session")
def gappy_project(build_once) -> Project:
    """A screen with three perturbations that have no embedding."""
    return Project(build_once("gappy", lambda folder: make_project(folder, missing=3)))


@pytest.fixture(scope="session")
def ptrag(build_once, project) -> Path:
    """The folder `runs` with one PT-RAG run, `ptrag`, and beside it the log of its training. Copy before use."""

    def make(folder: Path) -> None:
        finished = commands.run(project.train_rag("ptrag"), folder)
        (folder / "stdout.txt").write_text(finished.stdout)
        (folder / "stderr.txt").write_text(finished.stderr)

    return build_once("ptrag", make) / "runs"


@pytest.fixture(scope="session")
def plain_pair(build_once, project) -> dict[str, Path]:
    """Plain STATE trained with the plugin attached and without it: run folders by `with` and `without`."""

    def make(folder: Path) -> None:
        arguments = project.train("plain", *commands.REPLOGLE_COLUMNS, model="state", data="perturbation")
        for kind, environment in (("with", {}), ("without", {"STATE_RAG_DISABLE": "1"})):
            (folder / kind).mkdir()
            finished = commands.run(arguments, folder / kind, env=environment)
            (folder / kind / "stderr.txt").write_text(finished.stderr)

    folder = build_once("plain", make)
    return {kind: folder / kind / "runs" / "plain" for kind in ("with", "without")}


@pytest.fixture(scope="module")
def evidence_run(build_once, tmp_path_factory) -> tuple[Path, Path]:
    """The cells of a small screen, and a module's own copy of an evidence run on them (`engine/runs.py`)."""
    from tests.engine.runs import make_run as make_evidence_run

    base = build_once("evidence-run", make_evidence_run)
    return base / "screen.h5ad", Path(shutil.copytree(base / "evidence", tmp_path_factory.mktemp("run") / "evidence"))


@pytest.fixture(scope="session", autouse=True)
def quick_evidence_row() -> Iterator[None]:
    """Fit the evidence engine's row in this process in a second instead of half a minute."""
    from state_rag.evaluation.baselines import evidence_row
    from state_rag.evidence.training import Settings

    quick = Settings(**FEW_STEPS, calibrating=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evidence_row, "SETTINGS", quick)
        yield


@pytest.fixture
def run_copy(ptrag, tmp_path) -> Path:
    """A copy of the PT-RAG run that a test may write into."""
    return Path(shutil.copytree(ptrag / "ptrag", tmp_path / "moved" / "copy"))


@pytest.fixture
def refused(monkeypatch, capsys) -> Callable[..., str]:
    """Return a function that runs a `state` command in this process, expects a refusal and returns its message."""
    from state.__main__ import main

    def run(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["state", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main()
        message = commands.the_error(capsys.readouterr().err)
        assert stopped.value.code == 1
        return message

    return run


@pytest.fixture(scope="session")
def compose() -> Callable[..., dict]:
    """Return a function that composes the configuration of `state tx train` with the plugin attached."""
    from omegaconf import OmegaConf
    from state.__main__ import load_hydra_config

    def composed(*overrides: str, resolve: bool = True) -> dict:
        values = OmegaConf.to_container(load_hydra_config("tx", list(overrides)), resolve=resolve)
        assert isinstance(values, dict)
        return values

    return composed


@pytest.fixture(scope="session")
def on_pretend_gpu() -> Iterator[Callable[..., Any]]:
    """Return a function that calls another one, of a test module, in a process that has the device `pretend`."""
    from torch.utils import backend_registration

    if not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"):
        pytest.skip("this version of torch takes no backend written in Python")
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=_start_pretend_gpu) as process:
        yield lambda function, *args: process.submit(function, *args).result(timeout=300)


def _start_pretend_gpu() -> None:
    from tests import pretend_gpu

    pretend_gpu.start()


@pytest.fixture(scope="session")
def screen(tmp_path_factory):
    return make_screen(tmp_path_factory.mktemp("screen"))


@pytest.fixture(scope="session")
def runs(screen, tmp_path_factory):
    """Four runs of falling accuracy."""
    folder = tmp_path_factory.mktemp("runs")
    accuracies = {"best": 0.95, "good": 0.7, "poor": 0.4, "none": 0.0}
    return {name: make_run(folder / name, screen, accuracy=value) for name, value in accuracies.items()}
