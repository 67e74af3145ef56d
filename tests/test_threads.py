import subprocess
import sys

import pytest

from state_rag.threads import numba_follows_openmp

AFTER_SCANPY = """
import state_rag, anndata, numpy as np, scanpy as sc, scipy.sparse, torch
cells = anndata.AnnData(scipy.sparse.random(50, 20, 0.5, format="csr", dtype=np.float32))
sc.pp.log1p(cells)
sc.pp.highly_variable_genes(cells)
import numba
print(numba.config.NUMBA_NUM_THREADS, torch.get_num_threads())
"""


def test_numba_takes_no_more_threads_than_openmp_and_leaves_pytorch_those_that_it_has(tmp_path):
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", AFTER_SCANPY]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "1"]


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({}, None),
        ({"OMP_NUM_THREADS": "3"}, "3"),
        ({"OMP_NUM_THREADS": "4,2"}, "4"),
        ({"OMP_NUM_THREADS": "all"}, None),
        ({"OMP_NUM_THREADS": "3", "NUMBA_NUM_THREADS": "2"}, "2"),
    ],
)
def test_what_numba_is_told(given, found):
    environment = dict(given)
    numba_follows_openmp(environment)
    assert environment.get("NUMBA_NUM_THREADS") == found
