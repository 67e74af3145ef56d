"""What a flag is: its type, default, allowed values and meaning, declared once beside the flag's name.

A class of settings is a dataclass whose fields are made with `flag`. Checks, Hydra's defaults, `state-rag settings`
and the table in the documentation are all made from these declarations.
"""

import dataclasses
import math
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from state_rag.errors import StateRagError
from state_rag.names import suggest

UNKNOWN: Any = object()
"""For a flag that the authors' code does not know."""

KINDS: dict[Any, tuple[str, str]] = {
    bool: ("true or false", "true or false"),
    int: ("a whole number", "a whole number"),
    float: ("a number", "a number"),
    str: ("text", "text"),
    tuple[str, ...]: ("names", "a list of names, such as [WARS,AARS]"),
}
"""What a flag of each type takes: in a table, and in a refusal."""


@dataclass(frozen=True)
class Flag:
    """A flag of `training.`.

    Attributes
    ----------
    name
        As under `training.`.
    kind
        Its type, a key of `KINDS`.
    optional
        Whether null is a value.
    default
        Its value where nothing is said and no other flag leads.
    help
        What it does, as one or two sentences.
    choices
        Returns the allowed values, None among them for null; None: all of the type.
    at_least, above, below
        Bounds of a number. A number without an upper bound is finite all the same.
    only_if
        A flag that must be true for the bounds to matter.
    form
        What it takes in words, where the type does not say it.
    follows
        A flag whose value a command line's default is.
    fork
        Its default in the authors' code.
    fork_always
        What the authors' code does always, having no such flag.
    """

    name: str
    kind: Any
    optional: bool
    default: Any
    help: str
    choices: Callable[[], tuple[str | None, ...]] | None = None
    at_least: float | None = None
    above: float | None = None
    below: float | None = None
    only_if: str | None = None
    form: str | None = None
    follows: str | None = None
    fork: Any = UNKNOWN
    fork_always: Any = UNKNOWN

    @property
    def takes(self) -> str:
        """The allowed values in words."""
        if self.form is not None:
            return self.form
        if self.choices is not None:
            return ", ".join(said(choice) for choice in self.choices())
        if self.at_least is None and self.above is None:
            return KINDS[self.kind][0] + (" or null" if self.optional else "")
        number = "a whole number" if self.kind is int else "a number" if self.below is not None else "a finite number"
        if self.below is not None:
            return f"{number} from {said(self.at_least)} to below {said(self.below)}"
        return f"{number} " + (f"above {said(self.above)}" if self.at_least is None else f"of at least {self.at_least}")

    def typed(self, value: Any) -> Any:
        """Return `value` as the flag's type.

        Raises
        ------
        StateRagError
            If it has another type.
        """
        if value is None and self.optional:
            return None
        if self.kind == tuple[str, ...]:
            if isinstance(value, list | tuple) and all(isinstance(one, str) for one in value):
                return tuple(value)
        elif self.kind is float and isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        elif isinstance(value, self.kind) and (self.kind is bool or not isinstance(value, bool)):
            return value
        takes = self.form or KINDS[self.kind][1]
        raise StateRagError(f"training.{self.name}={value!r} is not usable: it takes {takes}.")

    def check(self, value: Any) -> None:
        """Refuse a value of the right type that is no choice or out of range.

        Raises
        ------
        StateRagError
            Naming what is allowed.
        """
        if self.choices is not None and value not in self.choices():
            close = suggest([str(value)], map(str, self.choices()))
            raise StateRagError(f"training.{self.name}={value} is not a choice{close}. Use one of: {self.takes}.")
        if self.at_least is None and self.above is None:
            return
        low = value >= self.at_least if self.above is None else value > self.above
        if not (low and value < (math.inf if self.below is None else self.below)):
            raise StateRagError(f"training.{self.name}={value} is out of range. Use {self.takes}.")


def flag(default: Any, help: str, **declared: Any) -> Any:  # noqa: A002
    """Declare a field of a class of settings; `declared` are further attributes of `Flag`.

    `choices` may be the allowed values themselves.
    """
    if isinstance(allowed := declared.get("choices"), tuple):
        declared["choices"] = lambda: allowed
    return dataclasses.field(default=default, metadata={"help": help, **declared})


def flags_of(settings: type) -> dict[str, Flag]:
    """Return the flags of a class of settings, by name, in the order of their declaration."""
    hints = typing.get_type_hints(settings)
    found = {}
    for field in dataclasses.fields(settings):
        parts = typing.get_args(hints[field.name]) if isinstance(hints[field.name], types.UnionType) else ()
        optional = type(None) in parts
        kind = next(part for part in parts if part is not type(None)) if optional else hints[field.name]
        found[field.name] = Flag(field.name, kind, optional, field.default, **field.metadata)
    return found


def said(value: Any) -> str:
    """Return a value as a command line spells it.

    Examples
    --------
    >>> [said(value) for value in (True, None, 32, 0.0, (), ("A", "B"))]
    ['true', 'null', '32', '0', '[]', '[A,B]']
    """
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list | tuple):
        return f"[{','.join(map(said, value))}]"
    return f"{value:g}" if isinstance(value, int | float) else str(value)
