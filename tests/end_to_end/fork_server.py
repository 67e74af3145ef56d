"""A Python that has imported what every command imports, and runs each command in a fork of itself.

A command of ours or of STATE spends some seconds on importing PyTorch, scanpy and the like. The server imports these
once; neither STATE nor our package is among them, so that the plugin gets in as it does in a fresh process. Each
request runs the console script itself, as the main module, with its own folder, environment and streams.
"""

import atexit
import importlib
import json
import os
import resource
import runpy
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

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
READ_AT_IMPORT = ("PYTHON", "OMP", "MKL", "HF_", "MPL", "CUDA", "STATE_RAG_DISABLE")
"""Variables that modules look at when they are imported begin so; where they are others, a fork will not do."""


class ForkServer:
    """Runs console scripts in forks, one after another."""

    def __init__(self) -> None:
        self.environment = dict(os.environ)
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        atexit.register(self.process.kill)

    def serves(self, environment: Mapping[str, str]) -> bool:
        """Return whether a command with these variables can be run in a fork."""
        names = {name for name in {*environment, *self.environment} if name.startswith(READ_AT_IMPORT)}
        return all(environment.get(name) == self.environment.get(name) for name in names)

    def run(
        self,
        script: str,
        arguments: Sequence[str],
        cwd: Path,
        environment: Mapping[str, str],
        file_limit: int | None,
        timeout: float,
    ) -> subprocess.CompletedProcess[str]:
        """Run a console script and return how it ended."""
        command = [script, *arguments]
        with tempfile.TemporaryDirectory() as folder:
            streams = [str(Path(folder) / name) for name in ("out", "err")]
            request = {
                "command": command,
                "cwd": str(cwd),
                "environment": dict(environment),
                "file_limit": file_limit,
                "timeout": timeout,
                "streams": streams,
            }
            assert self.process.stdin is not None
            assert self.process.stdout is not None
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
            if not answer:
                raise RuntimeError(f"the server of forks ended ({self.process.poll()}) at {command}")
            told = [Path(path).read_text(errors="replace") for path in streams]
        code = json.loads(answer)["code"]
        if code is None:
            raise subprocess.TimeoutExpired(command, timeout, *told)
        return subprocess.CompletedProcess(command, code, *told)


def serve() -> None:
    """Answer requests, a line each, until the input ends."""
    for name in PRELOADED:
        with suppress(ImportError):
            importlib.import_module(name)
    # what a library prints must not be read as an answer
    answers, requests = os.fdopen(os.dup(1), "w"), os.fdopen(os.dup(0))
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 0)
    os.dup2(nowhere, 1)
    for line in requests:
        asked = json.loads(line)
        child = os.fork()
        if child == 0:
            answers.close()
            requests.close()
            _execute(asked)
        answers.write(json.dumps({"code": _wait(child, asked["timeout"])}) + "\n")
        answers.flush()


def _wait(child: int, timeout: float) -> int | None:
    """Return a child's exit status as `subprocess` gives it; None if it took too long and was killed."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def _execute(asked: dict) -> None:
    """Become the command; does not return."""
    code = 1
    try:
        for number, path in enumerate(asked["streams"], start=1):
            stream = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(stream, number)
            os.close(stream)
        os.chdir(asked["cwd"])
        os.environ.clear()
        os.environ.update(asked["environment"])
        if asked["file_limit"] is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (asked["file_limit"],) * 2)
        sys.argv = list(asked["command"])
        # a script's own folder stands first
        sys.path[0] = str(Path(sys.argv[0]).parent)
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


if __name__ == "__main__":
    serve()
