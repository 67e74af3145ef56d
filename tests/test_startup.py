import json
import os
import subprocess
import sys

import pytest

from state_rag.upstream.plug import PARSERS, RUNNERS

HEAVY = ("torch", "lightning", "numpy", "pandas", "anndata", "hydra", "state", "cell_load", "yaml")


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory):
    """A folder with a package that has the names of STATE's commands and none of its imports, which take seconds."""
    folder = tmp_path_factory.mktemp("stand-in")
    commands = folder / "state" / "_cli" / "_tx"
    commands.mkdir(parents=True)
    (folder / "state" / "__init__.py").touch()
    (folder / "state" / "_cli" / "__init__.py").touch()
    names = (*RUNNERS, *PARSERS)
    (commands / "__init__.py").write_text("".join(f"def {name}(given): pass\n\n\n" for name in names))
    (commands / "_train.py").touch()
    return {"PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)}


def python(code, **environment):
    """Run code in an interpreter that has not been armed at start."""
    finished = subprocess.run(
        [sys.executable, "-c", f"import state_rag.startup as startup; startup.disarm()\n{code}"],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return finished


@pytest.mark.parametrize("code", ["import state_rag", "startup.arm()", "startup.arm(); startup.arm()"])
def test_importing_and_arming_load_nothing_heavy(code):
    loaded = python(f"{code}\nimport sys, json; print(json.dumps(sorted(sys.modules)))").stdout
    roots = {name.partition(".")[0] for name in json.loads(loaded)}
    assert not roots & set(HEAVY)


def test_loading_and_arming_take_less_than_two_milliseconds():
    code = """
import os, sys, time
times = []
for _ in range(41):
    for name in [name for name in sys.modules if name.startswith("state_rag")]:
        del sys.modules[name]
    start = time.perf_counter()
    import state_rag.startup
    state_rag.startup.arm()
    times.append(time.perf_counter() - start)
    assert any(type(finder).__name__ == "CommandsFinder" for finder in sys.meta_path)
    state_rag.startup.disarm()
print(sorted(times)[len(times) // 2])
"""
    assert float(python(code).stdout) < 2e-3


def test_arming_twice_leaves_one_finder_and_disarming_none():
    code = """
import sys
from state_rag.startup import CommandsFinder, arm, disarm
count = lambda: sum(isinstance(finder, CommandsFinder) for finder in sys.meta_path)
before = list(sys.meta_path)
arm(); arm(); print(count(), end=" ")
disarm(); print(count(), sys.meta_path == before)
"""
    assert python(code).stdout == "1 0 True\n"


def test_the_finder_answers_for_one_name_only():
    code = """
from state_rag.startup import CommandsFinder
finder = CommandsFinder()
print([finder.find_spec(name) for name in ("state", "state._cli", "state._cli._tx._train", "json", "state_rag")])
"""
    assert python(code).stdout == f"{[None] * 5}\n"


def test_the_finder_removes_itself_when_the_commands_have_been_wrapped(stand_in):
    code = """
import sys
startup.arm()
import state._cli._tx as commands
print(commands.__state_rag__, any(isinstance(finder, startup.CommandsFinder) for finder in sys.meta_path))
"""
    assert python(code, **stand_in).stdout == "True False\n"


def test_states_own_commands_are_wrapped_when_they_are_imported():
    code = """
startup.arm()
import state._cli._tx as commands, state.__main__ as entry
print(commands.__state_rag__, entry.run_tx_train is commands.run_tx_train, commands.run_tx_train.__module__)
"""
    assert python(code).stdout == "True True state._cli._tx._train\n"


def test_wrapping_the_commands_loads_no_torch():
    code = """
import sys
from types import ModuleType
from state_rag.upstream import plug_in
from state_rag.upstream.plug import PARSERS, RUNNERS
commands = ModuleType("commands")
for name in (*RUNNERS, *PARSERS):
    setattr(commands, name, lambda argument: None)
plug_in(commands)
print(commands.__state_rag__, "torch" in sys.modules)
"""
    assert python(code).stdout == "True False\n"


def test_arming_late_wraps_commands_that_are_loaded_already(stand_in):
    code = """
import state._cli._tx as commands
before = commands.run_tx_train
print(hasattr(commands, "__state_rag__"), end=" ")
startup.arm()
print(commands.__state_rag__, commands.run_tx_train is before)
"""
    assert python(code, **stand_in).stdout == "False True False\n"


@pytest.mark.parametrize(("value", "attached"), [("1", False), ("yes", False), ("0", True), ("", True)])
def test_the_environment_variable_decides_whether_anything_is_attached(value, attached, stand_in):
    code = """
startup.arm()
import state._cli._tx as commands
print(hasattr(commands, "__state_rag__"))
"""
    assert python(code, STATE_RAG_DISABLE=value, **stand_in).stdout == f"{attached}\n"


def test_without_state_installed_the_finder_finds_nothing():
    code = """
import sys
startup.arm()
sys.modules["state._cli"] = type(sys)("state._cli")
sys.modules["state._cli"].__path__ = []
sys.modules["state"] = type(sys)("state")
try:
    import state._cli._tx
except ModuleNotFoundError as error:
    print(error)
"""
    assert python(code).stdout == "No module named 'state._cli._tx'\n"
