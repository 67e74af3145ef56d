import os
import signal
import subprocess
import sys

import pytest

from state_rag.experiments import lock
from state_rag.experiments.lock import is_locked, job_lock

HOLDER = """
import subprocess, sys, time
from pathlib import Path
from state_rag.experiments.lock import job_lock
with job_lock(Path(sys.argv[1]), "a") as held:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"],
                             pass_fds=(held,) if sys.argv[2] == "shared" else ())
    print(child.pid, flush=True)
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def short_glance(monkeypatch):
    monkeypatch.setattr(lock, "GLANCE", 0.05)


def held_by_another(folder, kind):
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(folder), kind], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    return holder, int(holder.stdout.readline())


def test_a_job_is_locked_for_others_while_one_holds_it(tmp_path):
    with job_lock(tmp_path, "a") as first, job_lock(tmp_path, "a") as second, job_lock(tmp_path, "b") as other:
        assert first is not None
        assert second is None
        assert other is not None
        assert is_locked(tmp_path, "a")
    assert not is_locked(tmp_path, "a")


def test_looking_at_a_job_that_nobody_began_writes_nothing(tmp_path):
    assert not is_locked(tmp_path, "a")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["own", "shared"])
def test_a_lock_is_free_once_its_holder_and_the_commands_it_shares_it_with_are_gone(tmp_path, kind):
    holder, child = held_by_another(tmp_path, kind)
    try:
        assert is_locked(tmp_path, "a")
        holder.kill()
        holder.wait()
        assert is_locked(tmp_path, "a") == (kind == "shared")
    finally:
        os.kill(child, signal.SIGKILL)
    with job_lock(tmp_path, "a", wait=True) as held:
        assert held is not None
