"""What Hydra refuses, said in one line and with what would be right."""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from state_rag.errors import StateRagError
from state_rag.names import suggest
from state_rag.upstream.overrides import composed


@contextmanager
def errors_for_users(overrides: Sequence[str], config: str) -> Iterator[None]:
    """Say in one line what Hydra would say with its search path and a stack trace.

    Parameters
    ----------
    overrides
        What was given.
    config
        Name of the configuration that they change.

    Raises
    ------
    StateRagError
        In place of Hydra's exceptions.
    """
    before = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    except MissingConfigException as error:
        group, _, name = (error.missing_cfg_file or "").rpartition("/")
        raise StateRagError(
            f"{group}={name}: there is no such preset{suggest([name], error.options or [])}. Use one of: "
            f"{', '.join(sorted(error.options or []))}."
        ) from None
    except HydraException as error:
        raise StateRagError(_unknown_key(str(error), overrides, config) or " ".join(str(error).split())) from None
    except OmegaConfBaseException as error:
        raise StateRagError(f"{' '.join(overrides)}: {' '.join(str(error).split())}.") from None
    finally:
        os.environ.pop("HYDRA_FULL_ERROR")
        if before is not None:
            os.environ["HYDRA_FULL_ERROR"] = before


def _unknown_key(message: str, overrides: Sequence[str], config: str) -> str | None:
    """Return what to say of a key that the configuration lacks; None if the message is about something else."""
    found = re.match(r"Could not override '([^']+)'", message)
    if found is None:
        return None
    key = found.group(1)
    given = next((text for text in overrides if text.partition("=")[0] == key), f"{key}=VALUE")
    close = suggest([key], _keys(composed(config=config)))
    return f"{given}: the configuration has no key {key}{close}. `+{given}` adds it."


def _keys(config: DictConfig, prefix: str = "") -> list[str]:
    """Return the dotted names of all keys but the presets', which `training` repeats."""
    found: list[str] = []
    for key in map(str, config):
        found.append(f"{prefix}{key}")
        if isinstance(node := config._get_node(key), DictConfig) and key != "rag":
            found += _keys(node, f"{prefix}{key}.")
    return found
