"""Say a configuration as overrides of `state tx train`."""

import copy
import functools
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from omegaconf import DictConfig, OmegaConf

from state_rag.upstream.search_path import STATES_CONFIGS, register_search_path

_PLAIN = re.compile(r"[A-Za-z_/.][A-Za-z0-9_/.-]*")
_RESERVED = re.compile(r"(?i)true|false|null|inf|nan")
_FOLLOWED = re.compile(r"\$\{([^${}:]+)\}")
_ABSENT = object()

Keys = tuple[str, ...]


def overrides_of(
    config: Mapping[str, Any], groups: Mapping[str, str] | None = None, *, leaving_out: Collection[str] = ()
) -> tuple[str, ...]:
    """Return overrides, not many more than it takes, with which `state tx train` composes a configuration.

    Parameters
    ----------
    config
        The configuration, resolved, as in a ``config.yaml``.
    groups
        Options to start from, such as ``{"model": "rag"}``; without, STATE's defaults.
    leaving_out
        Sections that are not looked at.

    Returns
    -------
    tuple of str
        Groups first, then single keys, in Hydra's grammar: ``key=value`` and ``++key=value`` set, ``~key`` removes.
    """
    chosen = tuple(f"{group}={option}" for group, option in sorted((groups or {}).items()))
    target = copy.deepcopy(composed(chosen))

    def differing(*, resolve: bool) -> list[tuple[Keys, Any]]:
        now: Any = OmegaConf.to_container(target, resolve=resolve)
        return list(_differences(_without(now, leaving_out), _without(config, leaving_out), ()))

    gone = [keys for keys, value in differing(resolve=False) if value is _ABSENT]
    # What follows a key that will be gone has to be said, even where it has the right value.
    said = {keys: _set(target, keys, _at(config, keys)) for keys in _followers(target, gone)}
    # A key that follows another one changes with it, so that it may differ only once the others are as wanted.
    while differs := [(keys, value) for keys, value in differing(resolve=True) if keys not in gone]:
        said.update((keys, _set(target, keys, value)) for keys, value in differs)
    return (*chosen, *said.values(), *(override for keys in gone for override in _removal(target, keys)))


@functools.lru_cache(maxsize=32)
def composed(overrides: tuple[str, ...] = (), config: str = "config") -> DictConfig:
    """Return a configuration in which keys still follow each other: STATE's, or another that starts from it.

    It is shared by all callers: copy it before a change.
    """
    register_search_path()
    with _no_other_application(), initialize_config_module(STATES_CONFIGS, version_base="1.3"):
        found = compose(config, list(overrides))
    OmegaConf.set_struct(found, False)
    return found


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


def _without(values: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in names}


def _differences(now: Mapping[str, Any], wanted: Mapping[str, Any], above: Keys) -> Iterator[tuple[Keys, Any]]:
    """Yield the keys that differ, each with the value wanted, or `_ABSENT`."""
    for key in now:
        if key not in wanted:
            yield (*above, key), _ABSENT
    for key, value in wanted.items():
        old = now.get(key, _ABSENT)
        if isinstance(value, Mapping) and isinstance(old, Mapping):
            yield from _differences(old, value, (*above, key))
        elif old != value or type(old) is not type(value):
            yield (*above, key), value


def _followers(config: DictConfig, gone: Collection[Keys]) -> list[Keys]:
    """Return the keys that take their value from one that will be gone, without those that will be gone too."""
    found: list[Keys] = []

    def visit(values: Any, above: Keys) -> None:
        if above in gone:
            return
        if isinstance(values, dict):
            for key, value in values.items():
                visit(value, (*above, key))
        elif isinstance(values, str):
            followed = [tuple(path.split(".")) for path in _FOLLOWED.findall(values)]
            if any(path[: len(keys)] == keys for path in followed for keys in gone):
                found.append(above)

    visit(OmegaConf.to_container(config, resolve=False), ())
    return found


def _at(values: Mapping[str, Any], keys: Keys) -> Any:
    return functools.reduce(lambda inside, key: inside[key], keys, values)


def _set(config: DictConfig, keys: Keys, value: Any) -> str:
    """Set a key of a configuration, and return the override that does it."""
    parent: Any = _at(config, keys[:-1])
    override = f"{'' if keys[-1] in parent else '++'}{'.'.join(keys)}={quoted(value)}"
    parent[keys[-1]] = OverridesParser.create().parse_override(override).value()
    return override


def _removal(config: DictConfig, keys: Keys) -> Iterator[str]:
    """Yield the overrides that remove a key."""
    name, parent = ".".join(keys), _at(config, keys[:-1])
    # Hydra takes a key without a value of its own for a missing one, and will not remove it.
    if OmegaConf.is_interpolation(parent, keys[-1]) or parent[keys[-1]] is None:
        yield f"{name}=0"
    yield f"~{name}"


def quoted(value: Any) -> str:
    """Return a value in the grammar of Hydra's overrides.

    Examples
    --------
    >>> quoted({"a": [None, True, 1e-3], "b": "last.ckpt", "c": "two words"})
    "{a:[null,true,0.001],b:last.ckpt,c:'two words'}"
    """
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{quoted(key)}:{quoted(inside)}" for key, inside in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(quoted(inside) for inside in value) + "]"
    text = str(value)
    if _PLAIN.fullmatch(text) and not _RESERVED.fullmatch(text):
        return text
    return QuotedString(text, Quote.single).with_quotes().replace("${", "\\${")
