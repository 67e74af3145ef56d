"""The wheel: what is in it, and that STATE finds the plugin however it was installed."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.end_to_end import commands
from tests.end_to_end.commands import run

ROOT = Path(__file__).resolve().parents[1]
(PATCH,) = (ROOT / "patches").glob("arc-state-*.patch")


def pip(*arguments):
    finished = subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr


def site_packages(environment):
    (folder,) = (environment / "lib").glob("python3.*/site-packages")
    return folder


def make_environment(folder):
    """An environment that sees the packages of this one, but none of its `.pth` files."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    seen = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    (site_packages(folder) / "seen.pth").write_text("".join(f"{path}\n" for path in seen))
    script = (folder / "bin" / "state").resolve()
    lines = Path(commands.STATE[0]).read_text().splitlines(keepends=True)
    script.write_text("".join([f"#!{folder / 'bin' / 'python'}\n", *lines[1:]]))
    script.chmod(0o755)


@pytest.fixture(scope="session")
def wheel(build_once):
    def make(folder):
        pip("wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", folder, ROOT)

    (path,) = build_once("wheel", make).glob("*.whl")
    return path


@pytest.fixture(scope="session")
def wheel_environment(build_once, wheel):
    def make(folder):
        make_environment(folder / "venv")
        python = folder / "venv" / "bin" / "python"
        pip("--python", python, "install", "--no-deps", "--no-index", "--ignore-installed", wheel)

    return build_once("wheel-environment", make) / "venv"


@pytest.fixture(scope="session")
def bare_environment(build_once):
    """STATE without our plugin."""
    return build_once("bare-environment", lambda folder: make_environment(folder / "venv")) / "venv"


@pytest.fixture(scope="session")
def target(build_once, wheel):
    def make(folder):
        pip("install", "--no-deps", "--no-index", "--target", folder / "site", wheel)

    return build_once("target", make) / "site"


def helped(arguments, cwd, **environment):
    """Whether `tx train --help` shows our flags."""
    finished = run(["tx", "train", "--help"], cwd, via=arguments, env=environment)
    assert "cell_set_len:" in finished.stdout
    return "topk_rag:" in finished.stdout


def test_the_wheel_holds_the_package_its_configurations_and_the_pth_file(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        entry_points = next(archive.read(name) for name in names if name.endswith("entry_points.txt")).decode()
        assert archive.read("state_rag.pth").decode() == "import state_rag.startup; state_rag.startup.arm()\n"
    configurations = {f"state_rag/{path.relative_to(ROOT)}" for path in (ROOT / "configs").rglob("*.yaml")}
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "state_rag").rglob("*.py")}
    assert len(configurations) > 8
    assert configurations | modules | {"state_rag/datasets/fetching/checksums.toml"} <= names
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/", "configs/"))]
    assert "[state.plugins]" in entry_points
    assert "state-rag = state_rag.cli:main" in entry_points


@pytest.mark.parametrize(
    "via", [commands.STATE, commands.STATE_MODULE, commands.OUR_MODULE], ids=["state", "state.__main__", "state_rag"]
)
def test_every_way_of_starting_state_knows_the_flags_here(via, tmp_path):
    assert helped(via, tmp_path)


@pytest.mark.parametrize("via", ["state", "state.__main__", "state_rag"])
def test_every_way_of_starting_state_knows_the_flags_with_the_wheel(via, wheel_environment, tmp_path):
    program = wheel_environment / "bin"
    assert helped([str(program / "state")] if via == "state" else [str(program / "python"), "-m", via], tmp_path)


def test_the_wheels_plugin_can_be_switched_off(wheel_environment, tmp_path):
    assert not helped([str(wheel_environment / "bin" / "state")], tmp_path, STATE_RAG_DISABLE="1")


@pytest.mark.slow
def test_the_wheel_trains_with_retrieval(wheel_environment, project, tmp_path):
    arguments = project.train_rag("wheel", "training.max_steps=2", "training.val_freq=2")
    run(arguments, tmp_path, via=[str(wheel_environment / "bin" / "state")])
    assert (tmp_path / "runs" / "wheel" / "checkpoints" / "last.ckpt").exists()


def test_state_alone_does_not_know_the_flags(bare_environment, tmp_path):
    assert not helped([str(bare_environment / "bin" / "state")], tmp_path)


@pytest.mark.slow
def test_in_a_target_folder_the_plugin_is_attached_by_our_own_module(bare_environment, target, project, tmp_path):
    environment = {"PYTHONPATH": str(target)}
    program = bare_environment / "bin"
    assert not helped([str(program / "state")], tmp_path, **environment), "a target folder's .pth is not read"
    arguments = project.train_rag("target", "training.max_steps=2", "training.val_freq=2")
    run(arguments, tmp_path, via=[str(program / "python"), "-m", "state_rag"], env=environment)
    assert (tmp_path / "runs" / "target" / "checkpoints" / "last.ckpt").exists()


def test_the_patch_only_adds_lines_and_has_no_context():
    body = PATCH.read_text().splitlines()
    assert [line[:4] for line in body[:2]] == ["--- ", "+++ "]
    inside = [line for line in body if not line.startswith(("--- ", "+++ ", "@@ "))]
    assert inside
    assert all(line.startswith("+") for line in inside)
    headers = [line for line in body if line.startswith("@@ ")]
    assert headers
    assert all(re.fullmatch(r"@@ -\d+,0 \+\d+(,\d+)? @@", line) for line in headers)


@pytest.fixture(scope="session")
def patched(build_once):
    """A folder with a patched copy of STATE."""
    import state

    def make(folder):
        shutil.copytree(Path(state.__file__).parent, folder / "state", ignore=shutil.ignore_patterns("__pycache__"))
        with open(PATCH) as patch:
            subprocess.run(["patch", "-p1", "--fuzz=0"], cwd=folder, stdin=patch, check=True, capture_output=True)

    if shutil.which("patch") is None:
        pytest.skip("the program `patch` is not installed: the patch was not tried")
    return build_once("patched", make)


@pytest.mark.slow
def test_a_patched_state_trains_with_retrieval_without_the_pth_file(
    bare_environment, patched, target, project, tmp_path
):
    environment = {"PYTHONPATH": os.pathsep.join(map(str, (patched, target)))}
    arguments = project.train_rag("patched", "training.max_steps=2", "training.val_freq=2")
    run(arguments, tmp_path, via=[str(bare_environment / "bin" / "python"), "-m", "state.__main__"], env=environment)
    assert (tmp_path / "runs" / "patched" / "checkpoints" / "last.ckpt").exists()


def test_a_patched_state_without_plugins_is_as_before(bare_environment, patched, tmp_path):
    code = "import importlib.metadata as m; m.entry_points = lambda **k: []; from state.__main__ import main; main()"
    via = [str(bare_environment / "bin" / "python"), "-c", code]
    assert not helped(via, tmp_path, PYTHONPATH=str(patched))
