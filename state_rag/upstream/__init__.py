"""The seam: the only package that names insides of arc-state, cell-load or Hydra.

`plug_in` is called once STATE's command package has been executed, by the import hook of `state_rag.startup`
or by STATE itself where it reads the entry point group `state.plugins`.
"""

from types import ModuleType


def plug_in(commands: ModuleType) -> None:
    """Make STATE's `tx` commands know about retrieval.

    Wraps the functions of `commands` (the module `state._cli._tx`) and registers our configuration. It
    loads no torch, and a second call changes nothing.

    Parameters
    ----------
    commands
        STATE's package of `tx` commands.
    """
    from state_rag.upstream.plug import attach

    attach(commands)
