"""A Python that has imported what every command imports, and runs each command in a fork of itself.

A command of ours or of STATE spends some seconds on importing PyTorch, scanpy and the like. The server imports these
once; neither STATE nor our package is among them, so that the plugin gets in as it does in a fresh process. Each
request runs the console script itself, as the main module, with its own folder, environment and streams. Shells find
stand-ins of the scripts in a folder, `bin`.
"""

import atexit
import importlib
import io
import json
import os
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import fields
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from tests.end_to_end.fork_protocol import REFUSED, ask

PRELOADED = (
    "torch",
    "lightning.pytorch",
    "anndata",
    "scanpy",
    "hydra",
    "omegaconf",
    "transformers.models.llama.modeling_llama",
    "geomloss",
    "sklearn.linear_model",
    "scipy.stats",
    "h5py",
    "pandas",
    "torchmetrics",
    "rich.table",
)
READ_AT_IMPORT = ("PYTHON", "OMP", "NUMBA", "MKL", "HF_", "MPL", "CUDA", "STATE_RAG_DISABLE")
"""Variables that modules look at when they are imported begin so; where they are others, a fork will not do."""

QUICK_FITS = "STATE_RAG_TESTS_QUICK_FITS"
"""Variable with which the evidence engine is fitted in few steps: what commands do is the same, not how well."""

FEW_STEPS = {"steps": 8, "episodes": 6, "judging": 2, "fusion_steps": 10}
"""Of `state_rag.evidence.training.Settings`."""

BACKEND = "MPLBACKEND"
"""What Matplotlib draws with, by an environment variable; it can be changed after the import."""

STAND_IN = """#!{python} -IS
import sys
sys.path.insert(0, {tests!r})
from fork_protocol import stand_in
stand_in({server!r}, {script!r})
"""


class ForkServer:
    """Runs console scripts in forks.

    Attributes
    ----------
    bin
        Folder of stand-ins for the scripts, for shells that look there first.
    """

    def __init__(self, scripts: Sequence[str]) -> None:
        # a short path, since that of a socket may have some hundred characters only
        self._folder = Path(tempfile.mkdtemp(prefix="forks"))
        self.server = str(self._folder / "socket")
        self.bin = self._folder / "bin"
        self.bin.mkdir()
        for script in scripts:
            place = self.bin / Path(script).name
            told = {"python": sys.executable, "tests": str(Path(__file__).parent), "server": self.server}
            place.write_text(STAND_IN.format(**told, script=script))
            place.chmod(0o755)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(self.server)
        listener.listen()
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve()), str(listener.fileno())],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[listener.fileno()],
        )
        listener.close()
        atexit.register(self.close)

    def close(self) -> None:
        """End the server."""
        self.process.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def run(
        self,
        script: str,
        arguments: Sequence[str],
        cwd: Path,
        environment: Mapping[str, str],
        timeout: float,
    ) -> subprocess.CompletedProcess[str] | None:
        """Run a console script and return how it ended; None where a fork will not do."""
        command = [script, *arguments]
        request = {"command": command, "cwd": str(cwd), "environment": dict(environment)}
        with open(os.devnull) as nothing, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            streams = [stream.fileno() for stream in (nothing, out, err)]
            code: int | None = None
            late = False
            try:
                code = ask(self.server, request, streams, timeout)
            except TimeoutError:
                late = True
            told = []
            for stream in (out, err):
                stream.seek(0)
                told.append(io.TextIOWrapper(stream, errors="replace").read())
        if late:
            raise subprocess.TimeoutExpired(command, timeout, *told)
        return None if code is None else subprocess.CompletedProcess(command, code, *told)


def serve(listener: socket.socket) -> None:
    """Answer requests until the standard input ends."""
    own = dict(os.environ)
    for name in PRELOADED:
        with suppress(ImportError):
            importlib.import_module(name)
    while True:
        ready, _, _ = select.select([listener, 0], [], [])
        if 0 in ready:
            return
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            _answer(connection, own)
            os._exit(0)
        connection.close()
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def serves(environment: Mapping[str, str], own: Mapping[str, str]) -> bool:
    """Return whether a command with these variables can be run in a fork of a process with its own."""
    names = {name for name in {*environment, *own} if name.startswith(READ_AT_IMPORT) and name != BACKEND}
    return all(environment.get(name) == own.get(name) for name in names)


def _answer(connection: socket.socket, own: Mapping[str, str]) -> None:
    """Run what is asked, and tell how it ended; kill it if nobody waits for it any more."""
    _, streams, _, _ = socket.recv_fds(connection, 1, 3)
    with connection.makefile("rb") as lines:
        asked = json.loads(lines.readline())
    if not serves(asked["environment"], own):
        connection.sendall(json.dumps(REFUSED).encode() + b"\n")
        return
    child = os.fork()
    if child == 0:
        connection.close()
        _execute(asked, streams)
    for stream in streams:
        os.close(stream)
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            break
        if select.select([connection], [], [], 0.01)[0]:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return
    connection.sendall(json.dumps(os.waitstatus_to_exitcode(status)).encode() + b"\n")


def _execute(asked: dict, streams: Sequence[int]) -> None:
    """Become the command; does not return."""
    code = 1
    try:
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        os.chdir(asked["cwd"])
        os.environ.clear()
        os.environ.update(asked["environment"])
        if BACKEND in os.environ and "matplotlib" in sys.modules:
            sys.modules["matplotlib"].rcParams["backend"] = os.environ[BACKEND]
        sys.argv = list(asked["command"])
        # a script's own folder stands first
        sys.path[0] = str(Path(sys.argv[0]).parent)
        for name in [name for name in sys.modules if name.partition(".")[0] == "tests"]:
            del sys.modules[name]
        if os.environ.get(QUICK_FITS):
            _fit_quickly()
        runpy.run_path(sys.argv[0], run_name="__main__")
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            sys.stderr.write(end.code + "\n")
    except BaseException:  # noqa: BLE001, as the interpreter does with what nobody caught
        traceback.print_exc()
    finally:
        with suppress(BaseException):
            atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with suppress(BaseException):
                stream.flush()
        os._exit(code)


def _fit_quickly() -> None:
    settings = importlib.import_module("state_rag.evidence.training").Settings
    settings.__init__.__defaults__ = tuple(FEW_STEPS.get(one.name, one.default) for one in fields(settings))


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
