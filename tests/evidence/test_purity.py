import os
import subprocess
import sys

PROGRAM = """
import importlib, pkgutil, sys
before = set(sys.modules)
import state_rag.evidence as room
for module in pkgutil.walk_packages(room.__path__, "state_rag.evidence."):
    importlib.import_module(module.name)
for name in sorted(set(sys.modules) - before):
    print(name)
"""
FOREIGN = {"state", "hydra", "omegaconf", "lightning", "pytorch_lightning", "cell_load", "anndata", "pandas", "wandb"}


def test_the_room_loads_no_files_no_state_and_no_other_room():
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, env=environment
    )
    loaded = result.stdout.split()
    assert "state_rag.evidence.estimator" in loaded
    assert not FOREIGN & {name.partition(".")[0] for name in loaded}
    ours = {name for name in loaded if name.startswith("state_rag.")}
    assert {name for name in ours if not name.startswith("state_rag.evidence")} <= {
        "state_rag.errors",
        "state_rag.public",
        # what a label means, and how it is written
        "state_rag.names",
        "state_rag.names.combinations",
        "state_rag.names.drugs",
        "state_rag.names.gene_ids",
        "state_rag.names.spelling",
        "state_rag.names.treatments",
    }
