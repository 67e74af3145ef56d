"""How a command is asked of the server of forks: over a Unix socket, with the streams that it shall use.

Nothing but the standard library is imported, so that a stand-in for a console script starts in milliseconds.
"""

import json
import os
import socket
import sys
from collections.abc import Sequence
from typing import Any

REFUSED = "refused"


def ask(server: str, request: dict[str, Any], streams: Sequence[int], timeout: float | None = None) -> int | None:
    """Return a command's exit status; None where the server refuses it.

    Parameters
    ----------
    server
        Path of its socket.
    request
        `command`, `cwd`, `environment` and what else the server reads.
    streams
        File descriptors of input, output and errors.
    timeout
        Seconds; a command that takes longer is killed.

    Raises
    ------
    TimeoutError
        If it took longer.
    ConnectionError
        If the server ended.
    """
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(server)
        connection.settimeout(timeout)
        socket.send_fds(connection, [b"+"], list(streams))
        connection.sendall(json.dumps(request).encode() + b"\n")
        with connection.makefile("rb") as answers:
            answer = answers.readline()
    if not answer:
        raise ConnectionError(f"the server of forks ended at {request['command']}")
    found = json.loads(answer)
    return None if found == REFUSED else int(found)


def stand_in(server: str, script: str) -> None:
    """Run a console script in a fork, with this process's arguments, folder, environment and streams; ends it."""
    command = [script, *sys.argv[1:]]
    request = {"command": command, "cwd": os.getcwd(), "environment": dict(os.environ)}
    code = ask(server, request, (0, 1, 2))
    if code is None:
        os.execv(script, command)
    sys.exit(code if code >= 0 else 128 - code)
