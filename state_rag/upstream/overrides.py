"""Turn a run's configuration back into overrides for `state tx train`."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

_PLAIN = re.compile(r"[A-Za-z_/.][A-Za-z0-9_/.-]*")
_RESERVED = re.compile(r"(?i)true|false|null|inf|nan")


def overrides_of(text: str) -> list[str]:
    """Return the overrides with which `state tx train` composes a configuration.

    Parameters
    ----------
    text
        A ``config.yaml``.

    Returns
    -------
    list of str
        What differs from the configuration without overrides, or follows another key there, one key each, in Hydra's
        grammar: ``++key=value`` sets, ``~key`` removes.
    """
    from omegaconf import OmegaConf
    from state.__main__ import load_hydra_config

    usual: Any = OmegaConf.to_container(load_hydra_config("tx", []), resolve=False)
    found = list(_differences(usual, yaml.safe_load(text), ""))
    return sorted(found, key=lambda one: one.startswith("~"))  # what goes last is referred to by nobody any more


def _differences(usual: Mapping[str, Any], wanted: Mapping[str, Any], prefix: str) -> Iterator[str]:
    for key, value in wanted.items():
        if key not in usual:
            yield f"++{prefix}{key}={quoted(value)}"
        elif isinstance(value, dict) and isinstance(usual[key], dict):
            yield from _differences(usual[key], value, f"{prefix}{key}.")
        elif value != usual[key] or type(value) is not type(usual[key]):
            yield f"++{prefix}{key}={quoted(value)}"
    for key in usual:
        if key not in wanted:
            # Hydra takes a key without a value for a missing one, and will not delete it.
            if usual[key] is None or (isinstance(usual[key], str) and "${" in usual[key]):
                yield f"++{prefix}{key}=0"
            yield f"~{prefix}{key}"


def quoted(value: Any) -> str:
    """Return a value in the grammar of Hydra's overrides.

    Examples
    --------
    >>> quoted({"a": [None, True, 1e-3], "b": "last.ckpt", "c": "two words"})
    "{a:[null,true,0.001],b:last.ckpt,c:'two words'}"
    """
    from hydra.core.override_parser.types import Quote, QuotedString

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
