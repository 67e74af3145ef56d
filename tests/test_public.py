"""The Python API is light until it is used, complete, and documented with examples."""

import inspect
import json
import statistics
import subprocess
import sys
import time

import pytest

import state_rag
from state_rag.public import NAMES

PUBLIC = [(module, name) for module, names in NAMES.items() for name in names]


def modules_after(code):
    """Return the modules that a fresh Python has loaded after some code."""
    program = f"{code}\nimport sys, json; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in json.loads(done.stdout)}


def test_importing_the_package_loads_no_library():
    heavy = {"torch", "numpy", "pandas", "anndata", "lightning", "state", "hydra", "matplotlib", "scanpy"}
    assert not modules_after("import state_rag as sr; dir(sr)") & heavy


def test_importing_the_package_takes_less_than_50_ms_more_than_bare_python():
    def seconds(code):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        return time.perf_counter() - start

    pairs = [(seconds("pass"), seconds("import state_rag")) for _ in range(9)]
    assert statistics.median(with_ours - bare for bare, with_ours in pairs) < 0.05


def test_the_metrics_need_neither_lightning_nor_hydra_nor_state():
    code = "import state_rag as sr, numpy as np; sr.metrics.mse(np.ones((2, 3)), np.ones((2, 3))); sr.metrics.table()"
    code += "; import state_rag.metrics.distances, state_rag.metrics.significance, state_rag.metrics.degs"
    assert not modules_after(code) & {
        "lightning",
        "pytorch_lightning",
        "hydra",
        "state",
        "cell_load",
        "anndata",
    }


@pytest.mark.parametrize(("module", "name"), PUBLIC)
def test_every_public_name_is_there_and_says_what_it_is(module, name):
    found = getattr(__import__(module, fromlist=[name]), name)
    assert name in dir(sys.modules[module])
    if inspect.isfunction(found):
        assert "Parameters\n" in found.__doc__ or not inspect.signature(found).parameters
        missing = [parameter for parameter in inspect.signature(found).parameters if parameter not in found.__doc__]
        assert not missing


def test_a_name_that_is_not_public_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'state_rag' has no attribute 'lod'"):
        _ = state_rag.lod
