"""What `state-rag quickstart` prints runs as it stands, from the split to the report."""

import os
import subprocess
import sys
from pathlib import Path

import anndata
import pytest

from tests.end_to_end import commands

pytestmark = pytest.mark.slow


def test_the_printed_script_runs_on_a_file_with_other_names(project, tmp_path):
    cells = anndata.read_h5ad(project.h5ad)
    cells.obs = cells.obs.rename(columns={"gene": "target gene", "cell_line": "cell type", "gem_group": "plate"})
    cells.obs["target gene"] = cells.obs["target gene"].cat.rename_categories({"non-targeting": "NT ctrl"})
    del cells.obsm["X_hvg"]
    cells.write_h5ad(tmp_path / "my cells.h5ad")
    printed = commands.run(
        ["quickstart", "my cells.h5ad", "--embeddings", str(project.embeddings)], tmp_path, via=commands.OURS
    ).stdout
    # The commands as printed; only the size of model and training is a test's.
    small = " ".join(f"'{one}'" for one in (*commands.TINY_MODEL, "training.max_steps=4", "training.val_freq=2"))
    (tmp_path / "run.sh").write_text(
        printed.replace("output_dir=runs", f"{small} data.kwargs.num_workers=0 training.batch_size=4 output_dir=runs")
    )
    # console scripts run in forks of a Python that has the large libraries
    path = os.pathsep.join([str(commands.fork_server().bin), str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["sh", "-e", "run.sh"],
        cwd=tmp_path,
        env={**commands.own_environment(), "PATH": path},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, f"{printed}\n{done.stdout[-1500:]}\n{done.stderr[-3000:]}"
    assert (tmp_path / "report" / "index.html").is_file()
