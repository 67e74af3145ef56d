"""Turn a run's configuration back into overrides for `state tx train`."""

from collections.abc import Iterator, Mapping
from typing import Any

import yaml


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
            yield f"++{prefix}{key}={encoded(value)}"
        elif isinstance(value, dict) and isinstance(usual[key], dict):
            yield from _differences(usual[key], value, f"{prefix}{key}.")
        elif value != usual[key] or type(value) is not type(usual[key]):
            yield f"++{prefix}{key}={encoded(value)}"
    for key in usual:
        if key not in wanted:
            # Hydra takes a key without a value for a missing one, and will not delete it.
            if usual[key] is None or (isinstance(usual[key], str) and "${" in usual[key]):
                yield f"++{prefix}{key}=0"
            yield f"~{prefix}{key}"


def encoded(value: Any) -> str:
    r"""Return a plain value in Hydra's grammar.

    Examples
    --------
    >>> encoded({"a": [1, None, True], "b": "it's"})
    "{a:[1,null,true],b:'it\\'s'}"
    """
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{encoded(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(encoded, value)) + "]"
    text = str(value)
    # A backslash counts only before a quote, the closing one included.
    stripped = text.rstrip("\\")
    body = stripped.replace("\\'", "\\\\'").replace("'", "\\'") + 2 * text[len(stripped) :]
    return f"'{body}'"
