"""Two processes train one model."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.tracking.training import metrics

PROGRAM = """
import sys
from tests import tiny_model as tiny
from tests.tracking.training import train

model = tiny.build(rag_watch=["GENE6"], check_gradients=True, gradient_check_interval=2)
train(model, sys.argv[1], strategy="ddp", devices=2)
"""


@pytest.mark.slow
def test_logging_neither_waits_for_the_other_process_nor_writes_twice(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    root = str(Path(__file__).parents[2])
    command = [sys.executable, "program.py", "out"]
    environment = {"PYTHONPATH": root, "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", "HOME": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = metrics(tmp_path / "out")
    assert [int(row["step"]) for row in rows if "retrieval/n_selected" in row] == [1, 3, 5]
    assert [int(row["step"]) for row in rows if "gradients/selector" in row] == [0, 2, 4]
    assert [int(row["step"]) for row in rows if "val_retrieval/n_selected" in row] == [2, 5]
    watched = (tmp_path / "out" / "version_0" / "watched_neighbours.csv").read_text().splitlines()
    assert len(watched) == 1 + 2 * 3
