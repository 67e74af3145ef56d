import subprocess
import sys

import pytest

AFTER_SCANPY = """
import anndata, numpy as np, scipy.sparse, torch
from state_rag.datasets.hvg import highly_variable
from state_rag.threads import torch_threads_kept

cells = anndata.AnnData(scipy.sparse.random(50, 40, 0.5, format="csr", dtype=np.float32))
{call}
print(torch.get_num_threads())
"""


@pytest.mark.parametrize(
    "call",
    [
        "highly_variable(cells, 10)",
        "with torch_threads_kept():\n    torch.set_num_threads(7)",
    ],
)
def test_pytorch_keeps_its_threads(call, tmp_path):
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", AFTER_SCANPY.format(call=call)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"
