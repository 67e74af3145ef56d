"""Turn the configuration of a W&B run back into the `config.yaml` that the run was started with."""

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from state_rag.errors import StateRagError
from state_rag.files import close_to_missing
from state_rag.tracking.login import is_logged_in


def config_yaml(config: Mapping[str, Any], source: str) -> str:
    """Return the text of ``config.yaml`` that a run's W&B configuration carries.

    Parameters
    ----------
    config
        The configuration, as `wandb.Api().run(...).config` or W&B's own files have it (there, every value lies under
        ``value``).
    source
        Where it comes from, for the message.

    Raises
    ------
    StateRagError
        If it carries none.
    """
    facts = config.get("state_rag")
    if isinstance(facts, Mapping) and "value" in facts:
        facts = facts["value"]
    text = facts.get("config_yaml") if isinstance(facts, Mapping) else None
    if not isinstance(text, str):
        raise StateRagError(
            f"{source} has no configuration of a `state tx train` run with state-rag (no state_rag.config_yaml). "
            "Name a run that was trained with use_wandb=true and this plugin."
        )
    return text


def read_config(source: str) -> dict[str, Any]:
    """Return the W&B configuration of a run.

    Parameters
    ----------
    source
        ``ENTITY/PROJECT/RUN_ID`` of a run on W&B's server; or the folder of an offline run, its ``.wandb`` file, or a
        ``config.yaml`` or ``.json`` that W&B wrote or exported.

    Raises
    ------
    StateRagError
        If there is no such run, or it cannot be read.
    """
    path = Path(source)
    if path.is_dir():
        found = sorted(path.glob("*.wandb"))
        if len(found) != 1:
            raise StateRagError(f"{path} holds {len(found)} .wandb files; name the folder of one offline run.")
        path = found[0]
    if path.is_file():
        return _from_log(path) if path.suffix == ".wandb" else _from_file(path)
    if source.count("/") == 2 and not path.parent.is_dir():
        return _from_server(source)
    raise StateRagError(
        f"{source}: no such file; expected an offline run's folder, a config file or ENTITY/PROJECT/ID"
        f"{close_to_missing(path, folders=True)}."
    )


def _from_log(path: Path) -> dict[str, Any]:
    """Read an offline run through W&B's own reader."""
    from wandb.util import get_core_path

    command = [get_core_path(), "leet", "inspect", "-no-observability", "-summary", "-json", "-run-file", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    try:
        return json.loads(done.stdout)["config"]
    except (ValueError, KeyError, TypeError) as error:
        reason = (done.stderr.strip().splitlines() or ["no configuration in it"])[-1]
        raise StateRagError(f"{path} cannot be read by W&B's reader: {reason}") from error


def _from_file(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise StateRagError(f"{path} is neither YAML nor JSON ({type(error).__name__}).") from error
    if not isinstance(values, dict):
        raise StateRagError(f"{path} holds no configuration of a W&B run; expected its config file or folder.")
    return values


def _from_server(source: str) -> dict[str, Any]:
    import wandb

    if not is_logged_in():
        raise StateRagError(f"{source} lies on W&B's server and nobody is logged in. Run `wandb login` first.")
    try:
        return dict(wandb.Api(timeout=30).run(source).config)
    except Exception as error:  # noqa: BLE001  W&B raises many types for network, login and unknown runs
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise StateRagError(f"{source} could not be read from W&B ({reason}).") from error
