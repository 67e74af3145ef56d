"""Say a job's whole configuration as overrides of `state tx train`."""

import functools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from state_rag.upstream.overrides import quoted
from state_rag.upstream.search_path import STATES_CONFIGS, register_search_path

NOT_COMPARED = ("rag", "output_dir", "name", "overwrite")

_ABSENT = object()


def overrides_of(config: Mapping[str, Any], groups: Mapping[str, str]) -> tuple[str, ...]:
    """Return the shortest overrides that make `state tx train` compose this configuration.

    Parameters
    ----------
    config
        The resolved configuration. Not looked at are the section `rag`, since `training` holds what it comes to, and
        where the run is written to.
    groups
        Chosen option of each group of STATE's configuration, such as ``{"model": "rag"}``.

    Returns
    -------
    tuple of str
        Groups first, then single keys.
    """
    chosen = tuple(f"{group}={option}" for group, option in sorted(groups.items()))
    plain, wanted = (
        {key: value for key, value in values.items() if key not in NOT_COMPARED}
        for values in (_composed(chosen), config)
    )
    return (*chosen, *_differences(plain, wanted, ""))


@functools.lru_cache(maxsize=32)
def _composed(overrides: tuple[str, ...]) -> dict[str, Any]:
    register_search_path()
    with _no_other_application(), initialize_config_module(STATES_CONFIGS, version_base="1.3"):
        values = OmegaConf.to_container(compose("config", list(overrides)), resolve=True)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


@contextmanager
def _no_other_application() -> Iterator[None]:
    """Put the Hydra application that is running aside, since there can only be one."""
    running = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        yield
    finally:
        GlobalHydra.instance().clear()
        if running is not None:
            GlobalHydra.instance().initialize(running)


def _differences(plain: Mapping[str, Any], wanted: Mapping[str, Any], prefix: str) -> list[str]:
    found = [f"~{prefix}{key}" for key in plain if key not in wanted]
    for key, value in wanted.items():
        old = plain.get(key, _ABSENT)
        if isinstance(value, Mapping) and isinstance(old, Mapping):
            found += _differences(old, value, f"{prefix}{key}.")
        elif old is _ABSENT:
            found.append(f"++{prefix}{key}={quoted(value)}")
        elif old != value or type(old) is not type(value):
            found.append(f"{prefix}{key}={quoted(value)}")
    return found
