"""The commands of README.md and docs/ are executed: first those of a user's first day, then every other page's."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.blocks import README, ROOT, TUTORIAL, marked_blocks, pages
from tests.end_to_end.commands import fork_server, own_environment
from tests.end_to_end.fork_server import QUICK_FITS

pytestmark = pytest.mark.slow


def executed(page):
    return [block for block in marked_blocks(page) if block.mark.startswith("run")]


OTHERS = [page for page in pages() if page not in (README, TUTORIAL) and executed(page)]


def run_page(page, folder):
    """Execute the blocks of a page in a folder, one after the other."""
    # console scripts run in forks of a Python that has the large libraries
    search = os.pathsep.join([str(fork_server().bin), str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**own_environment(), "PATH": search, "COLUMNS": "120", "MPLBACKEND": "Agg", QUICK_FITS: "1"}
    for block in executed(page):
        finished = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block.script()],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )
        if finished.returncode:
            tail = f"{finished.stdout[-2000:]}\n{finished.stderr[-4000:]}"
            raise AssertionError(f"{block.place} ended with {finished.returncode}:\n{block.script()}\n{tail}")


@pytest.fixture(scope="session")
def first_day(build_once):
    """The folder that README.md and the tutorial leave behind. Copy before use."""

    def make(folder):
        run_page(README, folder)
        run_page(TUTORIAL, folder)

    return build_once("first-day", make)


@pytest.mark.timeout(900)
def test_the_commands_of_the_readme_and_the_tutorial_run_and_write_what_they_say(first_day):
    for name in ("split.toml", "runs/ptrag/config.yaml", "report/index.html", "tables/comparison.csv"):
        assert (first_day / name).exists(), name


@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", OTHERS, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_commands_of_a_page_run(page, first_day, tmp_path):
    folder = tmp_path / "day"
    shutil.copytree(first_day, folder)
    run_page(page, folder)
