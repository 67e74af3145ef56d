"""Say a job's whole configuration as overrides of `state tx train`."""

import copy
import functools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

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
    composed = copy.deepcopy(_composed(chosen))
    wanted = {key: value for key, value in config.items() if key not in NOT_COMPARED}
    found: dict[tuple[str, ...], str] = {}

    def differing() -> list[tuple[tuple[str, ...], Any]]:
        return [(keys, value) for keys, value in _differences(_compared(composed), wanted, ()) if keys not in found]

    # A key that follows another one changes with it, so that it may differ only once the others are as wanted.
    while differs := differing():
        found.update((keys, _changed(composed, keys, value)) for keys, value in differs)
    return (*chosen, *found.values())


@functools.lru_cache(maxsize=32)
def _composed(overrides: tuple[str, ...]) -> DictConfig:
    """Return a composed configuration, in which keys still follow each other."""
    register_search_path()
    with _no_other_application(), initialize_config_module(STATES_CONFIGS, version_base="1.3"):
        composed = compose("config", list(overrides))
    OmegaConf.set_struct(composed, False)
    return composed


def _compared(composed: DictConfig) -> dict[str, Any]:
    values = OmegaConf.to_container(composed, resolve=True)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items() if key not in NOT_COMPARED}


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


def _differences(
    plain: Mapping[str, Any], wanted: Mapping[str, Any], above: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield the keys that differ, each with the value wanted, or `_ABSENT`."""
    for key in plain:
        if key not in wanted:
            yield (*above, key), _ABSENT
    for key, value in wanted.items():
        old = plain.get(key, _ABSENT)
        if isinstance(value, Mapping) and isinstance(old, Mapping):
            yield from _differences(old, value, (*above, key))
        elif old != value or type(old) is not type(value):
            yield (*above, key), value


def _changed(composed: DictConfig, keys: tuple[str, ...], value: Any) -> str:
    """Change a configuration, and return the override that does it."""
    parent, name = composed, ".".join(keys)
    for above in keys[:-1]:
        parent = parent[above]
    if value is _ABSENT:
        del parent[keys[-1]]
        return f"~{name}"
    override = f"{'' if keys[-1] in parent else '++'}{name}={quoted(value)}"
    parent[keys[-1]] = OverridesParser.create().parse_override(override).value()
    return override
