"""Wait for STATE's command line and attach to it: the only code that runs in an unrelated Python process.

The wheel ships `state_rag.pth`, which Python's `site` reads when an interpreter starts; its one line calls
`arm()`. That puts a single finder on `sys.meta_path`. It answers for one module name and lets every other
import pass; when STATE's command package has been executed the finder removes itself and hands the module to
`state_rag.upstream.plug_in`. Set ``STATE_RAG_DISABLE=1`` to leave STATE as it is.
"""

import os
import sys
from types import ModuleType

COMMANDS = "state._cli._tx"
"""STATE's package of `tx` commands, whose functions we wrap."""


class CommandsFinder:
    """A meta path finder that waits for `COMMANDS` and for nothing else."""

    def find_spec(self, name: str, path: object = None, target: object = None):
        """Return the spec of STATE's command package with a wrapped loader, None for every other name."""
        if name != COMMANDS:
            return None
        disarm()
        from importlib.util import find_spec

        spec = find_spec(name)
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            from state_rag.upstream import plug_in

            plug_in(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def arm() -> None:
    """Attach to STATE when it is imported; does nothing when disabled or when armed already.

    If STATE's commands are loaded already they are wrapped at once.
    """
    if os.environ.get("STATE_RAG_DISABLE", "") not in ("", "0"):
        return
    if COMMANDS in sys.modules:
        from state_rag.upstream import plug_in

        plug_in(sys.modules[COMMANDS])
    elif not any(isinstance(finder, CommandsFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, CommandsFinder())  # type: ignore[arg-type]


def disarm() -> None:
    """Take the finder off `sys.meta_path` again."""
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, CommandsFinder)]
