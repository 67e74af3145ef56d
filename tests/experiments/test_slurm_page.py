"""What the page on Slurm submits, with an `sbatch` that only takes it."""

import os
import subprocess
import sys

import pytest

from tests.docs.blocks import ROOT, marked_blocks


@pytest.fixture
def submitted(tmp_path):
    """The script that submitit hands to sbatch for the page's Python block."""
    pytest.importorskip("submitit")
    (tmp_path / "bin").mkdir()
    for name, body in {"sbatch": "cp $1 submitted.sh; echo Submitted batch job 7", "srun": "exit 1"}.items():
        program = tmp_path / "bin" / name
        program.write_text(f"#!/bin/sh\n{body}\n")
        program.chmod(0o755)
    (block,) = (b for b in marked_blocks(ROOT / "docs" / "howto" / "slurm.md") if "submitit.AutoExecutor" in b.text)
    (tmp_path / "submit.py").write_text(block.text)
    environment = {**os.environ, "PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        [sys.executable, "submit.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "7"
    return (tmp_path / "submitted.sh").read_text()


def test_one_task_a_device_is_submitted_and_ends_where_one_of_them_fails(submitted):
    asked = {line.removeprefix("#SBATCH ").strip() for line in submitted.splitlines() if line.startswith("#SBATCH")}
    assert {"--nodes=2", "--ntasks-per-node=4", "--gpus-per-node=4", "--job-name=train"} <= asked
    assert "--kill-on-bad-exit=1" in submitted
