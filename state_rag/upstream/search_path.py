"""Put our configuration in front of STATE's, for STATE's own entry point and for no other Hydra program."""

from pathlib import Path

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin

from state_rag.settings import follow_preset, preset_defaults
from state_rag.settings_help import config_dir as config_dir
from state_rag.settings_help import preset_names

STATES_CONFIGS = "state.configs"
"""The package that STATE's own entry point takes its configuration from."""


class StateRagSearchPath(SearchPathPlugin):
    """Prepend our groups, and offer STATE's files once more under the longer name `configs/...`.

    The longer name lets `training/default.yaml` of ours start from the file of the same name of STATE's.
    """

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Change the search path if its main entry is STATE's own folder of configurations."""
        main = next((entry.path for entry in search_path.get_path() if entry.provider == "main"), None)
        if main is None or not _is_states(main):
            return
        search_path.prepend(provider="state-rag", path=f"file://{config_dir()}")
        search_path.append(provider="state-rag", path="pkg://state")


def _is_states(path: str) -> bool:
    if path.startswith("pkg://"):
        return path == f"pkg://{STATES_CONFIGS}"
    folder = Path(path.removeprefix("file://"))
    return folder.name == "configs" and (folder.parent / "_cli" / "_tx").is_dir()


def register_search_path() -> None:
    """Register the plugin with Hydra, and the flags with their defaults (a second registration has no effect).

    The flags are registered and not written down in a file, so that `state_rag.settings` is the only place to have
    them: ``state_rag/preset`` is what the preset `none` consists of, ``state_rag/flags`` what `training` adds.
    """
    Plugins.instance().register(StateRagSearchPath)
    told = {
        "presets": f"rag={' | '.join(preset_names())}",
        "help": "`state-rag settings [NAME ...]` says what each flag does",
    }
    nodes = {"preset": {**told, **preset_defaults()}, "flags": follow_preset()}
    for name, node in nodes.items():
        ConfigStore.instance().store(group="state_rag", name=name, node=node, provider="state-rag")
