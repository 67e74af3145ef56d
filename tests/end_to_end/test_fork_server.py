"""Commands in forks behave as those in processes: streams, folder, variables, exit status."""

import os
import subprocess
import sys
import time

import pytest

from tests.end_to_end.fork_server import FEW_STEPS, QUICK_FITS, ForkServer

SCRIPT = f"""#!{sys.executable}
import os, sys, time
if "wait" in sys.argv:
    time.sleep(60)
print(sys.argv[1:], os.getcwd(), os.environ.get("SAID"), "torch" in sys.modules)
print("to errors", sys.stdin.read(), file=sys.stderr)
sys.exit(int(os.environ.get("CODE", "0")))
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    script = tmp_path_factory.mktemp("scripts") / "told"
    script.write_text(SCRIPT)
    script.chmod(0o755)
    found = ForkServer([str(script)])
    found.script = str(script)
    yield found
    found.close()


def test_a_command_gets_its_arguments_folder_and_variables_and_gives_its_streams_and_status(server, tmp_path):
    environment = {**os.environ, "SAID": "so", "CODE": "3"}
    found = server.run(server.script, ["a", "b c"], tmp_path, environment, 100)
    assert found.returncode == 3
    assert found.stdout == f"['a', 'b c'] {tmp_path} so True\n"
    assert found.stderr == "to errors \n"


def test_a_shell_finds_a_stand_in_with_pipes_and_status(server, tmp_path):
    environment = {**os.environ, "PATH": f"{server.bin}:{os.environ['PATH']}", "CODE": "4"}
    line = "echo given | told x 2> errors | tee out; exit ${PIPESTATUS[1]}"
    found = subprocess.run(["bash", "-c", line], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert found.returncode == 4
    assert found.stdout == (tmp_path / "out").read_text() == f"['x'] {tmp_path} None True\n"
    assert (tmp_path / "errors").read_text() == "to errors given\n\n"


def test_variables_that_imports_read_make_it_a_process_of_its_own(server, tmp_path):
    environment = {**os.environ, "OMP_NUM_THREADS": "7"}
    assert server.run(server.script, [], tmp_path, environment, 100) is None
    found = subprocess.run(
        [str(server.bin / "told")], cwd=tmp_path, env=environment, capture_output=True, text=True, input=""
    )
    assert found.stdout == f"[] {tmp_path} None False\n"


@pytest.mark.parametrize(("given", "steps"), [({}, 250), ({QUICK_FITS: "1"}, FEW_STEPS["steps"])])
def test_fits_take_few_steps_where_that_is_asked(server, tmp_path, given, steps):
    script = tmp_path / "settings"
    script.write_text(
        "from state_rag.evidence.training import Settings\nfound = Settings(seed=5)\n"
        "print(found.seed, found.steps, found.calibrating)\n"
    )
    found = server.run(str(script), [], tmp_path, {**os.environ, **given}, 100)
    assert found.stdout == f"5 {steps} 600\n"


def test_a_command_that_takes_too_long_is_killed(server, tmp_path):
    start = time.monotonic()
    with pytest.raises(subprocess.TimeoutExpired):
        server.run(server.script, ["wait"], tmp_path, os.environ, 1)
    assert time.monotonic() - start < 30
